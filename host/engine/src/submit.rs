//! From a submission to a running container, as its client sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{
    Attempt, Decision, EndReason, Fact, Job, JobFacts, JobId, Purpose, Secret, SiteUrl, State,
    Timestamp,
};
use gate::{ImagePermit, Origin, SortedInputs};
use sha2::{Digest as _, Sha256};
use tracing::{Instrument as _, info, info_span};

use crate::answer::Waiter;
use crate::engine::{Denied, Shared};
use crate::job_loop::{JobLoop, Launchable};
use crate::rules::step;
use crate::{
    Accepted, Engine, FaultPoint, JobKey, JobView, KeyedJob, NewJob, StoreError, Submission,
    SubmitError, facts,
};

/// How long after the time to start an answer may come, while a start under way is resolved.
pub(crate) const RESOLUTION: Duration = Duration::from_secs(15);
/// How often a submission looks again whether an earlier one that will never run is out of its way.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Engine {
    /// Runs a job. Answers when its container runs, or when it is certain that none will.
    ///
    /// Dropping the future means that the client has gone: when nobody else waits for the same
    /// job, it is not started any more.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, submission: Submission) -> Result<Arc<JobView>, SubmitError> {
        self.submit_as(new_job_id(), submission).await
    }

    /// The same under an identifier of the caller's making, which no other job may have.
    pub(crate) async fn submit_as(
        &self,
        id: JobId,
        submission: Submission,
    ) -> Result<Arc<JobView>, SubmitError> {
        let span = info_span!("submit", job = %id, kind = %submission.kind);
        submit(&self.shared, id, submission).instrument(span).await
    }
}

async fn submit(
    shared: &Arc<Shared>,
    id: JobId,
    s: Submission,
) -> Result<Arc<JobView>, SubmitError> {
    if shared.ending.is_cancelled() {
        return Err(SubmitError::ShuttingDown);
    }
    let submitted_at = shared.now();
    let start_by = submitted_at.plus(shared.config.start_timeout);
    // In dev mode the gate answers with the developer's own build.
    let runner = shared.gate.runner(&s.runner)?.text;
    let inputs = shared.gate.sort_inputs(s.kind, &s.inputs)?;
    let keys = keys(&s, &inputs);

    // Sent again: the same answer, and no policy is asked twice.
    let due = start_by.plus(RESOLUTION);
    for key in &keys {
        let known = shared.ports.store.by_key(key, submitted_at);
        if let Some(known) = read_by(shared, due, known).await? {
            match join(shared, &known, &s, start_by).await {
                Some(result) => return result,
                None => break,
            }
        }
    }
    if shared.runner_trouble().is_some()
        && let Err(error) = shared.check_runner().await
    {
        return Err(SubmitError::EngineUnreachable(error.to_string()));
    }
    if let Some(free_bytes) = too_little_room(shared).await {
        let needed_bytes = shared.config.min_free_bytes;
        return Err(SubmitError::NoRoom {
            free_bytes,
            needed_bytes,
        });
    }

    let chosen = choose(shared, &id, &s, &runner, &inputs, submitted_at, start_by).await?;
    let job = Job {
        id,
        owner: s.owner,
        client: s.client.clone(),
        kind: s.kind,
        image_asked: runner,
        site_url_asked: chosen.site_url_asked,
        site_url: chosen.site_url.as_ref().map(|(url, _)| url.clone()),
        max_duration: s.max_duration,
        inputs: inputs.public,
        submitted_at,
        start_by,
        resends: None,
        attempts: vec![Attempt::new(1, chosen.image.image().clone(), submitted_at)],
        state: State::Preparing,
    };
    let launchable = Box::new(Launchable {
        permit: chosen.image,
        image_origin: chosen.image_origin,
        site_url: chosen.site_url,
        inputs: inputs.all,
        source: None,
    });
    let mut launchable = Some(launchable);
    while let Some(to_launch) = launchable.take() {
        let job = without_waiting_for_its_image(shared, job.clone(), &to_launch.permit);
        let job = Arc::new(job);
        let view = Arc::new(JobView {
            job: Arc::clone(&job),
            decisions: chosen.decisions.clone(),
        });
        let new = NewJob {
            job: Arc::clone(&job),
            decisions: chosen.decisions.clone(),
            keys: keys.clone(),
            body_sha256: s.body_sha256.clone(),
            slots: shared.config.slots,
        };
        let begin = begin(Arc::clone(shared), new, view, to_launch).in_current_span();
        let begun = tokio::time::timeout(due.after(shared.now()), shared.tasks.spawn(begin)).await;
        let known = match begun.map(|joined| joined.unwrap_or(Ok(Begun::Ending))) {
            Err(_) => return Err(too_late("the store did not save the job in time")),
            Ok(Err(error)) => return Err(error.into()),
            Ok(Ok(Begun::Ending)) => return Err(SubmitError::ShuttingDown),
            Ok(Ok(Begun::Full)) => return Err(SubmitError::Full),
            Ok(Ok(Begun::Waiting(waiter))) => {
                info!(image = %job.attempt().image, client = %job.client, "accepted");
                return wait(shared, waiter, start_by, start_by).await;
            }
            Ok(Ok(Begun::Known(known, unused))) => {
                launchable = Some(unused);
                known
            }
        };
        if let Some(result) = join(shared, &known, &s, start_by).await {
            return result;
        }
        if shared.now() >= start_by {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(too_late(
        "an earlier submission of the same work is still being given up",
    ))
}

/// The job as it is when its image is known to be present.
fn without_waiting_for_its_image(shared: &Shared, job: Job, image: &ImagePermit) -> Job {
    let Some(image_id) = shared.ports.runner.present(image) else {
        return job;
    };
    match step(&job, &Fact::Prepared { image_id }, shared.now()) {
        Ok(starting) if starting.state == State::Starting => starting,
        _ => job,
    }
}

/// What the store answers while there is time.
async fn read_by<T>(
    shared: &Shared,
    due: Timestamp,
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, SubmitError> {
    match tokio::time::timeout(due.after(shared.now()), read).await {
        Ok(read) => Ok(read?),
        Err(_) => Err(too_late("the store did not answer in time")),
    }
}

/// How many bytes are free, when they are too few for another job. Who cannot tell is no reason to
/// refuse one.
pub(crate) async fn too_little_room(shared: &Shared) -> Option<u64> {
    let needed = shared.config.min_free_bytes;
    if needed == 0 {
        return None;
    }
    let free = shared.ports.runner.free_bytes().await.ok().flatten();
    free.filter(|free| *free < needed)
}

pub(crate) fn too_late(detail: &str) -> SubmitError {
    SubmitError::NotStarted {
        reason: EndReason::StartTimeout,
        detail: detail.to_owned(),
    }
}

/// What became of saving a new job.
pub(crate) enum Begun {
    /// It is saved and has a task.
    Waiting(Waiter),
    Full,
    Known(KeyedJob, Box<Launchable>),
    Ending,
}

/// Saves a new job and begins its task. A task of its own, for it has to come to its end also when
/// the client goes meanwhile: what is saved now needs a task that looks after it. Dropping the
/// result is the client's leaving.
pub(crate) async fn begin(
    shared: Arc<Shared>,
    new: NewJob,
    view: Arc<JobView>,
    launchable: Box<Launchable>,
) -> Result<Begun, StoreError> {
    if shared.ending.is_cancelled() {
        return Ok(Begun::Ending);
    }
    FaultPoint::BeforeIntent.reach();
    Ok(match shared.ports.store.accept(new).await? {
        Accepted::Full => Begun::Full,
        Accepted::Known(known) => Begun::Known(known, launchable),
        Accepted::New => {
            FaultPoint::AfterIntent.reach();
            let (job_loop, waiter) = JobLoop::fresh(&shared, view, *launchable);
            if shared.ending.is_cancelled() {
                job_loop.answer.desert();
            }
            job_loop.spawn();
            Begun::Waiting(waiter)
        }
    })
}

/// Waits for the answer of the task of a job that starts by `start_by`, and no longer than the
/// answer to a submission may take that would have started by `own_start_by`.
pub(crate) async fn wait(
    shared: &Shared,
    waiter: Waiter,
    start_by: Timestamp,
    own_start_by: Timestamp,
) -> Result<Arc<JobView>, SubmitError> {
    let due = start_by.min(own_start_by).plus(RESOLUTION);
    let told = match tokio::time::timeout(due.after(shared.now()), waiter.told()).await {
        Ok(told) => told,
        Err(_) => {
            // A later submission of the same work has the time that this one has not.
            let left = if own_start_by < start_by {
                waiter.leave()
            } else {
                Err(waiter)
            };
            let Err(waiter) = left else {
                return Err(too_late("a later submission of the same work goes on"));
            };
            if waiter.refuse() {
                return Err(too_late("the container engine did not finish the start"));
            }
            waiter.told().await
        }
    };
    match told {
        Ok(view) => Ok(view),
        Err(_) if shared.ending.is_cancelled() => Err(SubmitError::ShuttingDown),
        Err(not) => Err(SubmitError::NotStarted {
            reason: not.reason,
            detail: not.detail,
        }),
    }
}

/// The answer to a submission whose key stands for a job already; `None` when that job was given
/// up and is about to set its key free.
async fn join(
    shared: &Shared,
    known: &KeyedJob,
    s: &Submission,
    start_by: Timestamp,
) -> Option<Result<Arc<JobView>, SubmitError>> {
    if known.body_sha256 != s.body_sha256 {
        return Some(Err(SubmitError::Conflict(known.id.clone())));
    }
    if let Some(live) = shared.live.get(&known.id) {
        let view = live.view.borrow().clone();
        if view.job.ever_ran() {
            return Some(Ok(view));
        }
        let waiter = live.answer.wait()?;
        return Some(wait(shared, waiter, view.job.start_by, start_by).await);
    }
    let due = start_by.plus(RESOLUTION);
    match read_by(shared, due, shared.view(&known.id)).await {
        Ok(Some(view)) if view.job.ever_ran() => Some(Ok(view)),
        Ok(Some(_)) => None,
        Ok(None) => Some(Err(SubmitError::Conflict(known.id.clone()))),
        Err(error) => Some(Err(error)),
    }
}

/// What policies and gate settled on for a submission.
struct Chosen {
    image: ImagePermit,
    image_origin: Origin,
    site_url_asked: String,
    site_url: Option<(SiteUrl, Origin)>,
    decisions: Vec<Decision>,
}

async fn choose(
    shared: &Shared,
    id: &JobId,
    s: &Submission,
    runner: &str,
    inputs: &SortedInputs,
    now: Timestamp,
    start_by: Timestamp,
) -> Result<Chosen, SubmitError> {
    let by_name = facts::by_lower_case_name(&inputs.public);
    let site_url_asked = by_name.get("site_url").cloned().unwrap_or_default();
    let mut facts = JobFacts {
        id: id.to_string(),
        client: s.client.to_string(),
        kind: s.kind,
        image_asked: runner.to_owned(),
        image_chosen: runner.to_owned(),
        site_url_asked: site_url_asked.clone(),
        site_url_chosen: site_url_asked.clone(),
        max_duration: s.max_duration,
        submitted_at: now,
        now,
        start_by,
        attempts: Vec::new(),
        delivery: None,
        inputs: by_name,
    };
    let denied = |d: Denied| {
        info!(
            policy = d.policy,
            code = d.denial.code,
            message = d.denial.message,
            "denied by policy"
        );
        SubmitError::Denied {
            policy: d.policy,
            denial: d.denial,
        }
    };

    let ruling = shared
        .ports
        .policies
        .select_image(&facts, Purpose::Start)
        .await;
    let mut decisions = ruling.decisions.clone();
    let (image, image_origin) = shared.settle_choice(ruling, runner).map_err(denied)?;
    let image = shared.gate.image(s.kind, &image, &image_origin)?;
    facts.image_chosen = image.image().to_string();

    let ruling = shared.ports.policies.select_site_url(&facts).await;
    decisions.extend(ruling.decisions.clone());
    let (url, url_origin) = shared
        .settle_choice(ruling, &site_url_asked)
        .map_err(denied)?;
    let site_url = if url.is_empty() {
        None
    } else {
        Some((shared.gate.site_url(s.kind, &url, &url_origin)?, url_origin))
    };
    Ok(Chosen {
        image,
        image_origin,
        site_url_asked,
        site_url,
        decisions,
    })
}

/// What the submission is known by: the work's id, and the header where there is one.
fn keys(s: &Submission, inputs: &SortedInputs) -> Vec<JobKey> {
    let by_name = facts::by_lower_case_name(&inputs.public);
    let work = by_name
        .get(s.kind.work_id_input())
        .filter(|id| !id.is_empty())
        .map(|id| format!("work\0{}\0{id}", s.kind));
    let header = s
        .idempotency_key
        .as_ref()
        .map(|key| format!("header\0{key}"));
    let key = |text: String| JobKey {
        owner: s.owner,
        digest: hex::encode(Sha256::digest(text.as_bytes())),
    };
    work.into_iter().chain(header).map(key).collect()
}

pub(crate) fn new_job_id() -> JobId {
    let mut bytes = [0; JobId::LEN];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    JobId::from_random(bytes)
}

/// The secrets and the rest of a job's inputs, by the names that the client gave them.
pub(crate) type AllInputs = BTreeMap<String, Secret>;
