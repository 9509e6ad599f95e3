//! What the predictor says.

use std::time::Duration;

use super::{ResourceId, Timing};

/// One candidate for what is accessed next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// What.
    pub resource: ResourceId,
    /// The probability that it is accessed within the predictor's horizon, 0 to 1.
    pub probability: f64,
    /// The probability that what is made ready now is used before it goes cold, given that no better moment to make it
    /// comes: what a price is held against, 0 to 1. What comes at once, or too late, is probable and worth little.
    pub worth: f64,
    /// By when one of ten of the accesses that come has come, counted from the event the prediction was made at; what is
    /// made ready should be ready then.
    pub earliest_in: Duration,
    /// When half of the accesses that come have come.
    pub expected_in: Duration,
    /// By when nine of ten of them have come.
    pub latest_in: Duration,
    /// When the accesses come, if they come.
    pub timing: Timing,
}
