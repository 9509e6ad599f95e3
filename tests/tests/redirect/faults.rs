//! The daemon killed, stopped, and replaced, while programs connect fifty times a second.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use prewarm_tests::clock;
use serde_json::Value;

use super::bench::{Daemon, Origin, V4, python, world};
use super::cgroup::Cgroup;

/// Leases that are kept open.
const KEPT: u64 = 4;

/// One connection of the load, in seconds of the monotonic clock.
#[derive(Debug)]
struct Attempt {
    begun: f64,
    took: f64,
    error: Option<String>,
}

/// A client that connects fifty times a second, each time on a thread of its own, so that one that hangs holds up no
/// other.
struct Load {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Load {
    fn start(cgroup: &Cgroup, origin: &Origin, seconds: f64) -> Result<Self> {
        let code = format!(
            "
lock, threads = threading.Lock(), []
def work():
    begun, error = time.monotonic(), None
    try:
        s = sock(); s.settimeout(1.5); s.connect((HOST, PORT)); ask(s); s.close()
    except Exception as e: error = repr(e)
    with lock: print(json.dumps([begun, time.monotonic() - begun, error]), flush=True)
start = time.monotonic()
for turn in range(int({seconds} * 50)):
    time.sleep(max(0, start + turn / 50 - time.monotonic()))
    threads.append(threading.Thread(target=work)); threads[-1].start()
for thread in threads: thread.join()"
        );
        let mut child = python(Some(cgroup), origin, &code).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?);
        Ok(Self { child, lines })
    }

    /// Waits for its end.
    fn attempts(mut self) -> Result<Vec<Attempt>> {
        let attempts = (&mut self.lines)
            .lines()
            .map(|line| {
                let value: Value = serde_json::from_str(&line?)?;
                let second = |index: usize| value[index].as_f64().context("seconds");
                Ok(Attempt { begun: second(0)?, took: second(1)?, error: value[2].as_str().map(str::to_owned) })
            })
            .collect();
        ensure!(self.child.wait()?.success());
        attempts
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Seconds of the clock that the load's attempts are in.
fn now() -> f64 {
    clock::now().as_secs_f64()
}

fn failed<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Vec<&'a Attempt> {
    attempts.into_iter().filter(|attempt| attempt.error.is_some()).collect()
}

#[test]
fn a_killed_daemon_takes_only_what_is_in_flight() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.order(&format!("want {} {KEPT}", origin.address))?;
        let load = Load::start(cgroup, &origin, 4.0)?;
        wait_for_taken(&mut daemon, 30)?;
        let killed = now();
        daemon.signal(Signal::SIGKILL)?;
        let attempts = load.attempts()?;
        let failures = failed(&attempts);
        ensure!(attempts.len() == 200 && attempts.iter().any(|attempt| attempt.begun > killed + 0.5));
        ensure!(failures.len() <= 3, "more than what was in flight: {failures:?}");
        ensure!(
            failures.iter().all(|failure| failure.begun < killed + 0.1),
            "a connect failed after the daemon was gone, at {killed}: {failures:?}"
        );
        Ok(())
    });
}

#[test]
fn a_stopped_daemon_is_left_out_within_two_seconds() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.order(&format!("want {} {KEPT}", origin.address))?;
        let load = Load::start(cgroup, &origin, 5.0)?;
        wait_for_taken(&mut daemon, 30)?;
        daemon.signal(Signal::SIGSTOP)?;
        let stopped = now();
        let attempts = load.attempts()?;
        let failures = failed(&attempts);
        // Nothing new is on offer, so what was claimed since is all that waits; and one may have been in the relay.
        ensure!(failures.len() as u64 <= KEPT + 2, "more than was on offer: {failures:?}");
        let late = attempts.iter().filter(|attempt| attempt.begun > stopped + 2.0);
        let late: Vec<_> = late.collect();
        ensure!(late.len() > 50, "the load went on");
        ensure!(failed(late.iter().copied()).is_empty(), "a connect failed after two seconds: {late:?}");
        ensure!(late.iter().all(|attempt| attempt.took < 1.0), "{late:?}");
        daemon.signal(Signal::SIGCONT)?;
        let before = daemon.stats()?["taken"].as_u64().context("taken")?;
        let load = Load::start(cgroup, &origin, 1.0)?;
        let attempts = load.attempts()?;
        ensure!(failed(&attempts).is_empty(), "{attempts:?}");
        let stats = daemon.stats()?;
        ensure!(stats["taken"].as_u64() > Some(before), "redirected again: {stats}");
        Ok(())
    });
}

#[test]
fn a_stale_heart_is_noticed_before_anything_is_claimed() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 3)?;
        daemon.signal(Signal::SIGSTOP)?;
        clock::pause(Duration::from_millis(2100));
        super::assert_direct(&super::one(Some(cgroup), &origin, super::PLAIN)?, 3);
        daemon.signal(Signal::SIGCONT)?;
        let stats = daemon.stats()?;
        ensure!(stats["kernel"]["stale"] == 1 && stats["kernel"]["claimed"] == 0, "{stats}");
        clock::wait_for("the daemon to beat again", Duration::from_secs(5), || {
            Ok((super::one(Some(cgroup), &origin, super::PLAIN)?["number"].as_u64() < Some(3)).then_some(()))
        })
    });
}

/// What was claimed while the daemon was stopped is served when it goes on, though the lease has lapsed.
#[test]
fn who_waited_for_a_stopped_daemon_is_served() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 1)?;
        daemon.signal(Signal::SIGSTOP)?;
        let code = "s = sock(); s.connect((HOST, PORT)); print('connected', flush=True); report(s)";
        let mut client = python(Some(cgroup), &origin, code).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(client.stdout.take().context("stdout")?).lines();
        ensure!(said.next().context("nothing")?? == "connected");
        clock::pause(Duration::from_millis(2500));
        daemon.signal(Signal::SIGCONT)?;
        let report: Value = serde_json::from_str(&said.next().context("nothing")??)?;
        ensure!(client.wait()?.success());
        ensure!(report["peer"][1] == origin.address.port() && report["local"] == report["seen"], "{report}");
        let stats = daemon.stats()?;
        ensure!(stats["taken"].as_u64().unwrap_or(0) + stats["late"].as_u64().unwrap_or(0) == 1, "{stats}");
        Ok(())
    });
}

#[test]
fn an_upgrade_loses_nothing() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut old = Daemon::start(cgroup, "")?;
        old.order(&format!("want {} {KEPT}", origin.address))?;
        let load = Load::start(cgroup, &origin, 5.0)?;
        wait_for_taken(&mut old, 10)?;
        // Talks all the time, and looks whom to.
        let code = "
s = sock(); s.connect((HOST, PORT)); numbers = set()
print('begun', flush=True)
for turn in range(40):
    numbers.add(ask(s, 'turn %d' % turn)[0]); time.sleep(0.05)
    assert name(s.getpeername()) == [HOST, PORT]
print(json.dumps(len(numbers)))";
        let mut talk = python(Some(cgroup), &origin, code).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(talk.stdout.take().context("stdout")?).lines();
        ensure!(said.next().context("nothing")?? == "begun");
        let mut new = Daemon::start(cgroup, "")?;
        new.order(&format!("want {} {KEPT}", origin.address))?;
        old.ask_to_stop(Duration::from_secs(10))?;
        wait_for_taken(&mut new, 20)?;
        ensure!(said.next().context("nothing")?? == "1" && talk.wait()?.success(), "the talk was cut");
        old.wait_stopped()?;
        drop(old);
        let attempts = load.attempts()?;
        ensure!(attempts.len() == 250 && failed(&attempts).is_empty(), "{:?}", failed(&attempts));
        Ok(())
    });
}

#[test]
fn a_stop_cuts_what_does_not_end_in_time() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 1)?;
        let code = "
s = sock(); s.connect((HOST, PORT)); ask(s); print('begun', flush=True)
try: print(json.dumps(len(s.recv(1))))
except ConnectionResetError: print('0')";
        let mut client = python(Some(cgroup), &origin, code).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(client.stdout.take().context("stdout")?).lines();
        ensure!(said.next().context("nothing")?? == "begun");
        let begun = now();
        daemon.ask_to_stop(Duration::from_millis(300))?;
        daemon.wait_stopped()?;
        ensure!(now() - begun < 2.0);
        ensure!(said.next().context("nothing")?? == "0" && client.wait()?.success());
        Ok(())
    });
}

/// Waits until so many more connections got a lease.
fn wait_for_taken(daemon: &mut Daemon, more: u64) -> Result<()> {
    let taken = |daemon: &mut Daemon| Ok::<_, anyhow::Error>(daemon.stats()?["taken"].as_u64().unwrap_or(0));
    let before = taken(daemon)?;
    clock::wait_for("connections to be redirected", Duration::from_secs(10), || {
        Ok((taken(daemon)? >= before + more).then_some(()))
    })
}
