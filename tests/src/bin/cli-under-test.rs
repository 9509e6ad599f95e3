//! The command line of prewarm, all but the daemon, as a program of its own: for tests that are built without the
//! `prewarm` binary.

use std::process::ExitCode;

use clap::Parser;
use prewarm_user::cli::{Arguments, code_of, complain};

fn main() -> ExitCode {
    Arguments::parse().command.carry_out().unwrap_or_else(|error| {
        complain(&error);
        code_of(&error)
    })
}
