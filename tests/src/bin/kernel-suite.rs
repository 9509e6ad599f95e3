//! The suite that every kernel must pass, for the kernel that is running: `kernel-suite run [--json]`. It is also the
//! first process of the guests that `cargo xtask vm` boots.

use std::{io::Write as _, net::SocketAddr, process::ExitCode};

use clap::Parser;
use prewarm_tests::suite::{self, report};

#[derive(Debug, Parser)]
enum Verb {
    /// Loads, runs and attaches every kernel program, and says what came of it.
    Run {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Is the first process of a guest.
    #[command(hide = true)]
    Guest,
    /// Connects there, in a cgroup that the suite made.
    #[command(hide = true)]
    Connect {
        /// Where to.
        to: SocketAddr,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    match Verb::parse() {
        Verb::Run { json } => {
            let report = suite::run()?;
            if json {
                writeln!(out, "{}", serde_json::to_string(&report)?)?;
            } else {
                writeln!(out, "{}", report::table(std::slice::from_ref(&report)))?;
            }
            return Ok(ExitCode::from(u8::from(!report.complaints().is_empty())));
        }
        Verb::Guest => suite::guest::be()?,
        Verb::Connect { to } => writeln!(out, "{}", suite::connect(to)?)?,
    }
    Ok(ExitCode::SUCCESS)
}
