//! Views of removed jobs, kept for those who ask again.
//!
//! A removed job does not change any more until its record goes, so what was read of it once stays
//! true. Clients ask for ended jobs over and over; each time costs two reads of the store otherwise.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use domain::{JobId, State};

use crate::JobView;

/// How many views are kept: the oldest go first.
const MOST: usize = 256;

/// The views, and a count of the times that records went.
#[derive(Default)]
pub(crate) struct RemovedJobs(RwLock<Kept>);

#[derive(Default)]
struct Kept {
    views: HashMap<JobId, Arc<JobView>>,
    order: VecDeque<JobId>,
    cleared: u64,
}

/// A time before a record was read.
#[derive(Clone, Copy)]
pub(crate) struct Mark(u64);

// A panic while it is locked cannot leave it half changed, so poison is no news.
impl RemovedJobs {
    pub(crate) fn get(&self, id: &JobId) -> Option<Arc<JobView>> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        kept.views.get(id).cloned()
    }

    /// To be taken before a record is read that may be kept.
    pub(crate) fn mark(&self) -> Mark {
        Mark(
            self.0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .cleared,
        )
    }

    /// Keeps a view that was read after the mark, if its job was removed and no record went since.
    pub(crate) fn keep(&self, mark: Mark, view: &Arc<JobView>) {
        if !matches!(view.job.state, State::Removed { .. }) {
            return;
        }
        let mut kept = self.write();
        let id = view.job.id.clone();
        if kept.cleared != mark.0 || kept.views.contains_key(&id) {
            return;
        }
        if kept.order.len() >= MOST
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.views.remove(&oldest);
        }
        kept.order.push_back(id.clone());
        kept.views.insert(id, Arc::clone(view));
    }

    /// Drops all views, because a record went.
    pub(crate) fn clear(&self) {
        let mut kept = self.write();
        kept.views.clear();
        kept.order.clear();
        kept.cleared += 1;
    }

    fn write(&self) -> RwLockWriteGuard<'_, Kept> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::*;

    use super::*;

    fn view(number: u16, removed: bool) -> Arc<JobView> {
        let at = Timestamp::from_millis(0);
        let end = End {
            at,
            reason: EndReason::Completed,
            outcome: Outcome::Succeeded,
            delivery: Delivery::Delivered,
        };
        let mut random = [0; JobId::LEN];
        // Letters stand for bytes modulo 36.
        (random[0], random[1]) = ((number % 36) as u8, (number / 36) as u8);
        let image = "mattermost/calls-recorder:v1.0.0".parse().unwrap();
        let job = Job {
            id: JobId::from_random(random),
            owner: RegistrationId(1),
            client: ClientId::new("site").unwrap(),
            kind: JobKind::Recording,
            image_asked: String::new(),
            site_url_asked: String::new(),
            site_url: None,
            max_duration: Duration::from_secs(1),
            inputs: Inputs::new(),
            submitted_at: at,
            start_by: at,
            resends: None,
            attempts: vec![Attempt::new(1, image, at)],
            state: match removed {
                true => State::Removed { end },
                false => State::Ended(end),
            },
        };
        Arc::new(JobView {
            job: Arc::new(job),
            decisions: Vec::new(),
        })
    }

    #[test]
    fn only_what_does_not_change_any_more_is_kept() {
        let jobs = RemovedJobs::default();
        let (removed, ended) = (view(1, true), view(2, false));
        for view in [&removed, &ended] {
            jobs.keep(jobs.mark(), view);
        }
        assert_eq!(jobs.get(&removed.job.id), Some(removed.clone()));
        assert_eq!(jobs.get(&ended.job.id), None);
    }

    #[test]
    fn what_was_read_before_a_record_went_is_not_kept_after_that() {
        let jobs = RemovedJobs::default();
        let removed = view(1, true);
        let mark = jobs.mark();
        jobs.clear();
        jobs.keep(mark, &removed);
        assert_eq!(jobs.get(&removed.job.id), None, "a deleted job is shown");
        jobs.keep(jobs.mark(), &removed);
        assert!(jobs.get(&removed.job.id).is_some());
        jobs.clear();
        assert_eq!(jobs.get(&removed.job.id), None, "a deleted job is shown");
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_so_many_stay() {
        let jobs = RemovedJobs::default();
        let views: Vec<_> = (0..MOST as u16 + 3)
            .map(|number| view(number, true))
            .collect();
        for view in views.iter().chain(&views[..1]) {
            jobs.keep(jobs.mark(), view);
        }
        let kept = views.iter().filter(|view| jobs.get(&view.job.id).is_some());
        assert_eq!(kept.count(), MOST);
        assert!(jobs.get(&views[0].job.id).is_some() && jobs.get(&views[1].job.id).is_none());
    }
}
