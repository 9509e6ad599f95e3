//! The benches: each gives rows, with its baselines as further subjects of the same case and metric.

use serde::Serialize;

pub mod pipeline;
pub mod predict;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was done.
    pub case: String,
    /// By whom: `prewarm`, or the name of a baseline.
    pub subject: String,
    /// What was measured.
    pub metric: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

impl Row {
    /// A row.
    #[must_use]
    pub fn new(case: &str, subject: &str, metric: &str, value: f64, unit: &str) -> Self {
        Self { case: case.into(), subject: subject.into(), metric: metric.into(), value, unit: unit.into() }
    }
}

/// Nanoseconds of the monotonic clock.
fn nanos() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    time.map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
