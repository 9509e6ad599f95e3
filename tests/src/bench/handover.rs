//! What each way out costs: beside a direct connection, and beside a plain forwarder where the daemon would be.
//!
//! Comes in: ways, the daemon's binary. Goes out: microseconds to connect and back and forth, and bulk, the medians of
//! rounds in which the subjects take turns; and what a `connect()` costs more that the redirect looked at in vain.
//! Never here: a long link; what is measured is the processor's time on the way, on veth pairs between three namespaces.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::Path as File;

use anyhow::{Context as _, Result, ensure};

use super::Row;
use crate::bed::{Bed, Keep, Peer, outcome};
use crate::client::Target;
use crate::client::load::{Speed, Times, Transfers};
use crate::client::misses::Misses;
use crate::daemon::Daemon;
use crate::interrupt;
use crate::path::Path;
use crate::report::Report;

/// The port to which leases are kept.
const LEASED: u16 = 9000;
/// The same origin where nothing is ever leased.
const UNLEASED: u16 = 9001;
/// Connections a round.
const CONNECTS: &str = "200";
/// The pause after each, so that leases can be replaced.
const PAUSE: &str = "2000";
/// Messages a round.
const PINGS: &str = "2000";
/// How long bulk is moved in each direction, in milliseconds.
const BULK: &str = "500";
/// Pairs of turns for the redirect's miss path.
const MISS_ROUNDS: &str = "400";

pub(super) const PREWARM: &str = "prewarm";
const DIRECT: &str = "direct";
const PLAIN: &str = "plain";

/// Measures these ways, each in so many rounds.
///
/// # Errors
/// Without root, or when a way doesn't work.
pub fn run(binary: &File, paths: &[Path], rounds: usize, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for path in paths {
        say(&format!("handover: {}, {rounds} rounds", path.label()));
        let bed = Bed::build(None)?;
        rows.extend(way(&bed, binary, *path, rounds).with_context(|| path.label())?);
        if *path == Path::Redirect {
            say("handover: redirect-miss");
            rows.extend(redirect_misses(&bed, binary).context("redirect-miss")?);
        }
    }
    Ok(rows)
}

/// Samples of one subject, one a round.
#[derive(Default)]
struct Samples {
    connect_us: Vec<f64>,
    rtt_us: Vec<f64>,
    down: Vec<f64>,
    up: Vec<f64>,
}

fn way(bed: &Bed, binary: &File, path: Path, rounds: usize) -> Result<Vec<Row>> {
    let _leased = Peer::start(&bed.server, bed.origin(LEASED))?;
    let _unleased = Peer::start(&bed.server, bed.origin(UNLEASED))?;
    let keeps = [Keep { port: LEASED, count: 32 }];
    let mut daemon = bed.daemon(path, binary, &keeps)?;
    let (_forwarder, forwarder) = bed.forwarder(path, UNLEASED)?;
    let mut all: [(&str, Samples); 3] = [DIRECT, PLAIN, PREWARM].map(|subject| (subject, Samples::default()));
    let (mut taken, mut connections) = (0, 0.0);
    for round in 0..rounds {
        // Nobody always comes first.
        all.rotate_left(round % 3);
        for (subject, samples) in &mut all {
            interrupt::check()?;
            bed.wait_for_leases(&mut daemon, &keeps)?;
            let before = daemon.stats()?.leases.taken;
            match *subject {
                DIRECT => sample(bed, path, None, &Target::Address(bed.origin(UNLEASED)), samples)?,
                PLAIN => sample(bed, path, None, &Target::Address(forwarder), samples)?,
                _ => {
                    let target = bed.target(path, Some(&daemon), LEASED);
                    sample(bed, path, Some(&daemon), &target, samples)?;
                    taken += daemon.stats()?.leases.taken - before;
                    // The counted ones and those before them, one for messages, two for bulk.
                    connections += CONNECTS.parse::<f64>()? + 13.0;
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (subject, samples) in all {
        let mut row = |metric: &str, values: Vec<f64>, unit: &str| {
            rows.push(Row::new(path.label(), subject, metric, median(values), unit));
        };
        row("connect_us_p50", samples.connect_us, "us");
        row("rtt_us_p50", samples.rtt_us, "us");
        row("gbit_per_second", samples.down, "Gbit/s");
        row("up_gbit_per_second", samples.up, "Gbit/s");
    }
    rows.push(Row::new(path.label(), PREWARM, "lease_share", 100.0 * taken as f64 / connections, "%"));
    Ok(rows)
}

fn sample(bed: &Bed, path: Path, daemon: Option<&Daemon>, target: &Target, samples: &mut Samples) -> Result<()> {
    let client = |task: &str, flags: &[&str]| -> Result<_> {
        let mut command = bed.client(path, daemon, task)?;
        command.args(flags).arg(target.to_string());
        Ok(command)
    };
    let times: Times = outcome(&mut client("connects", &["--count", CONNECTS, "--pause", PAUSE])?)?;
    samples.connect_us.push(times.us_p50);
    let times: Times = outcome(&mut client("pings", &["--count", PINGS])?)?;
    samples.rtt_us.push(times.us_p50);
    let speed: Speed = outcome(&mut client("bulk", &["--period", BULK])?)?;
    samples.down.push(speed.down_gbit_per_second);
    samples.up.push(speed.up_gbit_per_second);
    Ok(())
}

/// The same process connects to the same listener of its own host, in a redirected cgroup and in another.
fn redirect_misses(bed: &Bed, binary: &File) -> Result<Vec<Row>> {
    let daemon = bed.daemon(Path::Redirect, binary, &[])?;
    let (address, listener) = bed.client.enter(|| {
        let listener = TcpListener::bind(SocketAddr::new(bed.client_address(), 0))?;
        Ok((listener.local_addr()?, listener))
    })?;
    // Ends with the listener, which has no better place to be owned.
    std::thread::spawn(move || while listener.accept().is_ok() {});
    let free = crate::cgroup::Cgroup::create("free")?;
    let mut command = bed.client.command(crate::program::program("plain-client")?);
    command.args(["misses", "--rounds", MISS_ROUNDS, "--hooked"]).arg(bed.cgroup().path());
    command.arg("--free").arg(free.path()).arg(address.to_string());
    let misses: Misses = outcome(&mut command)?;
    drop(daemon);
    let row = |subject: &str, metric: &str, value| Row::new("redirect-miss", subject, metric, value, "ns");
    Ok(vec![
        row(PREWARM, "connect_ns_p50", misses.hooked_ns),
        row(DIRECT, "connect_ns_p50", misses.free_ns),
        row(PREWARM, "added_ns", misses.added_ns),
    ])
}

/// Transfers over each way, and whether all were right; the first complaints are said.
///
/// # Errors
/// Without root, or when a way doesn't work at all.
pub fn integrity(binary: &File, paths: &[Path], count: u32, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for path in paths {
        say(&format!("integrity: {}, {count} transfers", path.label()));
        let bed = Bed::build(None)?;
        let peer = Peer::start(&bed.server, bed.origin(LEASED))?;
        let keeps = [Keep { port: LEASED, count: 32 }];
        let mut daemon = bed.daemon(*path, binary, &keeps)?;
        let target = bed.target(*path, Some(&daemon), LEASED);
        let mut command = bed.client(*path, Some(&daemon), "transfers")?;
        command.args(["--count", &count.to_string(), "--seed", "1", &target.to_string()]);
        let transfers: Transfers = outcome(&mut command)?;
        for complaint in &transfers.complaints {
            say(&format!("integrity: {}: {complaint}", path.label()));
        }
        let taken = daemon.stats()?.leases.taken;
        // The origin checks what it received after the client has all.
        let _all = crate::clock::wait_for("the origin's checks", std::time::Duration::from_secs(5), || {
            Ok((peer.right() >= transfers.right).then_some(()))
        });
        let mut row = |metric: &str, value, unit: &str| {
            rows.push(Row::new(&format!("{}-integrity", path.label()), PREWARM, metric, value, unit));
        };
        row("transfers_right", transfers.right as f64, "");
        row("transfers_wrong", transfers.wrong as f64, "");
        row("transfers_failed", transfers.failed as f64, "");
        row("transfers_right_at_origin", peer.right() as f64, "");
        row("gigabytes", transfers.bytes as f64 / 1e9, "GB");
        row("lease_share", 100.0 * taken as f64 / f64::from(count), "%");
        ensure!(transfers.right + transfers.wrong + transfers.failed == u64::from(count), "transfers are missing");
    }
    Ok(rows)
}

/// A promise about this bench, and whether it was kept.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The case it is about.
    pub case: String,
    /// What is promised.
    pub promise: &'static str,
    /// What was measured.
    pub value: f64,
    /// Whether it holds.
    pub kept: bool,
}

/// Judges a report.
pub fn judge(report: &Report) -> Vec<Judged> {
    let mut judged = Vec::new();
    for path in Path::ALL {
        let case = path.label();
        let ratio =
            |metric: &str, other: &str| Some(report.value(case, PREWARM, metric)? / report.value(case, other, metric)?);
        for metric in ["gbit_per_second", "up_gbit_per_second"] {
            let promises = [
                (PLAIN, 0.9, "bulk is at least 0.9 of a plain forwarder's"),
                (DIRECT, 0.65, "bulk is at least 0.65 of a direct connection's"),
            ];
            for (other, least, promise) in promises {
                if let Some(value) = ratio(metric, other) {
                    judged.push(Judged { case: format!("{case} {metric}"), promise, value, kept: value >= least });
                }
            }
        }
        let integrity = format!("{case}-integrity");
        let value = |metric: &str| report.value(&integrity, PREWARM, metric);
        if let (Some(right), Some(wrong), Some(failed), Some(at_origin)) = (
            value("transfers_right"),
            value("transfers_wrong"),
            value("transfers_failed"),
            value("transfers_right_at_origin"),
        ) {
            let (promise, kept) = ("no transfer is wrong", wrong == 0.0 && failed == 0.0 && at_origin == right);
            judged.push(Judged { case: integrity, promise, value: right, kept });
        }
    }
    for row in report.results.iter().filter(|row| row.metric == "failed_not_cold") {
        let promise = "no request fails that would not have failed cold";
        judged.push(Judged { case: row.case.clone(), promise, value: row.value, kept: row.value == 0.0 });
    }
    if let Some(value) = report.value("redirect-miss", PREWARM, "added_ns") {
        let promise = "a connect() that is not redirected takes at most 1 µs more";
        judged.push(Judged { case: "redirect-miss".into(), promise, value, kept: value <= 1000.0 });
    }
    judged
}

impl fmt::Display for Judged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.kept { "kept  " } else { "BROKEN" };
        write!(formatter, "{mark}  {}: {} ({:.2})", self.case, self.promise, self.value)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::report::{Report, Row};

    #[test]
    fn each_promise_can_be_broken() {
        let kept = |rows: &[(&str, &str, &str, f64)]| {
            let mut report = Report::new("handover");
            report.results =
                rows.iter().map(|(case, subject, metric, value)| Row::new(case, subject, metric, *value, "")).collect();
            judge(&report).iter().map(|judged| judged.kept).collect::<Vec<_>>()
        };
        let bulk = |ours| {
            kept(&[
                ("socks", "prewarm", "gbit_per_second", ours),
                ("socks", "plain", "gbit_per_second", 10.0),
                ("socks", "direct", "gbit_per_second", 15.0),
            ])
        };
        assert_eq!(bulk(9.8), [true, true]);
        assert_eq!(bulk(9.1), [true, false]);
        assert_eq!(bulk(8.9), [false, false]);
        assert_eq!(kept(&[("fd-behaviours/node", "prewarm", "failed_not_cold", 1.0)]), [false]);
        assert_eq!(kept(&[("redirect-miss", "prewarm", "added_ns", 1001.0)]), [false]);
        let integrity = |wrong, failed, at_origin| {
            kept(&[
                ("fd-integrity", "prewarm", "transfers_right", 9.0),
                ("fd-integrity", "prewarm", "transfers_wrong", wrong),
                ("fd-integrity", "prewarm", "transfers_failed", failed),
                ("fd-integrity", "prewarm", "transfers_right_at_origin", at_origin),
            ])
        };
        assert_eq!(integrity(0.0, 0.0, 9.0), [true]);
        assert_eq!(integrity(1.0, 0.0, 9.0), [false]);
        assert_eq!(integrity(0.0, 1.0, 9.0), [false]);
        assert_eq!(integrity(0.0, 0.0, 8.0), [false]);
    }
}
