//! `lint`: formatting and lints; warnings are errors.

use std::process::ExitCode;

use crate::shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> anyhow::Result<ExitCode> {
    check()?;
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// When a file is not formatted or a lint fires.
pub(crate) fn check() -> anyhow::Result<()> {
    shell::say("lint: rustfmt");
    shell::check(shell::cargo()?.args(["fmt", "--all", "--check"]))?;
    shell::say("lint: clippy");
    let mut clippy = shell::cargo()?;
    clippy.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    shell::check(&mut clippy)
}
