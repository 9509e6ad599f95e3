//! How prewarm asks and is asked: the resolver, the control socket, the metrics endpoint.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::within;

/// How predicted names are looked up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResolveSettings {
    /// The DNS servers to ask, as ADDRESS:PORT; empty takes those of /etc/resolv.conf, so that the cache that the
    /// host's programs use gets hot.
    #[schemars(example = ["192.0.2.53:53"])]
    pub servers: Vec<SocketAddr>,
    /// How long one look-up may take, in milliseconds.
    pub timeout_ms: u64,
    /// How many look-ups may be under way at once.
    pub concurrent: usize,
    /// The mark (SO_MARK) on prewarm's own questions, by which the kernel side leaves them out.
    pub mark: u32,
}

impl Default for ResolveSettings {
    fn default() -> Self {
        // The mark spells "prew": a number nobody routes by.
        Self { servers: Vec::new(), timeout_ms: 2000, concurrent: 64, mark: 0x7072_6577 }
    }
}

impl ResolveSettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        within("resolve.timeout_ms", self.timeout_ms, 1..=60_000)?;
        within("resolve.concurrent", self.concurrent, 1..=65_536)?;
        if self.mark == 0 {
            return Err("resolve.mark: must not be 0, which is every other program's mark".to_owned());
        }
        Ok(())
    }
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ControlSettings {
    /// Its path. Mode 0660: leases go only to its group's members.
    pub socket: PathBuf,
    /// The group that owns it, where that group exists.
    pub group: String,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/prewarm/control.sock"), group: "prewarm".to_owned() }
    }
}

/// The Prometheus endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Whether it is served.
    pub enabled: bool,
    /// Where. Not only loopback needs `public = true`: names and counts are nobody else's business.
    pub listen: SocketAddr,
    /// Allows `listen` to be an address that others reach.
    pub public: bool,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { enabled: false, listen: SocketAddr::from(([127, 0, 0, 1], 9153)), public: false }
    }
}

impl MetricsSettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.enabled && !self.public && !self.listen.ip().is_loopback() {
            return Err(format!(
                "metrics.listen: {} can be reached by others; take a loopback address or set metrics.public = true",
                self.listen
            ));
        }
        Ok(())
    }
}
