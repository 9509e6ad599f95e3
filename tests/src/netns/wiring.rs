//! What joins namespaces on this side of the delayed link: veth pairs and addresses, by iproute2.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Namespace;

/// The addresses of one end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// In a /24.
    pub v4: Ipv4Addr,
    /// In a /64.
    pub v6: Ipv6Addr,
}

/// One end of a veth pair: the interface, where it lives, and its addresses.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Where the interface lives.
    pub namespace: &'a Namespace,
    /// What the interface is called there.
    pub interface: &'a str,
    /// What it answers to.
    pub addresses: Addresses,
}

/// Joins two namespaces by a veth pair with both address families, up and usable at once.
///
/// # Errors
/// When `ip` refuses.
pub fn veth(one: &VethEnd<'_>, other: &VethEnd<'_>) -> Result<()> {
    one.namespace.ip(&[
        "link",
        "add",
        one.interface,
        "type",
        "veth",
        "peer",
        "name",
        other.interface,
        "netns",
        other.namespace.name(),
    ])?;
    for end in [one, other] {
        end.namespace.ip(&["addr", "add", &format!("{}/24", end.addresses.v4), "dev", end.interface])?;
        // Duplicate address detection would keep the address unusable for a second.
        end.namespace.ip(&["addr", "add", &format!("{}/64", end.addresses.v6), "dev", end.interface, "nodad"])?;
        end.namespace.ip(&["link", "set", end.interface, "up"])?;
    }
    Ok(())
}

/// Runs `ip` on the host's side.
///
/// # Errors
/// When `ip` is missing or refuses, with what it said.
pub fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip (Debian package iproute2)")?;
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
