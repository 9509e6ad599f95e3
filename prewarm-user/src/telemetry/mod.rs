//! How prewarm shows itself: the clock, latency histograms, logs, and the endpoint that counters are read from.
//!
//! Comes in: numbers and events of any part. Goes out: log lines, quantiles, a text page. Never here: knowledge of a
//! part; what a counter means stands where it is counted.

mod clock;
mod exporter;
mod latency;
mod logs;

pub use clock::Clock;
pub use exporter::serve;
pub use latency::{Latency, Quantiles};
pub use logs::{LogFormat, init};
