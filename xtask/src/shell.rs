//! Running other programs, and saying on standard error what is going on.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, bail};

/// Writes one line of progress to standard error; data alone goes to standard output.
#[expect(clippy::print_stderr, reason = "progress of a tool belongs on standard error")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// The workspace's root.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask lies in the workspace")?.to_path_buf())
}

/// A cargo of the default toolchain, free of what an outer cargo set for its children.
pub(crate) fn cargo() -> anyhow::Result<Command> {
    let mut cargo = Command::new("cargo");
    forget_outer_cargo(&mut cargo);
    cargo.current_dir(root()?);
    Ok(cargo)
}

/// Removes what an outer cargo or rustup sets, so that another toolchain is not led astray by it.
pub(crate) fn forget_outer_cargo(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || matches!(&*name, "CARGO" | "RUSTC" | "RUSTDOC" | "RUSTUP_TOOLCHAIN" | "RUST_RECURSION_COUNT")
        {
            command.env_remove(&key);
        }
    }
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// `program` run as root: as it is when we are root, through `sudo` when not.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--").arg(program);
    sudo
}

/// Runs `command` to its end with our standard streams.
///
/// # Errors
/// When it cannot be started or does not end with status 0; the message names it.
pub(crate) fn check(command: &mut Command) -> anyhow::Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs `command` to its end with our standard streams and gives its status.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn status(command: &mut Command) -> anyhow::Result<ExitStatus> {
    command.status().with_context(|| format!("could not start {}", shown(command)))
}

/// What `command` prints, if it ends with status 0.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The exit code that `status` asks us to pass on; a death by signal is 128 + its number, as in a shell.
pub(crate) fn code_of(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(2);
    ExitCode::from(u8::try_from(code).unwrap_or(2))
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
