//! `run`: the daemon from the sources, as root, on a live interface.

use std::{fs, os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::Context as _;

use crate::{build, shell};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Flags of `prewarm run`; without `--iface`, the interface of the default route is taken.
    #[arg(last = true)]
    flags: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let binary = build::daemon(build::Profile::Release)?;
    let mut command = shell::as_root(&binary);
    command.arg("run");
    let named = |flag: &String| ["--iface", "-i", "--help", "-h"].iter().any(|name| flag.starts_with(name));
    if !arguments.flags.iter().any(named) {
        let interface = default_route()
            .context("no default route, so no interface to attach to\nhint: name one: cargo xtask run -- --iface IF")?;
        shell::say(&format!("run: attaching to {interface}, the interface of the default route"));
        command.args(["--iface", &interface]);
    }
    command.args(&arguments.flags);
    // The daemon takes our place, so that signals and the terminal are its own.
    Err(command.exec()).with_context(|| format!("could not start {}", binary.display()))
}

/// The interface of the default route, IPv4 first.
fn default_route() -> Option<String> {
    let v4 = fs::read_to_string("/proc/net/route").ok()?;
    let by_metric = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let default = fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
        default.then(|| (fields.get(6).and_then(|metric| metric.parse::<u32>().ok()), fields[0].to_owned()))
    };
    if let Some((_, interface)) = v4.lines().skip(1).filter_map(by_metric).min() {
        return Some(interface);
    }
    let v6 = fs::read_to_string("/proc/net/ipv6_route").ok()?;
    v6.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let default = fields.first()?.bytes().all(|b| b == b'0') && fields.get(1) == Some(&"00");
        (default && *fields.last()? != "lo").then(|| fields.last().map(|name| (*name).to_owned()))?
    })
}
