//! `bench` and `lab`: measurements, each beside its baseline in the same run.

use std::process::ExitCode;

use crate::{build, packages, shell};

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Which one, and its flags; `--help` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "NAME")]
    flags: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct LabArguments {
    /// Flags of the lab; `--help` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    packages::install("the benches", &packages::of_the_tests())?;
    measure("bench", &arguments.flags)
}

pub(crate) fn lab(arguments: &LabArguments) -> anyhow::Result<ExitCode> {
    packages::install("the lab", &packages::of_the_tests())?;
    measure("lab", &arguments.flags)
}

/// Builds `binary` of the harness beside the daemon and runs it as root.
fn measure(binary: &str, flags: &[String]) -> anyhow::Result<ExitCode> {
    let daemon = build::daemon(build::Profile::Release)?;
    // What the harness starts lies beside it.
    let _client = build::harness("plain-client")?;
    let harness = build::harness(binary)?;
    // Through `env`, since sudo drops what it does not know.
    let mut binary = std::ffi::OsString::from("PREWARM_BIN=");
    binary.push(daemon);
    let mut command = shell::as_root("env");
    command.arg(binary).arg(harness).args(flags);
    Ok(shell::code_of(shell::status(&mut command)?))
}
