//! `[jobs]`: what runs jobs, how many, and how long their traces stay.

use std::time::Duration;

use domain::InstanceId;
use engine::{Slots, StrayRules};

use super::document::{Section, UnknownKeys};
use super::values::{boolean, bytes, duration, duration_from, number32, retention, text, word};
use super::wasi::{self, Wasi};

/// What the configuration says about jobs.
#[derive(Debug)]
pub(crate) struct Jobs {
    pub(crate) max_concurrent_jobs: u32,
    pub(crate) max_concurrent_recordings: Option<u32>,
    pub(crate) max_concurrent_transcriptions: Option<u32>,
    /// Whether a recording is accepted only with room for its call's transcription.
    pub(crate) reserve_for_transcription: bool,
    /// A job is refused when the container engine has fewer bytes of disk free; 0 asks for none.
    pub(crate) min_free_bytes: u64,
    /// How long failed jobs are kept; `None` is for ever.
    pub(crate) failed_jobs_retention: Option<Duration>,
    pub(crate) image_registry: String,
    /// Whether the output of job containers goes to the log.
    pub(crate) output_logs: bool,
    /// How long a submission may take until its container runs.
    pub(crate) start_timeout: Duration,
    /// A pull that makes no progress for this long has stalled.
    pub(crate) pull_stall_timeout: Duration,
    /// How long records of jobs are kept of which nothing else is left.
    pub(crate) history_retention: Duration,
    /// What is done about containers and volumes that no job looks after.
    pub(crate) strays: StrayRules,
    /// The name of this installation; `None` makes one up and keeps it.
    pub(crate) instance: Option<InstanceId>,
    /// What runs jobs in place of a container engine.
    pub(crate) wasi: Option<Wasi>,
}

impl Jobs {
    /// How many jobs may be active.
    pub(crate) fn slots(&self) -> Slots {
        Slots {
            total: Some(self.max_concurrent_jobs),
            recordings: self.max_concurrent_recordings,
            transcriptions: self.max_concurrent_transcriptions,
            reserve_for_transcription: self.reserve_for_transcription,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ApiType {
    Docker,
    Kubernetes,
    Wasi,
}

/// The plugin waits two minutes for its answer, and an answer may come 15 seconds after the time to
/// start: with more than this it may take a job for failed that runs.
const LONGEST_START: Duration = Duration::from_secs(100);
/// No start is begun in the last ten seconds of the time to start.
const SHORTEST_START: Duration = Duration::from_secs(11);
/// Room for a long call's recording and the image of its transcription.
const MIN_FREE_BYTES: u64 = 5 << 30;
/// With less a pull would have stalled before it began.
const SHORTEST_STALL: Duration = Duration::from_secs(1);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn read(root: &Section<'_>) -> Jobs {
    let jobs = root.section("jobs", UnknownKeys::Warn);
    let api_type = api_type(&jobs);
    kubernetes(&jobs);
    let config = Jobs {
        max_concurrent_jobs: jobs
            .get_over(
                "max_concurrent_jobs",
                &[
                    "JOBS_MAXCONCURRENTJOBS",
                    "JOBS_DOCKER_MAXCONCURRENTJOBS",
                    "JOBS_KUBERNETES_MAXCONCURRENTJOBS",
                ],
                number32(1),
            )
            .unwrap_or(2),
        max_concurrent_recordings: jobs.get("max_concurrent_recordings", number32(1)),
        max_concurrent_transcriptions: jobs.get("max_concurrent_transcriptions", number32(1)),
        reserve_for_transcription: jobs
            .get("reserve_for_transcription", boolean)
            .unwrap_or(false),
        min_free_bytes: jobs.get("min_free_disk", bytes).unwrap_or(MIN_FREE_BYTES),
        failed_jobs_retention: jobs
            .get_over(
                "failed_jobs_retention_time",
                &[
                    "JOBS_FAILEDJOBSRETENTIONTIME",
                    "JOBS_DOCKER_FAILEDJOBSRETENTIONTIME",
                    "JOBS_KUBERNETES_FAILEDJOBSRETENTIONTIME",
                ],
                retention,
            )
            .flatten(),
        image_registry: jobs
            .get_over(
                "image_registry",
                &[
                    "JOBS_IMAGEREGISTRY",
                    "JOBS_DOCKER_IMAGEREGISTRY",
                    "JOBS_KUBERNETES_IMAGEREGISTRY",
                ],
                text,
            )
            .filter(|registry| !registry.is_empty())
            .unwrap_or_else(|| "mattermost".to_owned()),
        output_logs: output_logs(&jobs),
        start_timeout: start_timeout(&jobs),
        pull_stall_timeout: jobs
            .get("pull_stall_timeout", duration_from(SHORTEST_STALL))
            .unwrap_or(Duration::from_secs(60)),
        history_retention: jobs.get("history_retention", duration).unwrap_or(30 * DAY),
        strays: StrayRules {
            grace: jobs
                .get("stray_grace", duration)
                .unwrap_or(StrayRules::default().grace),
            dry_run: jobs.get("stray_dry_run", boolean).unwrap_or(false),
        },
        instance: jobs.get("instance", |raw| {
            let text = text(raw)?;
            text.parse()
                .map_err(|_| format!("expected 1 to 32 characters of [a-z0-9-], found {text:?}"))
        }),
        wasi: wasi::read(&jobs, api_type == ApiType::Wasi),
    };
    if config.reserve_for_transcription && config.max_concurrent_jobs < 2 {
        let key = jobs.key("reserve_for_transcription");
        let place = jobs.reader().place(&key);
        let message =
            "a recording and its transcription need jobs.max_concurrent_jobs of at least 2";
        jobs.reader().problem(place, &key, message);
    }
    jobs.finish();
    config
}

fn api_type(jobs: &Section<'_>) -> ApiType {
    let choices = &[
        ("docker", ApiType::Docker),
        ("kubernetes", ApiType::Kubernetes),
        ("wasi", ApiType::Wasi),
    ];
    let found = jobs.get_over("api_type", &["JOBS_APITYPE"], word(choices));
    if found == Some(ApiType::Kubernetes) {
        let key = jobs.key("api_type");
        let place = jobs.reader().place(&key);
        jobs.reader().problem(
            place,
            &key,
            "kubernetes is not in this build yet; expected \"docker\" or \"wasi\"",
        );
    }
    found.unwrap_or(ApiType::Docker)
}

fn start_timeout(jobs: &Section<'_>) -> Duration {
    let timeout = jobs.get("start_timeout", |raw| match duration(raw)? {
        timeout if timeout >= SHORTEST_START => Ok(timeout),
        _ => Err(format!(
            "expected at least {} s: no start is begun in the last 10 s of it",
            SHORTEST_START.as_secs()
        )),
    });
    let timeout = timeout.unwrap_or(LONGEST_START);
    if timeout > LONGEST_START {
        let key = jobs.key("start_timeout");
        let message =
            "the plugin gives up after two minutes; more than 100 s may answer it too late";
        jobs.reader()
            .warning(jobs.reader().place(&key), &key, message);
    }
    timeout
}

fn output_logs(jobs: &Section<'_>) -> bool {
    let docker = jobs.section("docker", UnknownKeys::Warn);
    let output_logs = docker
        .get_over("output_logs", &["JOBS_DOCKER_OUTPUTLOGS"], boolean)
        .unwrap_or(false);
    docker.finish();
    output_logs
}

/// Keys that only matter to the other backend; their form is checked all the same.
fn kubernetes(jobs: &Section<'_>) {
    let kubernetes = jobs.section("kubernetes", UnknownKeys::Warn);
    for (key, variable) in [
        (
            "jobs_resource_requirements",
            "JOBS_KUBERNETES_JOBSRESOURCEREQUIREMENTS",
        ),
        (
            "persistent_volume_claim_name",
            "JOBS_KUBERNETES_PERSISTENTVOLUMECLAIMNAME",
        ),
        ("node_sysctls", "JOBS_KUBERNETES_NODESYSCTLS"),
    ] {
        kubernetes.get_over(key, &[variable], text);
    }
    kubernetes.finish();
}
