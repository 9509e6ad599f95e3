//! Stub until the lease part lands.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
/// Leases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseSettings {}
impl LeaseSettings {
    /// # Errors
    /// Never.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
