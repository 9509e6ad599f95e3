//! `cargo xtask VERB`: everything that is done with the sources, one file a verb.
//!
//! Comes in: a verb and its flags. Goes out: a built, running, tested or measured prewarm; progress on standard error.
//! Never here: code that the daemon needs. On a bare machine `run` and `test` do all the set-up there is.

mod bench;
mod build;
mod clock;
mod lint;
mod packages;
mod run;
mod setup;
mod shell;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, runs, tests and measures prewarm.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Finds or installs what building needs; does nothing where all is there.
    Setup(setup::Arguments),
    /// Builds the kernel programs and the daemon that carries them.
    Build(build::Arguments),
    /// Builds, then runs the daemon as root; without `--iface`, on the interface of the default route.
    Run(run::Arguments),
    /// Runs all tests, installing what they need.
    Test(test::Arguments),
    /// Checks formatting and lints, as the tests do.
    Lint(lint::Arguments),
    /// Plays cold against warm in network namespaces, with real servers behind a delayed link.
    Lab(bench::LabArguments),
    /// Runs a benchmark, its baseline in the same run.
    Bench(bench::Arguments),
    /// Loads, runs and attaches every kernel program on the kernels that are supported, in guests.
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::Build(arguments) => build::run(&arguments),
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Lint(arguments) => lint::run(&arguments),
        Verb::Lab(arguments) => bench::lab(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Vm(arguments) => vm::run(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            shell::say(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}
