//! `bench` and `lab`: measurements, each beside its baseline in the same run.

use std::process::ExitCode;

use crate::{build, packages, shell};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which: `xdp`, `pipeline`, `exec`.
    name: String,
    /// One JSON object on standard output instead of a table.
    #[arg(long)]
    json: bool,
    /// Flags of the bench itself.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
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
    let mut flags = vec![arguments.name.clone()];
    if arguments.json {
        flags.push("--json".to_owned());
    }
    flags.extend(arguments.flags.iter().cloned());
    measure("bench", &flags)
}

pub(crate) fn lab(arguments: &LabArguments) -> anyhow::Result<ExitCode> {
    packages::install("the lab", &packages::of_the_tests())?;
    measure("lab", &arguments.flags)
}

/// Builds `binary` of the harness beside the daemon and runs it as root.
fn measure(binary: &str, flags: &[String]) -> anyhow::Result<ExitCode> {
    let daemon = build::daemon(build::Profile::Release)?;
    let harness = build::harness(binary)?;
    // Through `env`, since sudo drops what it does not know.
    let mut binary = std::ffi::OsString::from("PREWARM_BIN=");
    binary.push(daemon);
    let mut command = shell::as_root("env");
    command.arg(binary).arg(harness).args(flags);
    Ok(shell::code_of(shell::status(&mut command)?))
}
