//! Durations, kept as a histogram.

use std::{sync::Mutex, time::Duration};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest duration told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_secs(60);

/// A histogram of durations with two significant digits, from a microsecond to a minute; about 20 KiB.
#[derive(Debug)]
pub struct Latency {
    histogram: Mutex<Histogram<u64>>,
}

/// What a histogram says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many were recorded.
    pub count: u64,
    /// Their sum, in the unit asked for.
    pub total: f64,
    /// Half were at most this.
    pub p50: f64,
    /// Nine of ten were at most this.
    pub p90: f64,
    /// All but one in a hundred were at most this.
    pub p99: f64,
}

impl Latency {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        // The bounds are constants that hdrhistogram accepts; an unbounded one is the same with more memory.
        let histogram = Histogram::new_with_max(longest, 2)
            .unwrap_or_else(|_| Histogram::new(2).unwrap_or_else(|_| unreachable!("two digits are allowed")));
        Self { histogram: Mutex::new(histogram) }
    }

    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.lock().saturating_record(micros);
    }

    /// What was recorded, in units of `unit`.
    #[must_use]
    pub fn quantiles(&self, unit: Duration) -> Quantiles {
        let histogram = self.lock();
        let scale = 1e-6 / unit.as_secs_f64();
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 * scale;
        let count = histogram.len();
        Quantiles { count, total: histogram.mean() * count as f64 * scale, p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        // A panic while counting leaves a histogram that is at worst one short.
        self.histogram.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_in_the_unit_asked_for() {
        let latency = Latency::new();
        for millis in 1..=100 {
            latency.record(Duration::from_millis(millis));
        }
        let quantiles = latency.quantiles(Duration::from_millis(1));
        assert_eq!(quantiles.count, 100);
        assert!((quantiles.p50 - 50.0).abs() < 1.0, "{quantiles:?}");
        assert!((quantiles.p99 - 99.0).abs() < 1.5, "{quantiles:?}");
        assert!((quantiles.total - 5050.0).abs() < 60.0, "{quantiles:?}");
    }

    #[test]
    fn a_duration_beyond_the_range_is_counted() {
        let latency = Latency::new();
        latency.record(Duration::from_secs(3600));
        assert_eq!(latency.quantiles(Duration::from_secs(1)).count, 1);
        assert_eq!(Latency::new().quantiles(Duration::from_secs(1)), Quantiles::default());
    }
}
