//! The `prewarm` binary.

use std::{io, process::ExitCode};

use clap::Parser;
use prewarm_user::cli::dissect::Dissect;

#[derive(Parser)]
#[command(version, about)]
enum Cli {
    Dissect(Dissect),
}

fn main() -> ExitCode {
    let Cli::Dissect(dissect) = Cli::parse();
    dissect.run(&mut io::stdout().lock(), &mut io::stderr().lock())
}
