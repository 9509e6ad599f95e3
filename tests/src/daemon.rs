//! The daemon under test: `prewarm run` in a namespace, asked only through its own command line.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::netns::Namespace;
use crate::service::Service;

/// The variable that says where the binary under test is.
pub const BINARY_VARIABLE: &str = "PREWARM_BIN";

/// The binary under test, when there is one.
pub fn binary() -> Option<PathBuf> {
    std::env::var_os(BINARY_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// How to run it.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// What it attaches to.
    pub interfaces: Vec<String>,
    /// The text of its configuration file.
    pub configuration: String,
    /// Whether it watches what arrives.
    pub ingress: bool,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    service: Service,
    binary: PathBuf,
    socket: PathBuf,
}

/// The part of `prewarm stats --json` that is read; what is missing counts as zero.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Of the form.
    pub schema: u32,
    /// Events that came through the ring.
    pub events: u64,
    /// Questions seen.
    pub questions: u64,
    /// Packets by direction.
    pub packets: Packets,
    /// Connections opened ahead.
    pub leases: Leases,
    /// Requests sent ahead.
    pub warms: Warms,
    /// Names.
    pub names: Names,
    /// Bytes of the tables that learn.
    pub memory_bytes: u64,
    /// Microseconds from the packet in the kernel to the decision.
    pub ring_to_intent_us: Quantiles,
    /// What was left alone or lost, by reason.
    pub drops: std::collections::BTreeMap<String, u64>,
    /// What other sources than packets told.
    pub sources: std::collections::BTreeMap<String, Source>,
    /// Connections of programs.
    pub connects: Connects,
    /// Traffic to port 853.
    pub encrypted: Encrypted,
}

/// What one source told.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Questions.
    pub questions: u64,
    /// Answers.
    pub answers: u64,
    /// A server's own questions.
    pub upstream: u64,
    /// The daemon's own.
    pub own: u64,
    /// Left out.
    pub ignored: u64,
    /// Not understood.
    pub unread: u64,
    /// Without room.
    pub dropped: u64,
    /// Writers now.
    pub feeds: u64,
    /// Writers so far.
    pub connections: u64,
    /// Of those, broken off.
    pub broken: u64,
    /// Turned away.
    pub refused: u64,
}

/// Connections of programs.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Connects {
    /// To addresses with a name.
    pub named: u64,
    /// To addresses without.
    pub blind: u64,
}

/// Traffic to port 853.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Encrypted {
    /// TCP connections of this host.
    pub connections: u64,
    /// TCP connections that arrive.
    pub ingress_connections: u64,
    /// TCP connections that leave.
    pub egress_connections: u64,
    /// UDP packets that arrive.
    pub ingress_packets: u64,
    /// UDP packets that leave.
    pub egress_packets: u64,
}

/// Quantiles of a duration.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Quantiles {
    /// Half were at most this.
    pub p50: f64,
    /// All but one in a hundred were at most this.
    pub p99: f64,
}

/// What is known of names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Known now.
    pub known: u64,
    /// Looked up ahead.
    pub warmed: u64,
}

/// Packets that the programs saw.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Packets {
    /// By XDP.
    pub ingress: u64,
    /// By tcx.
    pub egress: u64,
}

/// What became of leases.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Leases {
    /// Dialled.
    pub opened: u64,
    /// Handed out.
    pub taken: u64,
    /// Closed unused.
    pub expired: u64,
    /// Found dead before they were handed out.
    pub dead: u64,
    /// Dials that failed.
    pub failed: u64,
    /// Not dialled because of a guard rail or budget.
    pub refused: u64,
}

/// What became of requests sent ahead.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Warms {
    /// Sent.
    pub sent: u64,
    /// Failed.
    pub failed: u64,
}

impl Daemon {
    /// Starts the daemon and waits until it answers on its control socket.
    ///
    /// # Errors
    /// When it ends or doesn't answer in time, with the end of its log.
    pub fn start(namespace: &Namespace, binary: &Path, options: &DaemonOptions, directory: &Path) -> Result<Self> {
        let socket = directory.join("control.sock");
        let configuration = directory.join("prewarm.toml");
        fs::write(&configuration, &options.configuration)?;
        let mut command = namespace.command(binary);
        command.arg("run");
        for interface in &options.interfaces {
            command.arg("--iface").arg(interface);
        }
        command.arg("--config").arg(&configuration).arg("--socket").arg(&socket);
        command.arg("--state").arg(directory.join("state"));
        if !options.ingress {
            command.arg("--no-ingress");
        }
        let service = Service::start("prewarm", command, directory)?;
        let mut daemon = Self { service, binary: binary.to_owned(), socket };
        let (binary, socket) = (daemon.binary.clone(), daemon.socket.clone());
        daemon.service.ready(|| ask(&binary, &socket).ok())?;
        Ok(daemon)
    }

    /// What it counted since it started.
    ///
    /// # Errors
    /// When it ended or doesn't answer, with the end of its log.
    pub fn stats(&mut self) -> Result<Stats> {
        let answer = self.service.check().and_then(|()| ask(&self.binary, &self.socket));
        answer.with_context(|| format!("log of prewarm:\n{}", self.service.log_tail()))
    }

    /// Leases that stand and wait to be taken.
    ///
    /// # Errors
    /// When it ended or doesn't answer.
    pub fn ready_leases(&mut self) -> Result<u64> {
        self.service.check()?;
        let mut command = Command::new(&self.binary);
        command.args(["leases", "--json", "--limit", "100000", "--socket"]).arg(&self.socket).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("run {}", self.binary.display()))?;
        // 1 says that there are none.
        ensure!(matches!(output.status.code(), Some(0 | 1)), "prewarm leases: {}", output.status);
        let leases: serde_json::Value = serde_json::from_slice(&output.stdout).context("read prewarm leases --json")?;
        let ready = |lease: &&serde_json::Value| lease["state"] == "ready";
        Ok(leases["leases"].as_array().map_or(0, |leases| leases.iter().filter(ready).count() as u64))
    }

    /// Runs one of its reading or steering commands and gives what that prints.
    ///
    /// # Errors
    /// When the command ends with another code than 0, with what it complained of.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env("PREWARM_SOCKET", &self.socket).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("run {}", self.binary.display()))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "prewarm {}: {}: {complaint}", arguments.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.service.pid()
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// With its exit status.
    pub fn check(&mut self) -> Result<()> {
        self.service.check()
    }

    /// Ends it in good order and waits until it is gone.
    pub fn end(&mut self) {
        self.service.end();
    }

    /// What to put before a command so that it takes leases.
    pub fn wrapper(&self) -> Vec<OsString> {
        let words: [&Path; 5] = [&self.binary, Path::new("exec"), Path::new("--socket"), &self.socket, Path::new("--")];
        words.into_iter().map(OsString::from).collect()
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.service.log_tail()
    }
}

fn ask(binary: &Path, socket: &Path) -> Result<Stats> {
    let output = Command::new(binary)
        .args(["stats", "--json", "--socket"])
        .arg(socket)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", binary.display()))?;
    // 1 says that something is amiss; the numbers are there all the same.
    ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "prewarm stats: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout).context("read prewarm stats --json")
}
