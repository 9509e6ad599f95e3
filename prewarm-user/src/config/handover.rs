//! Who may take leases, and by which ways.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::within;

/// The ways in which programs get leases, beside `prewarm exec` and the control socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HandoverSettings {
    /// Users whose programs on this host get leases, by number; empty for all.
    pub uids: Vec<u32>,
    /// Users whose programs get none, by number; goes before `uids`.
    pub exclude_uids: Vec<u32>,
    /// Connections of unmodified programs on this host, redirected when a lease waits for exactly that destination.
    pub redirect: RedirectSettings,
    /// SOCKS5 (RFC 1928).
    pub socks: ProxySettings,
    /// HTTP CONNECT (RFC 9110, 9.3.6).
    pub connect: ProxySettings,
    /// Connections that this host forwards for others, taken over when a lease waits for exactly that destination.
    pub tproxy: TproxySettings,
}

/// Redirected connections of programs on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedirectSettings {
    /// Whether connections are redirected.
    pub enabled: bool,
    /// The cgroups whose programs take part, as folders of the cgroup2 file system; all below them do too.
    pub cgroups: Vec<PathBuf>,
    /// Cgroups below these that do not, with all below them.
    pub exclude_cgroups: Vec<PathBuf>,
    /// Network namespaces beside the daemon's own whose programs take part, as files like /run/netns/NAME. What they
    /// send over a lease leaves from the daemon's namespace, with its addresses.
    pub namespaces: Vec<PathBuf>,
}

impl Default for RedirectSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            cgroups: vec![PathBuf::from("/sys/fs/cgroup")],
            exclude_cgroups: Vec::new(),
            namespaces: Vec::new(),
        }
    }
}

/// A proxy that programs and other hosts are configured to use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxySettings {
    /// Where it listens, as ADDRESS:PORT; empty for nowhere.
    pub listen: Vec<SocketAddr>,
    /// Networks whose clients are served, as ADDRESS/LENGTH. Clients of this host may go anywhere but to
    /// policy.guard.deny_networks; others only to public addresses and policy.guard.allow_networks.
    #[schemars(with = "Vec<String>")]
    pub clients: Vec<IpNet>,
    /// Clients' connections at once, 1 to 1000000; more wait in the listener's queue.
    pub connections: u32,
}

impl Default for ProxySettings {
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1/128"].map(str::parse);
        Self { listen: Vec::new(), clients: loopback.into_iter().flatten().collect(), connections: 4096 }
    }
}

/// Connections that this host forwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TproxySettings {
    /// The interfaces by which they arrive; empty switches this off.
    pub interfaces: Vec<String>,
    /// The mark (fwmark) by which packets of such connections are routed to this host.
    pub mark: u32,
    /// The routing table that says so, 1 to 252; it must be free.
    pub table: u32,
}

impl Default for TproxySettings {
    fn default() -> Self {
        // "prt" beside "prew", the mark of the daemon's own questions.
        Self { interfaces: Vec::new(), mark: 0x7072_7401, table: 177 }
    }
}

impl HandoverSettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        within("handover.socks.connections", self.socks.connections, 1..=1_000_000)?;
        within("handover.connect.connections", self.connect.connections, 1..=1_000_000)?;
        within("handover.tproxy.table", self.tproxy.table, 1..=252)?;
        if self.tproxy.mark == 0 {
            return Err("handover.tproxy.mark: must not be 0, which is every packet's mark".to_owned());
        }
        if self.redirect.enabled && self.redirect.cgroups.is_empty() {
            return Err("handover.redirect.cgroups: name at least one cgroup, or set enabled = false".to_owned());
        }
        let relative =
            self.redirect.cgroups.iter().chain(&self.redirect.exclude_cgroups).find(|path| !path.is_absolute());
        match relative {
            Some(path) => Err(format!("handover.redirect: {} is not an absolute path of a cgroup", path.display())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_named() {
        assert_eq!(HandoverSettings::default().check(), Ok(()));
        let wrong = |change: fn(&mut HandoverSettings), key: &str| {
            let mut settings = HandoverSettings::default();
            change(&mut settings);
            let message = settings.check().unwrap_err();
            assert!(message.contains(key), "{message}");
        };
        wrong(|s| s.socks.connections = 0, "handover.socks.connections");
        wrong(|s| s.tproxy.table = 255, "handover.tproxy.table");
        wrong(|s| s.tproxy.mark = 0, "handover.tproxy.mark");
        wrong(
            |s| s.redirect = RedirectSettings { enabled: true, cgroups: Vec::new(), ..Default::default() },
            "cgroups",
        );
        wrong(|s| s.redirect.exclude_cgroups = vec![PathBuf::from("user.slice")], "user.slice");
    }
}
