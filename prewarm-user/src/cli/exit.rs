//! Exit codes.

use std::{io, process::ExitCode};

/// All is well.
pub const FINE: u8 = 0;
/// Unhealthy, or nothing found.
pub(crate) const UNHEALTHY: u8 = 1;
/// An error, bad input or bad usage.
const ERROR: u8 = 2;
/// A privilege is missing (EX_NOPERM of sysexits.h).
const PRIVILEGE: u8 = 77;

/// What only root, or a process with the named capabilities, may do.
#[derive(Debug, thiserror::Error)]
#[error("{what} needs {needs}\nhint: run it as root, through sudo")]
pub struct MissingPrivilege {
    /// What was to be done.
    pub what: &'static str,
    /// What it needs.
    pub needs: &'static str,
}

/// The exit code that `error` ends in. A reader that stopped reading is none.
#[must_use]
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    if error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(broken_pipe) {
        return ExitCode::from(FINE);
    }
    let forbidden = error.chain().any(|cause| {
        cause.is::<MissingPrivilege>()
            || matches!(cause.downcast_ref(), Some(crate::control::ClientError::Forbidden { .. }))
    });
    ExitCode::from(if forbidden { PRIVILEGE } else { ERROR })
}

/// Tells a person what went wrong, with its causes; a hint stays on a line of its own.
#[expect(clippy::print_stderr, reason = "complaints belong on standard error")]
pub fn complain(error: &anyhow::Error) {
    let mut text = String::new();
    let mut hints = String::new();
    for (depth, cause) in error.chain().enumerate() {
        let cause = cause.to_string();
        let (message, hint) = cause.split_once("\nhint: ").unwrap_or((&cause, ""));
        text.push_str(if depth == 0 { "error: " } else { ": " });
        text.push_str(message);
        if !hint.is_empty() {
            hints.push_str("\nhint: ");
            hints.push_str(hint);
        }
    }
    eprintln!("{text}{hints}");
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_cause_decides() {
        let code = |error: anyhow::Error| format!("{:?}", code_of(&error));
        let broken: Result<(), io::Error> = Err(io::ErrorKind::BrokenPipe.into());
        assert_eq!(code(broken.context("writing").unwrap_err()), format!("{:?}", ExitCode::from(FINE)));
        let forbidden: Result<(), _> = Err(MissingPrivilege { what: "attaching", needs: "CAP_BPF" });
        assert_eq!(code(forbidden.context("starting").unwrap_err()), format!("{:?}", ExitCode::from(PRIVILEGE)));
        assert_eq!(code(anyhow::anyhow!("no")), format!("{:?}", ExitCode::from(ERROR)));
    }
}
