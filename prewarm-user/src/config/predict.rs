//! Settings of the predictor.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::within;

/// How the predictor looks ahead, and how much memory it may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PredictSettings {
    /// Memory of the model in MiB, 1 to 4096. All of it is set aside at the start and never exceeded.
    pub memory_mib: u32,
    /// Seconds ahead that a probability speaks of, 1 to 60.
    pub horizon_seconds: f64,
    /// Milliseconds that making something ready takes at least, 0 to 1000; what comes sooner can't be helped and is
    /// not counted as foreseen.
    pub lead_ms: f64,
    /// Candidates returned for one event at most, 1 to 64.
    pub candidates: u32,
    /// Candidates less probable than this are not returned, 0 to 1.
    pub floor: f64,
}

impl Default for PredictSettings {
    fn default() -> Self {
        Self { memory_mib: 32, horizon_seconds: 10.0, lead_ms: 20.0, candidates: 32, floor: 0.01 }
    }
}

impl PredictSettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        within("predict.memory_mib", self.memory_mib, 1..=4096)?;
        within("predict.horizon_seconds", self.horizon_seconds, 1.0..=60.0)?;
        within("predict.lead_ms", self.lead_ms, 0.0..=1000.0)?;
        within("predict.candidates", self.candidates, 1..=64)?;
        within("predict.floor", self.floor, 0.0..=1.0)
    }
}
