//! The lab, played short: what it shows, that its proof can fail, and that it leaves nothing.
//!
//! Needs root and the packages of the harness; what is measured through prewarm needs the binary in `PREWARM_BIN`, as
//! `cargo xtask test` sets it. Skipped with the reason otherwise. Bounds are wider than the lab's own, because other
//! tests share the processors: what is asserted here is what physics separates, not microseconds.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prewarm_tests::needs::{self, skip};
use prewarm_tests::report::{Report, Row};
use prewarm_tests::{clock, daemon};

/// One lab at a time: two would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

fn lab(flags: &[&str]) -> Output {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_lab")).args(flags).stdin(Stdio::null()).output().unwrap();
    // Shown when the test fails.
    let _shown = std::io::stdout().write_all(&output.stderr);
    output
}

fn report(output: &Output) -> Report {
    serde_json::from_slice(&output.stdout).expect("one JSON object on standard output")
}

/// What has to hold for followers that ride on leases, in every case.
fn assert_leased(report: &Report, way: &str) {
    assert_eq!((report.schema, report.bench.as_str()), (1, "lab"));
    for scheme in ["http", "tls"] {
        let case = format!("{way}/{scheme}");
        let value = |subject: &str, metric: &str| {
            report.value(&case, subject, metric).unwrap_or_else(|| panic!("{case} has no {metric} of {subject}"))
        };
        assert!(value("cold", "connect_ms_p50") >= 40.0, "{case}: cold is not cold");
        assert!(value("prewarm", "connect_ms_p50") < 10.0, "{case}: the median follower had to connect");
        assert!(value("prewarm", "lease_share") >= 60.0, "{case}: too few leases");
        assert!(value("prewarm", "saved_rtt") >= 0.8, "{case}: a lease saves a round trip");
        assert!(value("prewarm", "name_cached") >= 60.0, "{case}: too few names in the resolver's cache");
        assert_eq!(value("cold", "failed") + value("prewarm", "failed"), 0.0, "{case}: requests failed");
    }
    let tls = format!("{way}/tls");
    let hits = |subject: &str| report.value(&tls, subject, "far_cache_hit");
    assert_eq!(hits("cold"), Some(0.0), "the far cache was warm before anybody came");
    assert!(
        hits("prewarm") >= Some(25.0),
        "a configured path was not warm at its first request: {:?}",
        hits("prewarm")
    );
}

#[test]
fn on_a_host_followers_ride_on_leases() {
    if skip(needs::DAEMON) {
        return;
    }
    assert_leased(&report(&lab(&["--scenario", "host", "--json", "--visits", "16", "--learn", "96"])), "exec/40");
}

#[test]
fn on_a_gateway_followers_ride_on_leases_that_come_from_arriving_questions() {
    if skip(needs::DAEMON) {
        return;
    }
    assert_leased(&report(&lab(&["--scenario", "gateway", "--json", "--visits", "16", "--learn", "96"])), "gateway/40");
}

#[test]
fn a_gateway_that_does_not_see_questions_arrive_fails() {
    if skip(needs::DAEMON) {
        return;
    }
    let output = lab(&["--scenario", "gateway", "--json", "--visits", "8", "--learn", "32", "--no-ingress"]);
    assert_eq!(output.status.code(), Some(1), "the lab must say that its promises are broken");
    let report = report(&output);
    for case in ["gateway/40/http", "gateway/40/tls"] {
        assert_eq!(report.value(case, "prewarm", "lease_share"), Some(0.0), "{case}: leases from nowhere");
        assert_eq!(report.value(case, "prewarm", "failed"), Some(0.0), "{case}: without leases everything still works");
    }
}

#[test]
fn over_ipv6_followers_ride_on_leases() {
    if skip(needs::DAEMON) {
        return;
    }
    assert_leased(
        &report(&lab(&["--scenario", "host", "--ipv6", "--json", "--visits", "16", "--learn", "96"])),
        "exec6/40",
    );
}

/// Shorter than the others, with less to learn from: that each way works from a question to a lease, and breaks nothing.
#[test]
fn on_every_other_way_followers_ride_on_leases() {
    if skip(needs::DAEMON) {
        return;
    }
    let report = report(&lab(&["--path", "redirect,socks,tproxy,fd", "--json", "--visits", "8", "--learn", "48"]));
    for way in ["redirect", "socks", "tproxy", "fd"] {
        let sum = |metric: &str| -> f64 {
            let of_way = |row: &&Row| row.case.starts_with(&format!("{way}/")) && row.metric == metric;
            report.results.iter().filter(of_way).map(|row| row.value).sum()
        };
        assert_eq!(sum("failed"), 0.0, "{way}: requests failed");
        // Of both schemes together.
        assert!(sum("lease_share") >= 60.0, "{way}: too few leases, {} % of twice 100", sum("lease_share"));
        for scheme in ["http", "tls"] {
            let saved = report.value(&format!("{way}/40/{scheme}"), "prewarm", "saved_rtt");
            assert!(saved.is_none_or(|saved| saved >= 0.7), "{way}/{scheme}: a lease saves {saved:?} round trips");
        }
    }
}

#[test]
fn what_does_not_exist_yet_is_refused_with_a_hint() {
    for flags in [
        &["--path", "socks", "--scenario", "host"][..],
        &["--path", "pigeon"],
        &["--scenario", "edge"],
        &["--rtt", "0"],
        &["--all", "--rtt", "10"],
        &["--visits", "0"],
    ] {
        let output = lab(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(output.stdout.is_empty(), "{flags:?}: data on an error");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("hint:") || said.contains("--help"), "{flags:?}: {said}");
    }
}

#[test]
fn an_interrupted_lab_removes_everything() {
    if skip(needs::WORLD) {
        return;
    }
    let ended = stopped_by(Signal::SIGINT);
    assert_eq!(ended.code, Some(130));
    assert_eq!(ended.left, Vec::<PathBuf>::new());
}

#[test]
fn what_a_killed_lab_leaves_is_removed_by_the_next() {
    if skip(needs::WORLD) {
        return;
    }
    let ended = stopped_by(Signal::SIGKILL);
    prewarm_tests::netns::sweep().unwrap();
    assert_eq!(traces(ended.pid), Vec::<PathBuf>::new());
}

struct Ended {
    pid: u32,
    code: Option<i32>,
    left: Vec<PathBuf>,
}

/// Starts a lab, waits until it visits, and ends it with this signal.
fn stopped_by(signal: Signal) -> Ended {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let errors = tempfile::NamedTempFile::new().unwrap();
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["--scenario", "host"])
        .env_remove(daemon::BINARY_VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors.reopen().unwrap())
        .spawn()
        .unwrap();
    let pid = lab.id();
    let playing = clock::wait_for("the lab to play", Duration::from_secs(20), || -> Result<_> {
        Ok(fs::read_to_string(errors.path())?.contains("cold,").then_some(()))
    });
    assert!(!traces(pid).is_empty(), "the lab would leave nothing anyway");
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    let status = lab.wait().unwrap();
    playing.unwrap();
    Ended { pid, code: status.code(), left: traces(pid) }
}

/// Everything on the host that carries the PID of a lab: namespaces and files.
fn traces(pid: u32) -> Vec<PathBuf> {
    let folders = [PathBuf::from("/run/netns"), std::env::temp_dir()];
    let entries = folders.iter().flat_map(fs::read_dir).flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("pw-{pid}-")));
    ours.map(|entry| entry.path()).collect()
}
