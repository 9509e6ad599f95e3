//! `test`: all tests, as root, with everything they need installed.

use std::process::ExitCode;

use crate::{build, clock::timed, lint, packages, shell};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leaves out formatting and lints.
    #[arg(long)]
    no_lint: bool,
    /// Goes to `cargo test` as it is.
    #[arg(last = true)]
    flags: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    packages::install("the tests", &packages::of_the_tests())?;
    let binary = build::daemon(build::Profile::Test)?;
    if !arguments.no_lint {
        lint::check()?;
    }
    let mut test = shell::cargo()?;
    test.args(["test", "--workspace", "--no-fail-fast"]).args(&arguments.flags);
    build::carry_programs(&mut test)?;
    test.env("PREWARM_BIN", &binary);
    if !shell::is_root() {
        // Test-run, namespaces and hand-over need root; building does not.
        let host = build::host_triple()?.to_uppercase().replace('-', "_");
        // Through `env`, since sudo drops what it does not know.
        test.env(format!("CARGO_TARGET_{host}_RUNNER"), format!("sudo env PREWARM_BIN={}", binary.display()));
    }
    let (status, took) = timed(|| shell::status(&mut test));
    let status = status?;
    shell::say(&format!("test: {} in {} s", if status.success() { "passed" } else { "failed" }, took.as_secs()));
    Ok(shell::code_of(status))
}
