//! The service's clock.

use std::sync::Arc;
use std::time::Duration;

use domain::{ClockMark, ClockReading, Timestamp};
use engine::Clock;
use tokio::time::Instant;
use tracing::warn;

use crate::ambient;

/// A difference between the service's time and the wall clock that is told.
const TOLD: Duration = Duration::from_secs(60);

/// A time that does not jump: it goes on from that of the service's last start, as far as the
/// machine's uptime tells, and from the start on by a clock that nobody can set. When the machine's
/// wall clock is set, no deadline comes early and none is missed.
pub(crate) struct SteadyClock {
    started: ClockMark,
    since: Instant,
}

impl SteadyClock {
    /// The time at a start. `last` is what was kept at the last one, if anything depends on it.
    pub(crate) fn start(last: Option<&ClockMark>) -> Arc<Self> {
        let clock = Self::at(last, ambient::clocks());
        let (time, wall) = (clock.started.time, clock.started.read.wall);
        if time.after(wall).max(wall.after(time)) > TOLD {
            warn!(
                service_unix_ms = time.as_millis(),
                wall_clock_unix_ms = wall.as_millis(),
                "the machine's clock was set since the service started first; times of jobs go on as \
                 if it had not been, until no job is left or the machine is booted"
            );
        }
        Arc::new(clock)
    }

    fn at(last: Option<&ClockMark>, read: ClockReading) -> Self {
        let started = match last {
            Some(last) => last.resume(read),
            None => ClockMark::first(read),
        };
        let since = Instant::now();
        Self { started, since }
    }

    /// What has to be kept for the next start.
    pub(crate) fn mark(&self) -> ClockMark {
        self.started.clone()
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.started.time.plus(self.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use domain::Uptime;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_goes_on_across_starts_whatever_the_wall_clock_says() {
        let read = |wall: i64, elapsed: u64| ClockReading {
            wall: Timestamp::from_millis(wall),
            uptime: Some(Uptime {
                boot: "a".to_owned(),
                elapsed: Duration::from_millis(elapsed),
            }),
        };
        let first = SteadyClock::at(None, read(10_000_000, 500));
        tokio::time::advance(Duration::from_millis(40)).await;
        assert_eq!(first.now().as_millis(), 10_000_040);
        let second = SteadyClock::at(Some(&first.mark()), read(6_400_000, 700));
        assert_eq!(second.now().as_millis(), 10_000_200);
        let third = SteadyClock::at(Some(&second.mark()), read(99_000_000, 900));
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(third.now().as_millis(), 10_000_405);
    }

    #[test]
    fn the_machine_tells_its_uptime() {
        let clocks = [ambient::clocks(), ambient::clocks()];
        let [first, second] = clocks.map(|read| read.uptime.unwrap());
        assert!(!first.boot.is_empty() && first.boot == second.boot);
        assert!(first.elapsed > Duration::ZERO && first.elapsed <= second.elapsed);
    }
}
