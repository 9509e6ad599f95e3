//! The daemon is killed, stopped and exchanged while programs connect fifty times a second over each way.
//!
//! What is promised: at most the connections that were under way through a proxy path are lost, and new ones go direct
//! at once. `exec` and `fd` carry no bytes through the daemon, so nothing at all is lost there. Where the daemon *is* the
//! proxy (`socks`, `connect`) nobody can go direct: while it is down a connection is refused at once and none hangs; while
//! it is stopped connections wait, and are served when it goes on.
//!
//! Needs root, the packages of the harness and the binary in `PREWARM_BIN`.
#![expect(clippy::print_stdout, reason = "tests say there what they measured")]

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use prewarm_tests::bed::{Bed, Keep, Peer};
use prewarm_tests::client::drum::Beat;
use prewarm_tests::clock;
use prewarm_tests::daemon::{Daemon, binary};
use prewarm_tests::needs::{self, skip};
use prewarm_tests::path::Path;

const PORT: u16 = 9000;
const ROUND_TRIP: Duration = Duration::from_millis(10);
/// A connection and a message take two round trips; a machine that does something else meanwhile makes it more.
const SOON_MS: f64 = 500.0;
/// How old the heartbeat may be, and what it takes to notice.
const NOTICED_MS: f64 = 2_100.0;

/// What is done to the daemon, at these times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    /// And continued after three seconds.
    Stopped,
    /// Ended in good order; another is started at once.
    Exchanged,
}

/// What was seen. Times in milliseconds.
struct Seen {
    beats: Vec<Beat>,
    /// When it was done to the daemon.
    fault_ms: f64,
    /// When it was over: continued, or the next daemon ready.
    over_ms: f64,
}

fn now_ms() -> f64 {
    1e3 * clock::now().as_secs_f64()
}

fn play(path: Path, fault: Fault) -> Seen {
    let binary = binary().unwrap();
    let bed = Bed::build(Some(ROUND_TRIP)).unwrap();
    let _peer = Peer::start(&bed.server, bed.origin(PORT)).unwrap();
    let keeps = [Keep::to(PORT)];
    let mut daemon = bed.daemon(path, &binary, &keeps).unwrap();
    let mut command = bed.client(path, Some(&daemon), "drum").unwrap();
    let seconds = if fault == Fault::Stopped { 6 } else { 4 };
    command.args(["--rate", "50", "--period", &(seconds * 1000).to_string()]);
    command.arg(bed.target(path, Some(&daemon), PORT).to_string());
    let drum = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let before = daemon.stats().unwrap().leases.taken;
    clock::pause(Duration::from_millis(1500));
    let taken = daemon.stats().unwrap().leases.taken - before;
    assert!(taken >= 20, "{path:?}: only {taken} leases were taken before anything happened");
    let fault_ms = now_ms();
    let next: Option<Daemon> = match fault {
        Fault::Killed => {
            kill(daemon.pid(), Signal::SIGKILL).unwrap();
            None
        }
        Fault::Stopped => {
            kill(daemon.pid(), Signal::SIGSTOP).unwrap();
            clock::pause(Duration::from_secs(3));
            kill(daemon.pid(), Signal::SIGCONT).unwrap();
            None
        }
        Fault::Exchanged => {
            daemon.end();
            Some(bed.daemon(path, &binary, &keeps).unwrap())
        }
    };
    let over_ms = now_ms();
    let output = drum.wait_with_output().unwrap();
    assert!(output.status.success());
    if let Some(mut next) = next {
        assert!(next.stats().unwrap().leases.taken > 0, "{path:?}: the next daemon's leases are not taken");
    }
    Seen { beats: serde_json::from_slice(&output.stdout).unwrap(), fault_ms, over_ms }
}

impl Seen {
    fn failed(&self) -> impl Iterator<Item = &Beat> {
        self.beats.iter().filter(|beat| beat.error.is_some())
    }

    /// Nothing failed but what was under way at the fault, and what began after `settled_ms` was served soon.
    fn assert_only_in_flight(&self, what: &str, carries: bool, settled_ms: f64) {
        for beat in self.failed() {
            let under_way = beat.began_ms <= settled_ms && beat.ended_ms >= self.fault_ms;
            assert!(carries && under_way, "{what}: {:.0} ms after the fault: {beat:?}", beat.began_ms - self.fault_ms);
        }
        let late = self.beats.iter().filter(|beat| beat.began_ms > settled_ms);
        for beat in late {
            let took = beat.ended_ms - beat.began_ms;
            assert!(
                took < SOON_MS,
                "{what}: {:.0} ms after the fault one took {took:.0} ms",
                beat.began_ms - self.fault_ms
            );
        }
        let lost = self.failed().count();
        println!("{what}: {} connections, {lost} lost, all of them under way", self.beats.len());
    }
}

fn what(path: Path, fault: Fault) -> String {
    format!("{} {fault:?}", path.label())
}

/// Ways on which a program goes direct when the daemon isn't there.
fn goes_direct(path: Path) {
    if skip(needs::DAEMON) {
        return;
    }
    let killed = play(path, Fault::Killed);
    // What began before the kernel had taken the daemon's programs away is under way.
    killed.assert_only_in_flight(&what(path, Fault::Killed), path.is_relayed(), killed.fault_ms + 50.0);
    let stopped = play(path, Fault::Stopped);
    stopped.assert_only_in_flight(&what(path, Fault::Stopped), path.is_relayed(), stopped.fault_ms + NOTICED_MS);
    let exchanged = play(path, Fault::Exchanged);
    exchanged.assert_only_in_flight(&what(path, Fault::Exchanged), path.is_relayed(), exchanged.over_ms);
    if path.is_relayed() {
        // Those that the old one carried; not as many as came while the new one started.
        let lost = exchanged.failed().count();
        assert!(lost <= 5, "{}: {lost} lost", what(path, Fault::Exchanged));
    }
}

/// Ways on which the daemon is the proxy.
fn is_refused(path: Path) {
    if skip(needs::DAEMON) {
        return;
    }
    let killed = play(path, Fault::Killed);
    for beat in &killed.beats {
        let took = beat.ended_ms - beat.began_ms;
        assert!(took < SOON_MS, "{path:?} hangs {took:.0} ms: {beat:?}");
        let after = beat.began_ms > killed.fault_ms + 50.0;
        assert!(!after || beat.error.is_some(), "{path:?} is served by nobody: {beat:?}");
        assert!(
            beat.error.is_none() || beat.ended_ms >= killed.fault_ms,
            "{path:?} failed before anything happened: {beat:?}"
        );
    }
    let stopped = play(path, Fault::Stopped);
    assert_eq!(stopped.failed().count(), 0, "{path:?} stopped: {:?}", stopped.failed().next());
    for beat in stopped.beats.iter().filter(|beat| beat.began_ms > stopped.over_ms) {
        let took = beat.ended_ms - beat.began_ms;
        assert!(took < SOON_MS, "{path:?}: after it went on, one took {took:.0} ms");
    }
    let exchanged = play(path, Fault::Exchanged);
    for beat in &exchanged.beats {
        let took = beat.ended_ms - beat.began_ms;
        assert!(took < SOON_MS, "{path:?} hangs {took:.0} ms: {beat:?}");
        let meanwhile = beat.ended_ms >= exchanged.fault_ms && beat.began_ms <= exchanged.over_ms;
        assert!(beat.error.is_none() || meanwhile, "{path:?}: {beat:?}");
    }
}

#[test]
fn exec_loses_nothing() {
    goes_direct(Path::Exec);
}

#[test]
fn fd_loses_nothing() {
    goes_direct(Path::Fd);
}

#[test]
fn the_redirect_loses_what_is_under_way() {
    goes_direct(Path::Redirect);
}

#[test]
fn tproxy_loses_what_is_under_way() {
    goes_direct(Path::Tproxy);
}

#[test]
fn socks_is_refused_at_once_while_the_daemon_is_down() {
    is_refused(Path::Socks);
}

#[test]
fn connect_is_refused_at_once_while_the_daemon_is_down() {
    is_refused(Path::Connect);
}
