//! Which interfaces are watched.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::within;

/// Settings of the kernel side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureSettings {
    /// The interfaces to attach to. `prewarm run --iface IF` adds to them, and needs none here.
    #[schemars(example = ["eth0"])]
    pub interfaces: Vec<String>,
    /// Watch what arrives (XDP): the questions of clients, the answers to this host.
    pub ingress: bool,
    /// Watch what leaves (tcx, clsact before 6.6): this host's own questions, a server's answers.
    pub egress: bool,
    /// How XDP is attached: "auto" tries the driver's own hook and falls back to the generic one, "native" or "generic"
    /// insists.
    pub xdp: XdpMode,
    /// Questions for A, AAAA and HTTPS of one name by one client within this many milliseconds are one event.
    pub fold_ms: u32,
    /// Watch the TCP connections of the host's programs (sock_ops on the root of cgroup v2): their ports, their round
    /// trips, and whether what was made ready is used.
    pub sockops: bool,
    /// Other network namespaces whose programs' connections are learnt from: names under /run/netns, or paths. What
    /// happens in this one is learnt from anyway.
    #[schemars(example = ["web"])]
    pub namespaces: Vec<String>,
}

/// How XDP is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver where it can, else generic.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the generic hook.
    Generic,
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            ingress: true,
            egress: true,
            xdp: XdpMode::Auto,
            fold_ms: 1000,
            sockops: true,
            namespaces: Vec::new(),
        }
    }
}

impl CaptureSettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        for interface in &self.interfaces {
            // IFNAMSIZ is 16 with the terminating zero (linux/if.h).
            if interface.is_empty() || interface.len() > 15 || interface.contains(['/', ' ']) {
                return Err(format!("capture.interfaces: {interface:?} is no interface name (1 to 15 characters)"));
            }
        }
        if self.namespaces.iter().any(String::is_empty) {
            return Err("capture.namespaces: an empty name is none".to_owned());
        }
        if !self.ingress && !self.egress {
            return Err("capture.ingress, capture.egress: switch at least one of them on".to_owned());
        }
        within("capture.fold_ms", self.fold_ms, 1..=10_000)
    }
}
