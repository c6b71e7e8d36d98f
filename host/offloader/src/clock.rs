//! The service's clock.

use std::sync::Arc;

use domain::Timestamp;
use engine::Clock;
use tokio::time::Instant;

use crate::ambient;

/// Wall-clock time as it was at the start, and from there on by a clock that does not jump: when
/// the machine's clock is set, no deadline comes early and none is missed.
pub(crate) struct SteadyClock {
    started: Timestamp,
    since: Instant,
}

impl SteadyClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self {
            started: ambient::wall_clock(),
            since: Instant::now(),
        })
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.started.plus(self.since.elapsed())
    }
}
