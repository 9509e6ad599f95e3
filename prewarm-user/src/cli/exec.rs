//! `prewarm exec -- CMD`: runs a program with leases.

use std::{ffi::OsString, fs::File, io::Write, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args as ClapArgs;

use crate::handover::{
    client::daemon_listens,
    exec::{self, Plan},
    source::Patience,
};

/// Runs a program whose connections are open before it asks for them.
///
/// The program needs no change and sees nothing: where a lease to the address it connects to is waiting, its socket is
/// replaced by the open one inside its own connect(); everything else goes on as without prewarm. Its exit code is
/// handed on. Without root the program can't gain privileges (sudo does not work in it). Exit code 127 means it was not found, 126 that it can't be executed, 2 that prewarm failed before it ran.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", env = "PREWARM_SOCKET", default_value = "/run/prewarm/control.sock")]
    pub socket: PathBuf,
    /// How long a connect() may wait for the daemon's answer, in milliseconds, before it goes on as without prewarm.
    /// Unless given, as long as the lease would save, between 2 and 50 ms.
    #[arg(long, value_name = "MS")]
    pub patience: Option<u64>,
    /// Say nothing when the program has to run without leases.
    #[arg(short, long)]
    pub quiet: bool,
    /// Write what became of each connect(), counted by reason, as one JSON object, when the program has ended.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// The flag's meaning.
pub(super) fn patience_of(flag: Option<u64>) -> Patience {
    flag.map_or(Patience::Worth, |milliseconds| Patience::Fixed(Duration::from_millis(milliseconds)))
}

/// Becomes the program; returns only when that failed. Must be called before any thread is started: no runtime.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let Args { socket, patience, quiet, report, command } = args;
    // Where standard error is closed there is nobody to tell.
    let say = |text: &str| drop(writeln!(std::io::stderr(), "prewarm: {text}"));
    let report = match report.map(File::create).transpose() {
        Ok(report) => report,
        Err(error) => {
            say(&format!("the report can't be written: {error}"));
            return ExitCode::from(2);
        }
    };
    if !quiet && !daemon_listens(&socket) {
        say(&format!(
            "no daemon at {}: connections are opened as without prewarm until there is one; hint: prewarm run",
            socket.display()
        ));
    }
    let error = exec::run(Plan { command, socket, patience: patience_of(patience), report }, |reason| {
        if !quiet {
            say(reason);
        }
    });
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        text = format!("{text}: {source}");
    }
    say(&text);
    ExitCode::from(error.exit_code())
}
