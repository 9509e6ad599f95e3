//! The clock of what runs without a runtime.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::model::Timestamp;

/// The time on the kernel's monotonic clock.
pub(crate) fn now() -> Timestamp {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Timestamp::ZERO, |time| Timestamp::from_origin(Duration::from(time)))
}
