//! `prewarm exec` as a program of its own, for tests that are built without the `prewarm` binary.

use std::process::ExitCode;

use clap::Parser;
use prewarm_user::cli::exec::{Args, run};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    run(Cli::parse().args)
}
