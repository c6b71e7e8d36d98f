//! Sending in again what a job could not deliver: a job of its own, on the other one's volume.
//!
//! Who may begin one, and that what is kept stays until none is left, is decided by the task of the
//! job that keeps it (`life/resending.rs`).

use std::sync::Arc;

use domain::{Attempt, EndReason, ImageId, ImageRef, Job, JobId, State, Timestamp};
use gate::Origin;
use tokio::sync::oneshot;
use tracing::{Instrument as _, info, info_span};

use crate::answer::Waiter;
use crate::engine::Shared;
use crate::job_loop::{Launchable, launch_plan};
use crate::live::Command;
use crate::submit::{RESOLUTION, new_job_id, too_late, wait};
use crate::{Engine, JobView, NewJob, RunnerError, StoreError, SubmitError};

/// Why what a job left is not sent in again. Nothing of it runs or ever will.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResendError {
    /// There is no such job.
    #[error("no such job")]
    Unknown,
    /// The job is at work itself.
    #[error("job is running")]
    Running,
    /// There is nothing to send.
    #[error("nothing is kept of it that was not delivered")]
    NothingUnsent,
    /// The job has no work of its own.
    #[error("it only sent in what job {0} left; resend that one")]
    Resend(JobId),
    /// Another one is at it.
    #[error("job {0} is at it already")]
    UnderWay(JobId),
    /// What would have to be known is not any more.
    #[error(
        "its container or its volume is gone; the token that an upload needs was known to the container alone"
    )]
    Gone,
    /// Started with whatever argument, the image may begin its work anew.
    #[error(
        "the image {0} does not offer it, as those of containers do that have the label io.offloader.resend=true; its files can still be fetched"
    )]
    NotOffered(ImageRef),
    /// The container engine failed.
    #[error(transparent)]
    Engine(#[from] RunnerError),
    /// The new job was not accepted, or did not get to run.
    #[error(transparent)]
    NotStarted(#[from] SubmitError),
}

impl From<StoreError> for ResendError {
    fn from(error: StoreError) -> Self {
        Self::NotStarted(error.into())
    }
}

/// Whose undelivered work a job sends in again.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    /// The image that is known to offer it; another one under the same name might not.
    pub(crate) image_id: ImageId,
}

/// A job that is to send in again what another one keeps, ready to be accepted.
pub(crate) struct Resend {
    pub(crate) new: NewJob,
    pub(crate) view: Arc<JobView>,
    pub(crate) launchable: Box<Launchable>,
    pub(crate) reply: oneshot::Sender<Result<Waiter, ResendError>>,
}

impl Resend {
    pub(crate) fn refuse(self, error: ResendError) {
        // A waiter that nobody takes is a client that has gone.
        drop(self.reply.send(Err(error)));
    }
}

/// Whether a job keeps something that could be sent in again.
pub(crate) fn check(job: &Job) -> Result<(), ResendError> {
    match &job.resends {
        Some(of) => Err(ResendError::Resend(of.clone())),
        None if job.state.lifecycle().holds_slot() => Err(ResendError::Running),
        None if job.keeps_unsent() => Ok(()),
        None => Err(ResendError::NothingUnsent),
    }
}

impl Engine {
    /// Sends in again what a job keeps that was not delivered, by its own image and with its own
    /// token: as a new job that has a slot, a time to start in and an end like any other. Answers
    /// when its container runs, or when it is certain that none will. Dropping the future gives
    /// the start up.
    ///
    /// Policies are not asked. Which image and which URL the work goes by was settled when it
    /// began; another choice now could not send it in. The gate checks all of it again.
    ///
    /// # Errors
    /// See [`ResendError`].
    pub async fn resend(&self, id: &JobId) -> Result<Arc<JobView>, ResendError> {
        self.resend_as(new_job_id(), id).await
    }

    /// The same under an identifier of the caller's making, which no other job may have.
    pub(crate) async fn resend_as(
        &self,
        id: JobId,
        of: &JobId,
    ) -> Result<Arc<JobView>, ResendError> {
        let span = info_span!("resend", job = %id, of = %of);
        resend(&self.shared, id, of).instrument(span).await
    }
}

async fn resend(shared: &Arc<Shared>, id: JobId, of: &JobId) -> Result<Arc<JobView>, ResendError> {
    if shared.ending.is_cancelled() {
        return Err(SubmitError::ShuttingDown.into());
    }
    let submitted_at = shared.now();
    let Some(live) = shared.wake(of).await? else {
        let job = shared.ports.store.job(of).await?;
        return Err(without_task(job));
    };
    let source = live.job();
    check(&source)?;
    if let Some(resend) = shared.live.resend_under_way(of) {
        return Err(ResendError::UnderWay(resend));
    }
    // How much room there is does not matter: it needs hardly any, and makes some.
    let (job, launchable) = make(shared, id, &source, submitted_at).await?;
    let start_by = job.start_by;
    let view = Arc::new(JobView {
        job: Arc::clone(&job),
        decisions: Vec::new(),
    });
    let new = NewJob {
        job,
        decisions: Vec::new(),
        keys: Vec::new(),
        body_sha256: String::new(),
        slots: shared.config.slots,
    };
    let (reply, told) = oneshot::channel();
    let launchable = Box::new(launchable);
    let asked = Box::new(Resend {
        new,
        view,
        launchable,
        reply,
    });
    let asking = async {
        let sent = live.commands.send(Command::Resend(asked)).await;
        sent.ok()?;
        told.await.ok()
    };
    let due = start_by.plus(RESOLUTION).after(shared.now());
    let waiter = match tokio::time::timeout(due, asking).await {
        Err(_) => return Err(too_late("the store did not save the job in time").into()),
        Ok(Some(answer)) => answer?,
        Ok(None) if shared.ending.is_cancelled() => return Err(SubmitError::ShuttingDown.into()),
        // Its task ended before it came to this.
        Ok(None) => return Err(without_task(shared.ports.store.job(of).await?)),
    };
    drop(live);
    info!("accepted");
    Ok(wait(shared, waiter, start_by, start_by).await?)
}

/// Why a job that nobody looks after is not sent in again. What is kept will be again.
fn without_task(job: Option<Job>) -> ResendError {
    let Some(job) = job else {
        return ResendError::Unknown;
    };
    let not_started = SubmitError::NotStarted {
        reason: EndReason::Interrupted,
        detail: "nobody looks after the job at the moment; try again soon".to_owned(),
    };
    check(&job).err().unwrap_or_else(|| not_started.into())
}

/// The new job, and what it takes to start its container: as the container of `source` was, by what
/// the container engine still knows of that.
async fn make(
    shared: &Shared,
    id: JobId,
    source: &Job,
    submitted_at: Timestamp,
) -> Result<(Arc<Job>, Launchable), ResendError> {
    let attempt = source.attempt();
    let (kind, origin) = (source.kind, Origin::Client);
    let name = shared.gate.container_name(&source.id, attempt.number);
    let remains = shared.ports.runner.remains(&name).await?;
    let remains = remains.ok_or(ResendError::Gone)?;
    if !remains.offers_resend {
        return Err(ResendError::NotOffered(attempt.image.clone()));
    }
    let image_id = attempt.image_id.clone().ok_or(ResendError::Gone)?;
    let mut inputs = shared.gate.given(kind, &source.inputs, remains.env);
    let refused = SubmitError::Refused;
    let site_url = match inputs.remove("SITE_URL") {
        None => None,
        Some(url) => {
            let url = shared.gate.site_url(kind, url.reveal(), &origin);
            Some((url.map_err(refused)?, origin.clone()))
        }
    };
    let image = attempt.image.to_string();
    let permit = shared.gate.image(kind, &image, &origin).map_err(refused)?;
    let first = Attempt::new(1, permit.image().clone(), submitted_at);
    let job = Job {
        id,
        site_url: site_url.as_ref().map(|(url, _)| url.clone()),
        submitted_at,
        start_by: submitted_at.plus(shared.config.start_timeout),
        resends: Some(source.id.clone()),
        attempts: vec![first],
        state: State::Preparing,
        ..source.clone()
    };
    let launchable = Launchable {
        permit,
        image_origin: origin,
        site_url,
        inputs,
        source: Some(Source {
            job: source.id.clone(),
            attempt: attempt.number,
            image_id: image_id.clone(),
        }),
    };
    // What the gate refuses is better said now than found out at the start.
    let plan = launch_plan(&job, &launchable, image_id);
    shared.gate.authorize(plan).map_err(refused)?;
    Ok((Arc::new(job), launchable))
}

#[cfg(test)]
#[path = "resend_tests.rs"]
mod tests;
