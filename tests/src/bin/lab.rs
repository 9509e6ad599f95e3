//! `cargo xtask lab`: plays the lab and prints what it showed.
//!
//! A table (or with `--json` one object) goes to standard output, progress and verdicts to standard error. Exit codes:
//! 0 every promise was kept, 1 one was broken, 2 error or usage, 77 without root, 130 interrupted.

use std::io::{self, Write as _, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use prewarm_tests::interrupt::{self, Interrupted};
use prewarm_tests::lab::{self, Course, Family, Options, Progress};
use prewarm_tests::path::Path;
use prewarm_tests::report::Report;
use prewarm_tests::scenario::Place;
use prewarm_tests::{daemon, packages, schedule};

/// A self-contained proof: namespaces, a delayed link, real servers, the daemon; cold against warm, side by side.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask lab")]
struct Arguments {
    /// Round trip of the link between gateway and internet, in milliseconds; several may be given
    #[arg(long, value_name = "MS", default_value = "40", value_delimiter = ',',
          value_parser = clap::value_parser!(u64).range(2..=1000))]
    rtt: Vec<u64>,
    /// How leases reach the program; several may be given
    #[arg(long, value_enum, default_value = "exec", value_delimiter = ',')]
    path: Vec<Path>,
    /// Where prewarm runs; all that exist for the path when not given
    #[arg(long, value_enum)]
    scenario: Option<Where>,
    /// Everything over IPv6
    #[arg(long)]
    ipv6: bool,
    /// Every path at 10, 40 and 100 ms, over IPv4 and over IPv6 (most of an hour)
    #[arg(long, conflicts_with_all = ["rtt", "path", "scenario", "ipv6"])]
    all: bool,
    /// Visits measured through prewarm, of four requests each, instead of 40 (250 make 1,000 requests)
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    visits: Option<usize>,
    /// Visits prewarm learns from before, instead of 80
    #[arg(long, value_name = "N")]
    learn: Option<usize>,
    /// Detach prewarm from what arrives; the scenario gateway then has to fail
    #[arg(long)]
    no_ingress: bool,
    /// Leaves the configurations and logs of all programs in the temporary folder, and says where
    #[arg(long)]
    keep: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    Host,
    Gateway,
    Edge,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let progress = Progress::new();
    match run(&arguments, &progress) {
        Ok(code) => code,
        Err(error) if error.is::<Interrupted>() => {
            progress.say("interrupted; everything is removed");
            ExitCode::from(130)
        }
        Err(error) => {
            progress.say(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments, progress: &Progress) -> Result<ExitCode> {
    let place = match arguments.scenario {
        Some(Where::Edge) => {
            progress.say("error: there is no edge scenario yet\nhint: --scenario host or --scenario gateway");
            return Ok(ExitCode::from(2));
        }
        Some(Where::Host) => Some(Place::Host),
        Some(Where::Gateway) => Some(Place::Gateway),
        None => None,
    };
    let plan = Plan::of(arguments, place);
    if plan.courses.is_empty() {
        progress.say("error: that path is not played in that scenario\nhint: leave --scenario out");
        return Ok(ExitCode::from(2));
    }
    if !nix::unistd::geteuid().is_root() {
        progress.say("error: network namespaces need root\nhint: sudo, or run it as root in a container");
        return Ok(ExitCode::from(77));
    }
    let missing = packages::missing(packages::PACKAGES);
    if !missing.is_empty() {
        progress.say(&format!("error: programs are missing\nhint: apt-get install {}", missing.join(" ")));
        return Ok(ExitCode::from(2));
    }
    interrupt::watch()?;
    // Both halves alike: what is compared is round trips, not who gets the processor first.
    if !schedule::real_time(schedule::PROGRAMS) {
        progress.say("no real-time class here: a busy host will show in the figures");
    }
    let mut options = Options {
        round_trip: Duration::ZERO,
        visits: arguments.visits,
        learn: arguments.learn,
        family: Family::V4,
        ingress: !arguments.no_ingress,
        keep: arguments.keep,
        binary: daemon::binary(),
    };
    let mut report = Report::new("lab");
    // One after the other: on two cores they would take each other's microseconds.
    for course in &plan.courses {
        for family in &plan.families {
            for rtt in &plan.rtts {
                (options.round_trip, options.family) = (Duration::from_millis(*rtt), *family);
                let rows = lab::play(*course, &options, progress);
                // Ctrl-C in a terminal also ends the program that a step was waiting for; that step's error is no news.
                interrupt::check()?;
                report.results.extend(rows?);
            }
        }
    }
    let text = if arguments.json { serde_json::to_string(&report)? } else { lab::render(&report) };
    print(&text)?;
    if options.binary.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    let verdicts = lab::judge(&report);
    for verdict in &verdicts {
        progress.say(&verdict.to_string());
    }
    Ok(if verdicts.iter().all(|verdict| verdict.kept) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Everything that is played.
struct Plan {
    courses: Vec<Course>,
    families: Vec<Family>,
    rtts: Vec<u64>,
}

impl Plan {
    fn of(arguments: &Arguments, place: Option<Place>) -> Self {
        if arguments.all {
            return Self {
                courses: Path::ALL.iter().flat_map(|path| Course::of(*path, None)).collect(),
                families: vec![Family::V4, Family::V6],
                rtts: vec![10, 40, 100],
            };
        }
        Self {
            courses: arguments.path.iter().flat_map(|path| Course::of(*path, place)).collect(),
            families: vec![if arguments.ipv6 { Family::V6 } else { Family::V4 }],
            rtts: arguments.rtt.clone(),
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a number above zero".to_owned())
}

/// A reader that has seen enough is no error.
fn print(text: &str) -> Result<()> {
    match writeln!(stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to standard output"),
    }
}
