//! Who waits for a start, and what they are told.
//!
//! An answer of success and a container in somebody's call must go together. So one value
//! decides, by compare-and-swap: a start that was admitted can no longer be deserted, a refusal
//! that was given can no longer be followed by a start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use domain::EndReason;
use tokio::sync::{Notify, SetOnce};

use crate::JobView;

/// Nobody has decided.
const OPEN: u8 = 0;
/// The container is being started.
const ADMITTED: u8 = 1;
/// It runs; the clients are told so.
const ACCEPTED: u8 = 2;
/// It will not run; the clients are told so, or have gone.
const REFUSED: u8 = 3;

/// Why the clients of a job were refused.
#[derive(Debug, Clone)]
pub(crate) struct NotStarted {
    pub(crate) reason: EndReason,
    pub(crate) detail: String,
}

/// The job as it ran, or why it does not.
type Told = Result<Arc<JobView>, NotStarted>;

/// The answer that the clients of one job wait for.
pub(crate) struct Answer {
    stage: AtomicU8,
    waiters: AtomicUsize,
    refused: Notify,
    told: SetOnce<Told>,
    /// Whether whoever waited is gone, and may have been told anything.
    nobody_left: bool,
}

impl Answer {
    /// An answer that is open. It wants its first waiter before the job's task begins.
    pub(crate) fn open() -> Arc<Self> {
        Self::at(OPEN, false)
    }

    /// The answer of a job found in the store: whoever waited for it is gone.
    pub(crate) fn given() -> Arc<Self> {
        Self::at(REFUSED, true)
    }

    fn at(stage: u8, nobody_left: bool) -> Arc<Self> {
        Arc::new(Self {
            stage: AtomicU8::new(stage),
            waiters: AtomicUsize::new(0),
            refused: Notify::new(),
            told: SetOnce::new(),
            nobody_left,
        })
    }

    fn swap(&self, from: u8, to: u8) -> bool {
        self.stage
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Joins those who wait; `None` when they were refused already.
    pub(crate) fn wait(self: &Arc<Self>) -> Option<Waiter> {
        self.waiters.fetch_add(1, Ordering::AcqRel);
        // The waiter leaves by its drop when it came too late.
        let waiter = Waiter {
            answer: Arc::clone(self),
            left: false,
        };
        (self.stage.load(Ordering::Acquire) != REFUSED).then_some(waiter)
    }

    /// Whether the container may be started: somebody waits for it.
    pub(crate) fn admit(&self) -> bool {
        self.swap(OPEN, ADMITTED)
            || (self.stage.load(Ordering::Acquire) == ADMITTED
                && self.waiters.load(Ordering::Acquire) > 0)
    }

    /// After an admitted start that failed: open again for another attempt, if anybody waits.
    pub(crate) fn reopen(&self) {
        if self.swap(ADMITTED, OPEN) && self.waiters.load(Ordering::Acquire) == 0 {
            self.desert();
        }
    }

    /// Whether success may be told; from here on a refusal comes too late.
    pub(crate) fn accept(&self) -> bool {
        self.swap(ADMITTED, ACCEPTED)
    }

    /// Whether a container that is found running may go on: nobody was told that it would not,
    /// and from here on nobody is.
    pub(crate) fn adopt(&self) -> bool {
        self.nobody_left || self.accept() || self.stage.load(Ordering::Acquire) == ACCEPTED
    }

    /// Gives the start up unless it runs. True when that is so now.
    pub(crate) fn refuse(&self) -> bool {
        let refused = self.swap(OPEN, REFUSED) || self.swap(ADMITTED, REFUSED);
        if refused {
            self.refused.notify_one();
        }
        self.stage.load(Ordering::Acquire) == REFUSED
    }

    /// Gives the start up unless it is under way or done.
    pub(crate) fn desert(&self) {
        if self.swap(OPEN, REFUSED) {
            self.refused.notify_one();
        }
    }

    /// Resolves when the start was given up.
    pub(crate) async fn given_up(&self) {
        while self.stage.load(Ordering::Acquire) != REFUSED {
            self.refused.notified().await;
        }
    }

    /// Tells those who wait. The first word is the last.
    pub(crate) fn tell(&self, told: Told) {
        let stage = if told.is_ok() { ACCEPTED } else { REFUSED };
        self.stage.store(stage, Ordering::Release);
        let _ = self.told.set(told);
    }
}

/// One client that waits. Dropping the last one before the start is admitted gives it up.
pub(crate) struct Waiter {
    answer: Arc<Answer>,
    left: bool,
}

impl Waiter {
    /// What the job's task tells; waits until it does.
    pub(crate) async fn told(&self) -> Told {
        self.answer.told.wait().await.clone()
    }

    /// Gives the start up because the answer is due. False when it runs already.
    pub(crate) fn refuse(&self) -> bool {
        self.answer.refuse()
    }

    /// Leaves the start to the others who wait for it. Comes back when there are none.
    pub(crate) fn leave(mut self) -> Result<(), Self> {
        let one_less = |waiters| (waiters > 1).then(|| waiters - 1);
        let waiters = &self.answer.waiters;
        self.left = waiters
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less)
            .is_ok();
        if self.left { Ok(()) } else { Err(self) }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if !self.left && self.answer.waiters.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answer.desert();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_client_to_leave_gives_the_start_up_and_the_first_does_not() {
        let answer = Answer::open();
        let (first, second) = (answer.wait().unwrap(), answer.wait().unwrap());
        drop(first);
        assert!(answer.wait().is_some());
        drop(second);
        assert!(!answer.admit());
        assert!(answer.wait().is_none());
    }

    #[test]
    fn whoever_leaves_first_leaves_the_start_to_the_last() {
        let answer = Answer::open();
        let (first, second) = (answer.wait().unwrap(), answer.wait().unwrap());
        assert!(answer.admit());
        assert!(first.leave().is_ok());
        let second = second.leave().expect_err("somebody has to refuse it");
        assert!(second.refuse());
        assert!(!answer.accept());
    }

    #[test]
    fn an_admitted_start_is_not_deserted_but_a_due_answer_still_refuses_it() {
        let answer = Answer::open();
        let waiter = answer.wait().unwrap();
        assert!(answer.admit());
        assert!(answer.admit(), "a start under way is taken up again");
        drop(waiter);
        assert!(!answer.admit(), "but not begun again for nobody");
        assert!(answer.refuse());
        assert!(!answer.accept());
    }

    #[test]
    fn nothing_refuses_what_runs() {
        let answer = Answer::open();
        let waiter = answer.wait().unwrap();
        assert!(answer.admit() && answer.accept());
        assert!(!waiter.refuse());
    }

    #[test]
    fn a_failed_start_without_clients_is_not_tried_again() {
        let answer = Answer::open();
        let waiter = answer.wait().unwrap();
        assert!(answer.admit());
        drop(waiter);
        answer.reopen();
        assert!(!answer.admit());
    }
}
