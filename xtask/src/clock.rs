//! How long a step took, for progress lines.

use std::time::{Duration, SystemTime};

/// Runs `step` and says how long it took.
pub(crate) fn timed<T>(step: impl FnOnce() -> T) -> (T, Duration) {
    let begin = SystemTime::now();
    let value = step();
    (value, begin.elapsed().unwrap_or_default())
}
