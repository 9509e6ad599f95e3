//! `cargo xtask bench NAME`: one benchmark, each case beside its baseline in the same run.
//!
//! A table (or with `--json` one object) goes to standard output, progress to standard error. Exit codes: 0 measured
//! and every promise kept, 1 one was broken, 2 error or usage, 77 without root, 130 interrupted.

use std::{
    io::{self, Write as _, stdout},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use prewarm_tests::{
    bench::{self, Row},
    daemon,
    interrupt::{self, Interrupted},
    path::Path,
    report::Report,
};

/// A benchmark.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Which
    #[arg(value_enum)]
    name: Name,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Only these ways (handover); several may be given
    #[arg(long, value_enum, value_delimiter = ',')]
    path: Vec<Path>,
    /// Rounds in which the subjects take turns (handover)
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Instead of measuring: so many transfers of random size with half-close over each way, checked by hash (handover)
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10000")]
    integrity: Option<u32>,
    /// Instead of measuring: so many requests to origins of every kind, cold and over each way (handover)
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1000", conflicts_with = "integrity")]
    behaviours: Option<u32>,
    /// Instead of measuring: so many questions of every kind, each asked with and without the kernel's answers (answers)
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "100000")]
    differential: Option<u32>,
    #[command(flatten)]
    predict: bench::predict::Flags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Nanoseconds a packet of the kernel programs, by test-run, against an empty program
    Xdp,
    /// What each way out costs, against a direct connection and a plain forwarder
    Handover,
    /// Answers of the kernel, against resolvers that answer from their caches
    Answers,
    /// Events a second from ring to intent, the latency between them, and what an idle daemon costs
    Pipeline,
    /// What the predictor would have made ready on recorded accesses, and what it says of sequences
    Predict,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.name != Name::Predict && !nix::unistd::geteuid().is_root() {
        complain("error: loading kernel programs needs root\nhint: sudo, or run it as root in a container");
        return ExitCode::from(77);
    }
    match run(&arguments) {
        Ok(code) => code,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(130),
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (name, rows) = match arguments.name {
        Name::Xdp => ("xdp", bench::xdp::run()?),
        Name::Handover => ("handover", handover(arguments)?),
        Name::Pipeline => ("pipeline", pipeline()?),
        Name::Answers => ("answers", answers(arguments)?),
        Name::Predict => ("predict", arguments.predict.run()?),
    };
    let mut report = Report::new(name);
    report.results = rows;
    let text = if arguments.json { serde_json::to_string(&report)? } else { bench::render(&report) };
    match writeln!(stdout(), "{text}") {
        // A reader that has seen enough is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.context("write to standard output")?,
    }
    let judged = bench::handover::judge(&report);
    for promise in &judged {
        complain(&promise.to_string());
    }
    Ok(ExitCode::from(u8::from(judged.iter().any(|promise| !promise.kept))))
}

/// The ways out, one after the other.
fn handover(arguments: &Arguments) -> Result<Vec<Row>> {
    interrupt::watch()?;
    let binary = daemon::binary().context("PREWARM_BIN is not set; cargo xtask bench sets it")?;
    let paths = if arguments.path.is_empty() { &Path::ALL[..] } else { &arguments.path };
    match (arguments.integrity, arguments.behaviours) {
        (Some(count), _) => bench::handover::integrity(&binary, paths, count, &complain),
        (_, Some(count)) => bench::behaviours::run(&binary, paths, count, &complain),
        (None, None) => bench::handover::run(&binary, paths, arguments.rounds, &complain),
    }
}

/// Answers of the kernel.
fn answers(arguments: &Arguments) -> Result<Vec<Row>> {
    interrupt::watch()?;
    match arguments.differential {
        Some(count) => bench::answers::differential(count, &complain),
        None => bench::answers::run(&complain),
    }
}

/// The whole pipeline, beside its deciding half alone.
fn pipeline() -> Result<Vec<Row>> {
    let mut rows = bench::live::run()?;
    rows.extend(bench::pipeline::run());
    Ok(rows)
}

#[expect(clippy::print_stderr, reason = "complaints of a tool belong on standard error")]
fn complain(text: &str) {
    eprintln!("{text}");
}
