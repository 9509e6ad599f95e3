//! The clock of the supervisor, which runs without tokio.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::model::Timestamp;

/// The time on the kernel's monotonic clock.
pub(super) fn now() -> Timestamp {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Timestamp::ZERO, |time| Timestamp::from_origin(Duration::from(time)))
}
