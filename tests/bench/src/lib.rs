//! What `cargo xtask bench` measures with. `cargo xtask` itself is built without optimization, so
//! whatever has to be fast in order to measure fast things is a program of its own:
//!
//! - `bare-server` is the least that a service on axum can be,
//! - `load` asks a server as often as it can answer,
//! - `submissions` has jobs run, many at once.
//!
//! Those that need a part of the daemon are examples of that part: `decisions` of the policy host,
//! `fill` and `durable` of the store.

mod connection;

pub use connection::{Connection, head};

/// Values measured, sorted.
pub struct Sample(Vec<f64>);

impl Sample {
    /// Sorts what was measured.
    ///
    /// # Panics
    /// When nothing was.
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_unstable_by(f64::total_cmp);
        Self(values)
    }

    /// The smallest value that `share` (0 to 1) of all values are not above: 0.5 is the median.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let sample = Sample::new((1..=100).rev().map(f64::from).collect());
        for (share, value) in [
            (0.0, 1.0),
            (0.5, 50.0),
            (0.99, 99.0),
            (0.999, 100.0),
            (1.0, 100.0),
        ] {
            assert_eq!(sample.quantile(share), value, "{share}");
        }
        assert_eq!(Sample::new(vec![7.0]).quantile(0.5), 7.0);
    }
}
