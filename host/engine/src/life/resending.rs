//! Both sides of sending in again what a job could not deliver: the job that keeps it, and the one
//! that sends it.

use std::sync::Arc;
use std::time::Duration;

use domain::{Delivery, End, Fact, JobId, Keep, Outcome, Timestamp};
use tokio::sync::oneshot;
use tracing::info;

use crate::engine::Shared;
use crate::job_loop::{Event, FIRST_PAUSE, JobLoop, longer, sleep_until};
use crate::live::Command;
use crate::resend::{self, Resend};
use crate::submit::{Begun, begin};
use crate::{ResendError, SubmitError};

/// How long the container of one that failed is kept, for its log. Meanwhile the other one's volume
/// cannot go.
const LOG_KEPT: Duration = Duration::from_secs(60 * 60);

impl JobLoop {
    /// Begins a job that sends in again what this one keeps. This task does it itself, so that what
    /// is kept cannot go at the same time, and no two begin.
    pub(crate) async fn begin_resend(&mut self, asked: Resend) {
        // Whoever asked has gone.
        if asked.reply.is_closed() {
            return;
        }
        if let Err(error) = resend::check(&self.job) {
            return asked.refuse(error);
        }
        if let Some(other) = self.shared.live.resend_under_way(&self.job.id) {
            return asked.refuse(ResendError::UnderWay(other));
        }
        let Resend {
            new,
            view,
            launchable,
            reply,
        } = asked;
        let begun = begin(Arc::clone(&self.shared), new, view, launchable).await;
        let begun = match begun {
            Ok(Begun::Waiting(waiter)) => Ok(waiter),
            Ok(Begun::Full) => Err(SubmitError::Full),
            Ok(Begun::Ending) => Err(SubmitError::ShuttingDown),
            Ok(Begun::Known(known, _)) => Err(SubmitError::Conflict(known.id)),
            Err(error) => Err(error.into()),
        };
        // A waiter that nobody takes is a client that has gone.
        drop(reply.send(begun.map_err(ResendError::from)));
    }

    /// Takes note that what this job keeps was sent in. `None` when that was known.
    pub(crate) fn resent(&mut self, reply: oneshot::Sender<()>) -> Option<Event> {
        if !self.job.keeps_unsent() {
            let _ = reply.send(());
            return None;
        }
        self.resenders.push(reply);
        Some(Event::Known(Fact::Resent))
    }

    /// The end of a job that sent in what job `of` left: that one is told before anything else, and
    /// again after a crash. Nothing of its own is to be kept but, when it failed, its log; so no
    /// policy is asked.
    pub(crate) async fn settle_resend(&mut self, of: &JobId, end: End) -> Event {
        if end.delivery == Delivery::Delivered && !tell_resent(&self.shared, of).await {
            return Event::Leave;
        }
        let keep = match end.outcome {
            Outcome::Succeeded => Keep::Nothing,
            Outcome::Failed => Keep::Until(end.at.plus(LOG_KEPT)),
        };
        Event::Known(Fact::Settled { keep })
    }
}

/// Tells a job that what it keeps was sent in, until it has saved that or is gone. False when the
/// service ends first.
async fn tell_resent(shared: &Arc<Shared>, of: &JobId) -> bool {
    let mut pause = FIRST_PAUSE;
    loop {
        let telling = async {
            let Some(live) = shared.wake(of).await.ok()? else {
                // What is kept is known, or will be again.
                let job = shared.ports.store.job(of).await.ok()?;
                return (!job.is_some_and(|job| job.keeps_unsent())).then_some(());
            };
            let (reply, told) = oneshot::channel();
            live.commands.send(Command::Resent(reply)).await.ok()?;
            told.await.ok()
        };
        tokio::select! {
            biased;
            told = telling => if told.is_some() {
                return true;
            },
            () = shared.ending.cancelled() => return false,
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => pause = longer(pause),
            () = shared.ending.cancelled() => return false,
        }
    }
}

/// Returns when what job `id` keeps may go: the time to keep it is over, and no job is left that
/// sends it in again.
pub(crate) async fn keeping_over(shared: &Shared, id: &JobId, until: Option<Timestamp>) {
    sleep_until(shared, until).await;
    // Timers may wake a little early; the machine compares with the saved time.
    while until.is_some_and(|until| shared.now() < until) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    loop {
        without_resends(shared, id).await;
        // It may be somebody's only copy that is being saved. Whoever stalls is cut off.
        if !shared.live.is_held(id) {
            return;
        }
        tokio::time::sleep(HELD).await;
    }
}

/// The pause before it is looked again whether somebody still has hold of a job.
pub(super) const HELD: Duration = Duration::from_secs(1);

/// Returns when no job is left that sends in again what job `id` left: their containers use its
/// volume.
pub(crate) async fn without_resends(shared: &Shared, id: &JobId) {
    let mut waited_for = None;
    loop {
        let gone = shared.live.resend_gone();
        let Some(resend) = shared.live.resend_of(id) else {
            break;
        };
        if waited_for.as_ref() != Some(&resend) {
            info!(%resend, "waiting for the job that sends it in again");
            waited_for = Some(resend);
        }
        gone.await;
    }
    // Tasks end with the service, and their containers go on.
    if shared.ending.is_cancelled() {
        std::future::pending::<()>().await;
    }
}
