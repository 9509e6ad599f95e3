//! The whole pipeline: packets on a veth, the ring, the daemon's decisions, on one core.
//!
//! Comes in: the daemon's binary. Goes out: events a second, the time from the packet in the kernel to the decision,
//! what a quiet daemon costs. Never here: a number that the daemon did not count itself, but for its processor time.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::Row;
use crate::{
    clock,
    daemon::{self, Daemon, DaemonOptions, Stats},
    netns::{Addresses, Namespace, VethEnd, veth},
    question,
};

const HOST: Addresses = Addresses { v4: Ipv4Addr::new(10, 78, 0, 1), v6: Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1) };
const CLIENT: Addresses = Addresses { v4: Ipv4Addr::new(10, 78, 0, 2), v6: Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2) };
/// Names in rotation: at the steady rate each comes again after two seconds, beyond the folding window.
const NAMES: usize = 20_000;
/// Questions a second of the steady case.
const STEADY: u32 = 10_000;
/// How long the steady case lasts, in questions.
const STEADY_QUESTIONS: u32 = 50_000;
/// How long the burst lasts, in questions, as fast as they can be sent.
const BURST_QUESTIONS: u32 = 1_000_000;
/// How long the daemon is left alone.
const IDLE: Duration = Duration::from_secs(10);

/// A daemon on a veth pair, pinned to one core.
struct Rig {
    daemon: Daemon,
    client: Namespace,
    _host: Namespace,
    _folder: tempfile::TempDir,
}

/// Measures `steady`, `burst` and `idle`, each with a daemon of its own.
///
/// # Errors
/// Without root or the daemon's binary.
pub fn run() -> Result<Vec<Row>> {
    let mut rows = steady()?;
    rows.extend(burst()?);
    rows.extend(idle()?);
    Ok(rows)
}

fn steady() -> Result<Vec<Row>> {
    let mut rig = Rig::new()?;
    // One round first, so that most names are known as they are on a host that has been up for a while.
    rig.send(NAMES as u32, Some(STEADY))?;
    let before = rig.settled()?;
    let (took, used) = rig.send(STEADY_QUESTIONS, Some(STEADY))?;
    let after = rig.settled()?;
    let events = (after.events - before.events) as f64;
    let row = |metric: &str, value, unit: &str| Row::new("steady", "prewarm", metric, value, unit);
    Ok(vec![
        row("events_per_second", events / took.as_secs_f64(), "1/s"),
        row("ring_to_intent_us_p50", after.ring_to_intent_us.p50, "us"),
        row("ring_to_intent_us_p99", after.ring_to_intent_us.p99, "us"),
        row("cpu_percent", used.as_secs_f64() / took.as_secs_f64() * 100.0, "%"),
        row("events_lost", lost(&after) - lost(&before), ""),
    ])
}

fn burst() -> Result<Vec<Row>> {
    let mut rig = Rig::new()?;
    let before = rig.settled()?;
    let (_, used) = rig.send(BURST_QUESTIONS, None)?;
    let after = rig.settled()?;
    let events = (after.events - before.events) as f64;
    let row = |metric: &str, value, unit: &str| Row::new("burst", "prewarm", metric, value, unit);
    Ok(vec![
        // By processor time: what one core of its own takes, however many others share this machine.
        row("events_per_second", events / used.as_secs_f64(), "1/s"),
        row("ring_to_intent_us_p50", after.ring_to_intent_us.p50, "us"),
        row("ring_to_intent_us_p99", after.ring_to_intent_us.p99, "us"),
        row("events_lost", lost(&after) - lost(&before), ""),
    ])
}

fn idle() -> Result<Vec<Row>> {
    let mut rig = Rig::new()?;
    rig.send(100, Some(STEADY))?;
    rig.settled()?;
    let before = processor_time(rig.daemon.pid())?;
    clock::pause(IDLE);
    let used = processor_time(rig.daemon.pid())?.saturating_sub(before);
    let percent = used.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    Ok(vec![Row::new("idle", "prewarm", "cpu_percent", percent, "%")])
}

impl Rig {
    fn new() -> Result<Self> {
        let binary = daemon::binary().context("PREWARM_BIN is not set; cargo xtask bench sets it")?;
        let (host, client) = (Namespace::create("host")?, Namespace::create("client")?);
        veth(
            &VethEnd { namespace: &host, interface: "pw-host", addresses: HOST },
            &VethEnd { namespace: &client, interface: "pw-client", addresses: CLIENT },
        )?;
        let folder = tempfile::tempdir()?;
        let options = DaemonOptions {
            interfaces: vec!["pw-host".to_owned()],
            configuration: "[resolve]\nservers = [\"127.0.0.1:53\"]\n".to_owned(),
            ingress: true,
        };
        let daemon = Daemon::start(&host, &binary, &options, folder.path())?;
        pin(daemon.pid())?;
        Ok(Self { daemon, client, _host: host, _folder: folder })
    }

    /// Sends questions, at a rate or as fast as they go; gives the time it took and what the daemon used.
    fn send(&self, questions: u32, rate: Option<u32>) -> Result<(Duration, Duration)> {
        let before = processor_time(self.daemon.pid())?;
        let datagrams: Vec<Vec<u8>> = (0..NAMES).map(|n| question::bytes(&format!("n{n}.example"))).collect();
        let took = self.client.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            let begun = clock::now();
            for number in 0..questions {
                if let Some(rate) = rate {
                    let due = Duration::from_secs(u64::from(number)) / rate;
                    while clock::now() - begun < due {
                        std::hint::spin_loop();
                    }
                }
                // Unconnected, so that nobody's refusal comes back as an error.
                socket.send_to(&datagrams[number as usize % NAMES], (HOST.v4, 53))?;
            }
            Ok(clock::now() - begun)
        })?;
        Ok((took, processor_time(self.daemon.pid())?.saturating_sub(before)))
    }

    /// The counters once they no longer move.
    fn settled(&mut self) -> Result<Stats> {
        let mut last = self.daemon.stats()?;
        clock::wait_for("the counters to settle", Duration::from_secs(20), || {
            let now = self.daemon.stats()?;
            let settled = now.questions == last.questions && now.events == last.events;
            last = now;
            Ok(settled.then(|| last.clone()))
        })
    }
}

fn lost(stats: &Stats) -> f64 {
    stats.drops.get("ring_lost").copied().unwrap_or(0) as f64
}

/// Keeps all threads of a process on the last core; the sender, and with it the kernel programs, has the others.
fn pin(pid: Pid) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(cores - 1)?;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task: i32 = task?.file_name().to_string_lossy().parse()?;
        sched_setaffinity(Pid::from_raw(task), &set)?;
    }
    let mut rest = CpuSet::new();
    for core in 0..cores.max(2) - 1 {
        rest.set(core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &rest).context("keep the sender off the daemon's core")
}

/// User and system time of a process, by nanosecond counts of its threads.
fn processor_time(pid: Pid) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ended in between has nothing more to add.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        total += text.split_whitespace().next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}
