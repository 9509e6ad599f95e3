//! `cargo xtask bench NAME`: one benchmark, each case beside its baseline in the same run.
//!
//! A table (or with `--json` one object) goes to standard output, progress to standard error. Exit codes: 0 measured,
//! 2 error or usage, 77 without root.

use std::{
    io::{self, Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use prewarm_tests::{
    bench::{self, Row, predict::sequences},
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
    /// A trace for `predict`: time, client and resource separated by tabs; repeatable
    #[arg(long)]
    trace: Vec<PathBuf>,
    /// A file of sequences for `predict`: integers, one sequence a line
    #[arg(long)]
    sequences: Option<PathBuf>,
    /// Items that a prediction in sequences is made from
    #[arg(long, default_value_t = 5)]
    window: usize,
    /// Last items of a sequence of which the prediction must be one
    #[arg(long, default_value_t = 1)]
    consequent: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Nanoseconds a packet of the kernel programs, by test-run, against an empty program
    Xdp,
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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let (name, rows) = match arguments.name {
        Name::Xdp => ("xdp", bench::xdp::run()?),
        Name::Pipeline => ("pipeline", pipeline()?),
        Name::Predict => ("predict", predict(arguments)?),
    };
    let mut report = Report::new(name);
    report.results = rows;
    let text = if arguments.json { serde_json::to_string(&report)? } else { bench::render(&report) };
    match writeln!(stdout(), "{text}") {
        // A reader that has seen enough is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to standard output"),
    }
}

/// The whole pipeline, beside its deciding half alone.
fn pipeline() -> Result<Vec<Row>> {
    let mut rows = bench::live::run()?;
    rows.extend(bench::pipeline::run());
    Ok(rows)
}

/// The traces and sequences named, else those of the shared folder, else made-up ones.
fn predict(arguments: &Arguments) -> Result<Vec<Row>> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let sequences = arguments.sequences.iter().cloned().map(|path| sequences::Set {
        path,
        window: arguments.window,
        consequent: arguments.consequent,
    });
    let (mut traces, mut sets) = (arguments.trace.clone(), sequences.collect::<Vec<_>>());
    if traces.is_empty() && sets.is_empty() {
        let folder = [shared, PathBuf::from("/work/shared/data")].into_iter().find(|folder| folder.is_dir());
        let Some(folder) = folder else {
            return Ok(bench::predict::trace("generated", &bench::predict::generated::events()));
        };
        traces = bench::predict::traces(&folder);
        sets = sequences::sets(&folder.join("ipredict"));
    }
    let mut rows = bench::predict::run(&traces)?;
    rows.extend(sequences::run(&sets)?);
    Ok(rows)
}

#[expect(clippy::print_stderr, reason = "complaints of a tool belong on standard error")]
fn complain(text: &str) {
    eprintln!("{text}");
}
