//! The plugin's face towards the job service: activation, and what happens when record is pressed.

use std::time::{Duration, Instant};

use semver::Version;
use serde_json::{Map, Value, json};

use crate::{
    call::{Call, CallOptions},
    events::Happening,
    ids::new_id,
    report::JobType,
    server::Site,
    service::{Answer, JobService, ServiceError},
};

/// The oldest job service that the plugin works with.
const MIN_SERVICE_VERSION: Version = Version::new(0, 9, 0);

/// How the plugin is configured.
#[derive(Clone)]
pub struct PluginOptions {
    /// The job service, `http://host:port`.
    pub job_service: String,
    /// The site's URL as the jobs are told it; policies may send them elsewhere.
    pub site_url: String,
    /// The registry of the images asked for.
    pub registry: String,
    /// The recorder's image: name and tag.
    pub recorder: String,
    /// The transcriber's image: name and tag.
    pub transcriber: String,
    /// Who the plugin is to the job service.
    pub client_id: String,
    /// Its key there: at least 32 characters.
    pub auth_key: String,
    /// The longest recording; a transcription may take twice that.
    pub max_recording: Duration,
    /// Whether transcriptions are on at this site.
    pub transcriptions: bool,
    /// How often activation is tried, a second apart.
    pub init_tries: u32,
}

impl PluginOptions {
    /// The plugin's own settings, with a fresh client id and key.
    pub fn new(job_service: impl Into<String>) -> Self {
        Self {
            job_service: job_service.into(),
            site_url: "https://mattermost.example.com".into(),
            registry: "mattermost".into(),
            recorder: "calls-recorder:v0.8.13".into(),
            transcriber: "calls-transcriber:v0.7.2".into(),
            client_id: new_id(),
            auth_key: new_id() + &new_id(),
            max_recording: Duration::from_secs(3600),
            transcriptions: true,
            init_tries: 10,
        }
    }
}

/// Why the plugin has no job service: recording is off.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// No answer.
    #[error("the job service cannot be reached")]
    Unreachable(#[from] ServiceError),
    /// GET /version was refused, or did not answer with a version.
    #[error("the job service tells no version: {status} {body}")]
    NoVersion {
        /// HTTP status.
        status: u16,
        /// What came with it.
        body: String,
    },
    /// The job service is older than the plugin can use.
    #[error("job service version {found} is older than {MIN_SERVICE_VERSION}, the minimum")]
    TooOld {
        /// What it announces.
        found: Version,
    },
    /// POST /jobs/init was refused.
    #[error("the job service refused the images: {status} {text}")]
    Init {
        /// HTTP status.
        status: u16,
        /// The service's reason.
        text: String,
    },
}

/// The Calls plugin of a site. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    site: Site,
    service: JobService,
    options: PluginOptions,
}

impl Plugin {
    /// A plugin that is not yet activated.
    pub fn new(site: &Site, options: PluginOptions) -> Self {
        let service = JobService::new(&options.job_service, &options.client_id, &options.auth_key);
        Self {
            site: site.clone(),
            service,
            options,
        }
    }

    /// The job service, with the plugin's credentials.
    pub fn service(&self) -> &JobService {
        &self.service
    }

    /// Looks whether the job service is one to work with and has it fetch the images; tries again
    /// each second while it refuses or is not there. Returns what GET /version answered.
    pub async fn activate(&self) -> Result<Value, PluginError> {
        let mut try_number = 1;
        loop {
            match self.try_to_activate(try_number).await {
                Err(error) if try_number < self.options.init_tries && !is_final(&error) => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    try_number += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// A host presses record: asks for a recording and, once that was answered well, at once for a
    /// transcription. Returns when the last of the two was answered. A refusal is in the call's
    /// report, as it would be on the host's screen.
    pub async fn record(&self, options: CallOptions) -> Call {
        let call = self.site.open_call(options);
        let recording = self.post(&call, JobType::Recording).await;
        if recording.is_success() && call.options().transcribe {
            self.post(&call, JobType::Transcribing).await;
        }
        call
    }

    /// Begins a call without asking for anything yet.
    pub fn open_call(&self, options: CallOptions) -> Call {
        self.site.open_call(options)
    }

    /// Asks for one job of a call. Status 0 stands for no answer.
    pub async fn post(&self, call: &Call, job: JobType) -> Answer {
        self.site
            .log()
            .record(Some(call.id()), Happening::JobPosted { job });
        let asked = Instant::now();
        let answer = self
            .service
            .post(&self.job_request(call, job))
            .await
            .unwrap_or_else(|error| Answer {
                status: 0,
                body: error.chain(),
            });
        let text = if answer.is_success() {
            answer.job_id().unwrap_or_default()
        } else {
            answer.text()
        };
        let took = asked.elapsed();
        let what = Happening::JobAnswered {
            job,
            status: answer.status,
            text,
            took,
        };
        self.site.log().record(Some(call.id()), what);
        call.answered(job, &answer);
        answer
    }

    /// The body of POST /jobs for a job of a call. It holds the call's secret token.
    pub fn job_request(&self, call: &Call, job: JobType) -> Value {
        let seconds = self.options.max_recording.as_secs();
        let (image, max_duration_sec, id_key) = match job {
            JobType::Recording => (&self.options.recorder, seconds, "recording_id"),
            JobType::Transcribing => (&self.options.transcriber, seconds * 2, "transcription_id"),
        };
        json!({
            "type": job.name(),
            "runner": format!("{}/{image}", self.options.registry),
            "max_duration_sec": max_duration_sec,
            "input_data": self.input_data(call, job, id_key),
        })
    }

    fn input_data(&self, call: &Call, job: JobType, id_key: &str) -> Map<String, Value> {
        let options = call.options();
        let (settings, extra) = match job {
            JobType::Recording => (
                serde_json::to_value(&options.recorder),
                &options.extra_recorder,
            ),
            JobType::Transcribing => (
                serde_json::to_value(&options.transcriber),
                &options.extra_transcriber,
            ),
        };
        let Ok(Value::Object(mut input)) = settings else {
            unreachable!("settings are plain structures, which always make an object")
        };
        let text = |value: &str| Value::String(value.to_owned());
        input.insert("site_url".into(), text(&self.options.site_url));
        input.insert("call_id".into(), text(call.id()));
        input.insert("post_id".into(), text(call.post_id()));
        input.insert("auth_token".into(), text(call.token()));
        input.insert(
            id_key.into(),
            call.bot_id(job).map_or(Value::Null, Value::String),
        );
        input.extend(extra.clone());
        input
    }

    async fn try_to_activate(&self, try_number: u32) -> Result<Value, PluginError> {
        let version = self.service.version().await?;
        let announced = version.json();
        let Some(build) = announced["buildVersion"]
            .as_str()
            .filter(|_| version.is_success())
        else {
            return Err(PluginError::NoVersion {
                status: version.status,
                body: version.body,
            });
        };
        self.site.log().record(
            None,
            Happening::Version {
                version: build.to_owned(),
            },
        );
        check_version(build)?;

        let image = |name: &str| format!("{}/{name}", self.options.registry);
        let mut runners = vec![image(&self.options.recorder)];
        if self.options.transcriptions {
            runners.push(image(&self.options.transcriber));
        }
        let asked = Instant::now();
        let answer = self.service.init(&runners).await;
        let (status, text) = match &answer {
            Ok(answer) => (answer.status, answer.text()),
            Err(error) => (0, error.chain()),
        };
        let took = asked.elapsed();
        let what = Happening::InitAnswered {
            try_number,
            status,
            text: text.clone(),
            took,
        };
        self.site.log().record(None, what);
        if answer?.is_success() {
            Ok(announced)
        } else {
            Err(PluginError::Init { status, text })
        }
    }
}

/// Trying again changes nothing about an old job service.
fn is_final(error: &PluginError) -> bool {
    matches!(error, PluginError::TooOld { .. })
}

/// Whether the plugin works with a job service of this version; builds without one are taken as is.
fn check_version(build: &str) -> Result<(), PluginError> {
    if build.is_empty() || build == "master" || build.starts_with("dev") {
        return Ok(());
    }
    match Version::parse(build.trim_start_matches('v')) {
        Ok(found) if found < MIN_SERVICE_VERSION => Err(PluginError::TooOld { found }),
        Ok(_) => Ok(()),
        Err(_) => Err(PluginError::NoVersion {
            status: 200,
            body: format!("not a version: {build:?}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::check_version;

    #[test]
    fn old_services_are_refused_and_builds_without_version_are_not() {
        for good in ["v0.9.0", "0.9.3", "v1.0.0", "", "master", "dev-abc"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["v0.8.9", "0.1.0", "nonsense"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }
}
