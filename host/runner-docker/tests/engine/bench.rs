//! What each test starts from: a runner, a gate and images of the probe, all cleaned up after.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, ListContainersOptions, ListVolumesOptions,
    RemoveContainerOptions, RemoveImageOptions, RemoveVolumeOptions,
};
use bollard::{Docker, body_full};
use domain::{ClientId, ImageId, ImageRef, InstanceId, JobId, JobKind, Secret, Timestamp};
use engine::{LogStream, LogsUntil, Runner, Sighting, StartTicket};
use futures_util::{FutureExt, TryStreamExt};
use gate::{Gate, Grants, ImagePermit, JobGrants, LaunchPermit, LaunchPlan, Origin};
use offloader_runner_docker::{DockerConfig, DockerRunner};

/// Registry of images that only exist in the engine.
pub(crate) const LOCAL: &str = "offloader-test";

/// When the jobs of all permits were submitted, and how long they may run.
pub(crate) const SUBMITTED_UNIX_MS: i64 = 1_700_000_000_000;
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(600);

/// One test's world. Its instance id is its own, so tests run side by side.
pub(crate) struct Bench {
    pub(crate) docker: Docker,
    pub(crate) runner: DockerRunner,
    pub(crate) instance: InstanceId,
    pub(crate) host: String,
    images: Mutex<Vec<String>>,
}

/// Runs a test against the engine and removes whatever it left there, also when it fails.
pub(crate) async fn with_engine(test: impl AsyncFnOnce(&Bench)) {
    let Some(bench) = Bench::new() else { return };
    let outcome = AssertUnwindSafe(test(&bench)).catch_unwind().await;
    bench.clean().await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

impl Bench {
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Some(host) = std::env::var("OFFLOADER_TEST_ENGINE")
            .ok()
            .filter(|host| !host.is_empty())
        else {
            skip();
            return None;
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let instance: InstanceId = format!("t{}x{number}", std::process::id()).parse().unwrap();
        let docker = Docker::connect_with_unix(&host, 120, bollard::API_DEFAULT_VERSION).unwrap();
        let config = DockerConfig {
            host: Some(host.clone()),
            ..DockerConfig::new(instance.clone())
        };
        let runner = DockerRunner::connect(config).unwrap();
        Some(Self {
            docker,
            runner,
            instance,
            host,
            images: Mutex::default(),
        })
    }

    /// Another runner for the same engine and instance.
    pub(crate) fn runner_with(&self, change: impl FnOnce(&mut DockerConfig)) -> DockerRunner {
        let mut config = DockerConfig {
            host: Some(self.host.clone()),
            ..DockerConfig::new(self.instance.clone())
        };
        change(&mut config);
        DockerRunner::connect(config).unwrap()
    }

    /// An image whose only program is the probe, told to do `steps`.
    pub(crate) async fn image(&self, steps: &[&str]) -> (ImageRef, ImageId) {
        self.image_from("/probe", steps, "").await
    }

    /// An image that runs `program`, with one further instruction of a Dockerfile.
    pub(crate) async fn image_from(
        &self,
        program: &str,
        steps: &[&str],
        instruction: &str,
    ) -> (ImageRef, ImageId) {
        let number = self.images.lock().unwrap().len();
        let repo = format!("{LOCAL}/{}-{number}", self.instance);
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        let probe = std::fs::read(probe()).unwrap();
        header.set_mode(0o755);
        header.set_size(probe.len() as u64);
        tar.append_data(&mut header, "probe", probe.as_slice())
            .unwrap();
        // No two images share a layer, so each has to be pulled whole.
        let mut header = tar::Header::new_gnu();
        header.set_size(repo.len() as u64);
        tar.append_data(&mut header, "name", repo.as_bytes())
            .unwrap();
        let command: Vec<&str> = std::iter::once(program)
            .chain(steps.iter().copied())
            .collect();
        let mut changes = vec![format!(
            "ENTRYPOINT {}",
            serde_json::to_string(&command).unwrap()
        )];
        changes.extend((!instruction.is_empty()).then(|| instruction.to_owned()));
        let options = CreateImageOptions {
            from_src: Some("-".into()),
            repo: Some(repo.clone()),
            tag: Some("v1".into()),
            changes,
            ..Default::default()
        };
        let body = body_full(tar.into_inner().unwrap().into());
        self.docker
            .create_image(Some(options), Some(body), None)
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        let image: ImageRef = format!("{repo}:v1").parse().unwrap();
        let id = self
            .docker
            .inspect_image(&image.to_string())
            .await
            .unwrap()
            .id
            .unwrap();
        self.images.lock().unwrap().push(id.clone());
        (image, id.parse().unwrap())
    }

    fn gate(&self, image: &ImageRef, change: impl FnOnce(&mut JobGrants)) -> Gate {
        let mut grants = Grants::standard(image.registry());
        grants.recording.images = [image.name().to_owned()].into();
        grants.recording.memory_bytes = 64 << 20;
        change(&mut grants.recording);
        Gate::new(grants, self.instance.clone()).unwrap()
    }

    /// Leave to have an image.
    pub(crate) fn image_permit(&self, image: &ImageRef) -> ImagePermit {
        self.gate(image, |_| {})
            .image(JobKind::Recording, &image.to_string(), &Origin::Client)
            .unwrap()
    }

    /// Leave to run an image as the first attempt of job `job`.
    pub(crate) fn permit(&self, job: u8, image: &(ImageRef, ImageId)) -> LaunchPermit {
        self.permit_with(job, image, &[], |_| {})
    }

    /// The same with inputs, and with other grants.
    pub(crate) fn permit_with(
        &self,
        job: u8,
        (image, image_id): &(ImageRef, ImageId),
        inputs: &[(&str, &str)],
        change: impl FnOnce(&mut JobGrants),
    ) -> LaunchPermit {
        let plan = self.plan(job, (image, image_id), inputs);
        self.gate(image, change).authorize(plan).unwrap()
    }

    /// Leave for job `job` to send in again what the container of another permit left.
    pub(crate) fn permit_to_resend(
        &self,
        job: u8,
        (image, image_id): &(ImageRef, ImageId),
        source: &LaunchPermit,
    ) -> LaunchPermit {
        let mut plan = self.plan(job, (image, image_id), &[]);
        plan.resends = Some((source.name().job().clone(), source.name().attempt()));
        self.gate(image, |_| {}).authorize(plan).unwrap()
    }

    fn plan(
        &self,
        job: u8,
        (image, image_id): (&ImageRef, &ImageId),
        inputs: &[(&str, &str)],
    ) -> LaunchPlan {
        let inputs: BTreeMap<String, Secret> = inputs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))
            .collect();
        LaunchPlan {
            job: JobId::from_random([job; JobId::LEN]),
            attempt: 1,
            kind: JobKind::Recording,
            client: ClientId::new("site").unwrap(),
            submitted_at: Timestamp::from_millis(SUBMITTED_UNIX_MS),
            max_duration: MAX_DURATION,
            image: (image.clone(), Origin::Client),
            image_id: image_id.clone(),
            site_url: None,
            inputs,
            resends: None,
        }
    }

    /// Runs an image's container to its end and gives what it printed.
    pub(crate) async fn output_of(&self, permit: &LaunchPermit) -> String {
        self.runner.launch(permit, &always()).await.unwrap();
        self.until_ended(permit).await;
        let logs = self.logs(permit).await.unwrap();
        let parts: Vec<_> = logs.try_collect().await.unwrap();
        String::from_utf8(parts.concat()).unwrap()
    }

    /// What the container printed so far.
    pub(crate) async fn logs(&self, permit: &LaunchPermit) -> Option<LogStream> {
        let logs = self.runner.logs(permit.name(), LogsUntil::Now).await;
        logs.unwrap()
    }

    /// Waits for the container's end.
    pub(crate) async fn until_ended(&self, permit: &LaunchPermit) -> domain::Exit {
        let wait = async {
            loop {
                match self.runner.inspect(permit.name()).await.unwrap() {
                    Sighting::Ended(exit) => return exit,
                    Sighting::Running { .. } => self.runner.changed(permit.name()).await.unwrap(),
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .expect("it ends")
    }

    /// Waits until the probe listens to signals.
    pub(crate) async fn until_ready(&self, permit: &LaunchPermit) {
        for _ in 0..100 {
            let logs = self.logs(permit).await.unwrap();
            if logs
                .try_collect::<Vec<_>>()
                .await
                .unwrap()
                .concat()
                .starts_with(b"ready")
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the probe never got ready");
    }

    /// What the engine itself says about a container.
    pub(crate) async fn inspect(&self, permit: &LaunchPermit) -> Option<ContainerInspectResponse> {
        self.docker
            .inspect_container(&permit.name().to_string(), None)
            .await
            .ok()
    }

    /// Whether the engine has neither container nor volume of a permit.
    pub(crate) async fn nothing_left(&self, permit: &LaunchPermit) -> bool {
        let volume = self.docker.inspect_volume(&permit.name().volume()).await;
        self.inspect(permit).await.is_none() && volume.is_err()
    }

    /// Creates a container behind the runner's back, with the permit's name and `labels`.
    pub(crate) async fn create_by_hand(
        &self,
        permit: &LaunchPermit,
        labels: BTreeMap<String, String>,
        host_config: HostConfig,
    ) -> String {
        let options = CreateContainerOptions {
            name: Some(permit.name().to_string()),
            ..Default::default()
        };
        let body = ContainerCreateBody {
            image: Some(permit.image().to_string()),
            labels: Some(labels.into_iter().collect()),
            host_config: Some(host_config),
            ..Default::default()
        };
        self.docker
            .create_container(Some(options), body)
            .await
            .unwrap()
            .id
    }

    async fn clean(&self) {
        let prefix = format!("offloader-{}-", self.instance);
        let all = ListContainersOptions {
            all: true,
            ..Default::default()
        };
        for container in self.docker.list_containers(Some(all)).await.unwrap() {
            let named = container
                .names
                .iter()
                .flatten()
                .any(|name| name[1..].starts_with(&prefix));
            if named {
                let force = RemoveContainerOptions {
                    force: true,
                    v: true,
                    link: false,
                };
                let _ = self
                    .docker
                    .remove_container(&container.id.unwrap(), Some(force))
                    .await;
            }
        }
        let volumes = self
            .docker
            .list_volumes(None::<ListVolumesOptions>)
            .await
            .unwrap();
        for volume in volumes.volumes.unwrap_or_default() {
            if volume.name.starts_with(&prefix) {
                let force = RemoveVolumeOptions { force: true };
                let _ = self.docker.remove_volume(&volume.name, Some(force)).await;
            }
        }
        let images = std::mem::take(&mut *self.images.lock().unwrap());
        for image in images {
            let force = RemoveImageOptions {
                force: true,
                ..Default::default()
            };
            let _ = self.docker.remove_image(&image, Some(force), None).await;
        }
    }
}

/// A ticket that always says yes.
pub(crate) fn always() -> StartTicket {
    StartTicket::new(|| true)
}

/// Tells that a test was skipped, and makes that a failure where nothing may be.
fn skip() {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("?");
    assert!(
        std::env::var_os("CI").is_none(),
        "no container engine for {name}: set OFFLOADER_TEST_ENGINE"
    );
    eprintln!("SKIPPED (no container engine): {name}");
    if let Some(list) = std::env::var_os("OFFLOADER_TEST_SKIPS") {
        let mut list = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(list)
            .unwrap();
        writeln!(list, "{name}").unwrap();
    }
}

/// The probe, compiled once per run.
fn probe() -> PathBuf {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE
        .get_or_init(|| {
            let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
            let own = folder.join(format!("probe-{}", std::process::id()));
            let program = folder.join("probe");
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/probe.c");
            let compiled = Command::new("cc")
                .args(["-static", "-O2", "-o"])
                .arg(&own)
                .arg(source)
                .status();
            assert!(
                compiled.expect("a C compiler named cc").success(),
                "the probe compiles"
            );
            // Whole at any time, also when two runs do this at once.
            std::fs::rename(&own, &program).unwrap();
            program
        })
        .clone()
}
