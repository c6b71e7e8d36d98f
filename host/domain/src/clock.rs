//! Carrying the service's time across its restarts, whatever the machine's clock does meanwhile.

use std::time::Duration;

use crate::Timestamp;

/// What the machine's clocks say at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock, which anybody may set.
    pub wall: Timestamp,
    /// The clock that nobody can set, where the machine has one.
    pub uptime: Option<Uptime>,
}

/// How long a machine has been up, and since which boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uptime {
    /// Names the boot; another one after each.
    pub boot: String,
    /// Time since then, time asleep included.
    pub elapsed: Duration,
}

/// The service's time at a moment when the clocks were read. Kept from one start to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockMark {
    /// The service's time.
    pub time: Timestamp,
    /// What the clocks said then.
    pub read: ClockReading,
}

impl ClockMark {
    /// The first mark: the wall clock is believed. Also right when nothing that the service looks
    /// after depends on the time, so that a clock that was set right is right here too.
    #[must_use]
    pub fn first(read: ClockReading) -> Self {
        Self {
            time: read.wall,
            read,
        }
    }

    /// The mark of a later start, when the clocks say `now`.
    ///
    /// While the machine stays up, exactly the time that passed has passed: deadlines are neither
    /// early nor late, however the wall clock was set. After a boot the wall clock is all there is;
    /// no container runs on across one, and a clock that went back keeps what is kept for longer.
    #[must_use]
    pub fn resume(&self, now: ClockReading) -> Self {
        let passed = match (&self.read.uptime, &now.uptime) {
            (Some(then), Some(now)) if then.boot == now.boot => {
                now.elapsed.checked_sub(then.elapsed)
            }
            _ => None,
        };
        Self {
            time: passed.map_or(now.wall, |passed| self.time.plus(passed)),
            read: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn read(wall: i64, boot: &str, elapsed: u64) -> ClockReading {
        let elapsed = Duration::from_millis(elapsed);
        let uptime = Some(Uptime {
            boot: boot.to_owned(),
            elapsed,
        });
        ClockReading {
            wall: Timestamp::from_millis(wall),
            uptime,
        }
    }

    #[test]
    fn while_the_machine_is_up_no_jump_of_the_wall_clock_moves_the_time() {
        let started = ClockMark::first(read(10 * HOUR, "a", 500));
        for jump in [-HOUR, 0, HOUR] {
            let resumed = started.resume(read(10 * HOUR + 100 + jump, "a", 600));
            assert_eq!(resumed.time.as_millis(), 10 * HOUR + 100);
            let again = resumed.resume(read(0, "a", 700));
            assert_eq!(again.time.as_millis(), 10 * HOUR + 200);
        }
    }

    #[test]
    fn after_a_boot_the_wall_clock_is_believed() {
        let started = ClockMark::first(read(10 * HOUR, "a", 500));
        let wall = |now| started.resume(now).time.as_millis();
        assert_eq!(wall(read(11 * HOUR, "b", 900)), 11 * HOUR);
        assert_eq!(
            wall(read(11 * HOUR, "a", 400)),
            11 * HOUR,
            "a restored copy"
        );
        let blind = ClockReading {
            wall: Timestamp::from_millis(12 * HOUR),
            uptime: None,
        };
        assert_eq!(wall(blind), 12 * HOUR);
    }
}
