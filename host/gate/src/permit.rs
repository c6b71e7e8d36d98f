//! Plans, and the permits that only the gate makes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{ClientId, ImageId, ImageRef, JobId, JobKind, Secret, SiteUrl, Timestamp};
use sha2::{Digest, Sha256};

use crate::label;
use crate::{ContainerName, Gate, Origin, Refusal};

/// All that one attempt wants to do.
#[derive(Debug)]
pub struct LaunchPlan {
    /// The job.
    pub job: JobId,
    /// The attempt's number.
    pub attempt: u32,
    /// What the job does.
    pub kind: JobKind,
    /// The name of the client that it is for.
    pub client: ClientId,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// How long it may run.
    pub max_duration: Duration,
    /// The image and who chose it.
    pub image: (ImageRef, Origin),
    /// What the engine calls that image.
    pub image_id: ImageId,
    /// The URL of the site and who chose it; `None` where the client sent none.
    pub site_url: Option<(SiteUrl, Origin)>,
    /// The client's inputs, secret ones included, by the names it gave them.
    pub inputs: BTreeMap<String, Secret>,
    /// The job and the attempt of it whose undelivered work is to be sent in again; `None` for work
    /// of its own.
    pub resends: Option<(JobId, u32)>,
}

/// Leave to start one container, with all that it may do. Only the gate makes one.
#[derive(Debug)]
pub struct LaunchPermit {
    kind: JobKind,
    name: ContainerName,
    image: ImageRef,
    image_id: ImageId,
    env: BTreeMap<String, Secret>,
    labels: BTreeMap<String, String>,
    network: String,
    memory_bytes: u64,
    nano_cpus: u64,
    pids: u64,
    capabilities: Vec<String>,
    stop_grace: Duration,
    resends: Option<ContainerName>,
}

/// The argument with which an image sends in again what is in its volume, and does nothing else.
const RESEND: &str = "resend";

impl Gate {
    /// Checks the whole of a plan, whatever was checked before, and makes a permit of it.
    ///
    /// # Errors
    /// For the first thing that is not granted.
    pub fn authorize(&self, plan: LaunchPlan) -> Result<LaunchPermit, Refusal> {
        let LaunchPlan {
            job,
            attempt,
            kind,
            client,
            submitted_at,
            max_duration,
            image: (image, image_origin),
            image_id,
            site_url,
            inputs,
            resends,
        } = plan;
        let grants = self.grants(kind);
        let refuse = |subject: &str, why: String, setting: String| {
            Err(Refusal {
                origin: Origin::Client,
                subject: subject.to_owned(),
                why,
                setting,
            })
        };
        if !(1..=grants.retry.max_attempts).contains(&attempt) {
            let why = format!("a job has at most {} attempts", grants.retry.max_attempts);
            return refuse(
                &format!("attempt {attempt}"),
                why,
                format!("gate.{kind}.retry.max_attempts"),
            );
        }
        let image = self
            .permit_image(kind, image, &image_origin)?
            .image()
            .clone();
        let mut env = self.environment(kind, inputs)?;
        match site_url {
            Some((url, origin)) => {
                self.permit_site(kind, &url, &origin)?;
                env.insert("SITE_URL".to_owned(), Secret::new(url.as_str()));
            }
            None if env.contains_key("SITE_URL") => {
                return refuse(
                    "input SITE_URL",
                    "the plan settled on no site URL".to_owned(),
                    String::new(),
                );
            }
            None => {}
        }
        if self.all_grants().dev_mode {
            env.insert("DEV_MODE".to_owned(), Secret::new("true"));
        }
        let Some(network) = grants.networks.first().cloned() else {
            return refuse(
                "network",
                "none is granted".to_owned(),
                format!("gate.{kind}.networks"),
            );
        };
        let mut permit = LaunchPermit {
            kind,
            name: self.container_name(&job, attempt),
            image,
            image_id,
            env,
            labels: BTreeMap::new(),
            network,
            memory_bytes: grants.memory_bytes,
            nano_cpus: grants.nano_cpus,
            pids: grants.pids,
            capabilities: grants.capabilities.iter().cloned().collect(),
            stop_grace: grants.stop_grace,
            resends: resends.map(|(job, attempt)| self.container_name(&job, attempt)),
        };
        permit.labels = permit.make_labels(&client, submitted_at, max_duration);
        Ok(permit)
    }
}

impl LaunchPermit {
    /// What the job does.
    #[must_use]
    pub fn kind(&self) -> JobKind {
        self.kind
    }

    /// The container's name; it holds job and attempt.
    #[must_use]
    pub fn name(&self) -> &ContainerName {
        &self.name
    }

    /// The image to create the container from.
    #[must_use]
    pub fn image(&self) -> &ImageRef {
        &self.image
    }

    /// What the engine calls that image; a container of another one must not start.
    #[must_use]
    pub fn image_id(&self) -> &ImageId {
        &self.image_id
    }

    /// The environment, by upper-case name.
    pub fn env(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The labels, all of them.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The engine's network to join.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Bytes of memory; 0 is no limit.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Billionths of a processor; 0 is no limit.
    #[must_use]
    pub fn nano_cpus(&self) -> u64 {
        self.nano_cpus
    }

    /// Processes and threads; 0 is no limit.
    #[must_use]
    pub fn pids(&self) -> u64 {
        self.pids
    }

    /// The capabilities to leave, without `CAP_`; all others are dropped.
    #[must_use]
    pub fn capabilities(&self) -> &[String] {
        &self.capabilities
    }

    /// How long the container may take to finish after SIGTERM.
    #[must_use]
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace
    }

    /// The container whose volume this one gets, to send in again what that one could not deliver;
    /// `None` for a container with a volume and work of its own.
    #[must_use]
    pub fn resends(&self) -> Option<&ContainerName> {
        self.resends.as_ref()
    }

    /// The arguments for the image's program.
    #[must_use]
    pub fn arguments(&self) -> &'static [&'static str] {
        match self.resends {
            Some(_) => &[RESEND],
            None => &[],
        }
    }

    /// The container on whose volume it works: itself, unless it resends.
    #[must_use]
    pub fn volume_of(&self) -> &ContainerName {
        self.resends.as_ref().unwrap_or(&self.name)
    }

    /// The labels tell enough of the job to look after its container even when its record is lost.
    /// Everybody who may list containers reads them: no secrets.
    fn make_labels(
        &self,
        client: &ClientId,
        submitted_at: Timestamp,
        max_duration: Duration,
    ) -> BTreeMap<String, String> {
        let ours = [
            (label::INSTANCE, self.name.instance().to_string()),
            (label::JOB, self.name.job().to_string()),
            (label::ATTEMPT, self.name.attempt().to_string()),
            // Never left out: an image could bring a label of the name.
            (label::VOLUME_OF, self.volume_of().to_string()),
            (label::KIND, self.kind.to_string()),
            (label::CLIENT, client.to_string()),
            (label::SUBMITTED, submitted_at.as_millis().to_string()),
            (label::MAX_DURATION, max_duration.as_millis().to_string()),
            (label::PLAN, self.digest()),
        ];
        let app = (label::APP.0, label::APP.1.to_owned());
        [app]
            .into_iter()
            .chain(ours)
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// sha256 over everything the permit allows. Each part goes in with its length, so that no two
    /// permits read the same; the name comes first, so that a secret has another digest in each.
    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        part(&self.name.to_string());
        part(self.kind.as_str());
        part(&self.image.to_string());
        part(self.image_id.as_str());
        part(&self.network);
        part(&self.volume_of().to_string());
        for number in [
            self.memory_bytes,
            self.nano_cpus,
            self.pids,
            self.stop_grace.as_secs(),
        ] {
            part(&number.to_string());
        }
        part(&self.capabilities.join(","));
        for (name, value) in &self.env {
            part(name);
            part(value.reveal());
        }
        hex::encode(hash.finalize())
    }
}

#[cfg(test)]
#[path = "permit_tests.rs"]
mod tests;
