//! The settings of every part, with their defaults, their meaning and their limits.
//!
//! Comes in: values read from a file, the environment or flags. Goes out: checked settings. Never here: reading a
//! clock, a socket, or an import of the part that a setting is for.

mod history;
mod policy;
mod predict;

pub use history::HistorySettings;
pub use policy::{CostSettings, GuardSettings, PolicySettings, WarmPath};
pub use predict::PredictSettings;

/// `Ok` when `value` lies within `range`, else what is wrong with `key` and what to do.
fn within<T: PartialOrd + std::fmt::Display + Copy>(
    key: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), String> {
    // A NaN is in no range, so it is refused as well.
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!("{key} = {value} is out of range; set it to a value from {} to {}", range.start(), range.end()))
}
