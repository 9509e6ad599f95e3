//! Settings of what is remembered about names and clients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::within;

/// What is remembered about names and clients, and how much of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistorySettings {
    /// Names kept at most, 64 to 1048576. A name takes 250 to 900 bytes; the least useful makes room for a new one.
    pub names: u32,
    /// Clients whose recent questions are kept, 1 to 65536; the one silent for longest is forgotten first.
    pub clients: u32,
    /// Questions kept for each client, 4 to 256.
    pub session_length: u32,
    /// Seconds of silence after which a client's next question begins a new session, 1 to 3600.
    pub session_idle_seconds: u64,
    /// Seconds for which an address still stands for a name after its TTL ran out, 0 to 86400: programs go on using
    /// an address for a while.
    pub address_memory_seconds: u64,
    /// Hours after which a name that nobody asked for is forgotten, 1 to 8760.
    pub name_idle_hours: u64,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self {
            names: 32_768,
            clients: 4096,
            session_length: 32,
            session_idle_seconds: 60,
            address_memory_seconds: 600,
            name_idle_hours: 14 * 24,
        }
    }
}

impl HistorySettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        within("history.names", self.names, 64..=1 << 20)?;
        within("history.clients", self.clients, 1..=1 << 16)?;
        within("history.session_length", self.session_length, 4..=256)?;
        within("history.session_idle_seconds", self.session_idle_seconds, 1..=3600)?;
        within("history.address_memory_seconds", self.address_memory_seconds, 0..=86_400)?;
        within("history.name_idle_hours", self.name_idle_hours, 1..=8760)
    }
}
