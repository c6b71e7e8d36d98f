//! How long to wait before the next attempt.

use core::time::Duration;

/// Delays that grow by a factor up to a ceiling, less some jitter.
pub(crate) struct Backoff {
    /// The first delay.
    pub(crate) first: Duration,
    /// The longest one.
    pub(crate) max: Duration,
    /// Growth, in thousandths.
    pub(crate) factor: u32,
    /// The part that may be taken off, in thousandths.
    pub(crate) jitter: u32,
}

impl Backoff {
    /// The delay after `attempts` of them failed. The same job waits the same time whenever it is
    /// asked about, and other jobs wait other times.
    pub(crate) fn delay(&self, attempts: u32, job: &str) -> Duration {
        let max = self.max.as_millis() as u64;
        let mut delay = (self.first.as_millis() as u64).min(max);
        for _ in 1..attempts {
            delay = (delay.saturating_mul(u64::from(self.factor)) / 1000).min(max);
        }
        let part = hash(job, attempts) % (u64::from(self.jitter) + 1);
        Duration::from_millis(delay - delay / 1000 * part - delay % 1000 * part / 1000)
    }
}

/// FNV-1a over the job's id and the attempt, stirred so that ids that differ in their last
/// character lead far apart.
fn hash(job: &str, attempts: u32) -> u64 {
    let bytes = job.bytes().chain(attempts.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let stirred = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    stirred ^ (stirred >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(jitter: u32) -> Backoff {
        let (first, max) = (Duration::from_secs(2), Duration::from_secs(30));
        Backoff {
            first,
            max,
            factor: 1500,
            jitter,
        }
    }

    #[test]
    fn grows_up_to_the_ceiling() {
        let delays: Vec<_> = [1, 2, 3, 8, 5000]
            .map(|n| backoff(0).delay(n, "a").as_millis())
            .into();
        assert_eq!(delays, [2_000, 3_000, 4_500, 30_000, 30_000]);
    }

    #[test]
    fn jitter_takes_off_its_part_and_no_more() {
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..1000 {
            let delay = backoff(200).delay(1, &format!("job{n}")).as_millis();
            assert!((1_600..=2_000).contains(&delay), "{delay}");
            seen.insert(delay);
        }
        assert!(seen.len() > 100, "only {} delays", seen.len());
        assert_eq!(backoff(200).delay(2, "a"), backoff(200).delay(2, "a"));
    }
}
