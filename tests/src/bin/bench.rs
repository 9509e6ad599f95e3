//! `cargo xtask bench NAME`: one benchmark, each case beside its baseline in the same run.
//!
//! A table (or with `--json` one object) goes to standard output, progress to standard error. Exit codes: 0 measured,
//! 2 error or usage, 77 without root.

use std::{
    io::{self, Write as _, stdout},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use prewarm_tests::{
    bench::{self, Row},
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Nanoseconds a packet of the kernel programs, by test-run, against an empty program
    Xdp,
    /// Events a second from ring to intent, the latency between them, and what an idle daemon costs
    Pipeline,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !nix::unistd::geteuid().is_root() {
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

#[expect(clippy::print_stderr, reason = "complaints of a tool belong on standard error")]
fn complain(text: &str) {
    eprintln!("{text}");
}
