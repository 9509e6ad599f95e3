//! The suite that every kernel must pass: each program is loaded by itself, run over packets where that can be, and put
//! where it belongs. It needs nothing but the binary it is in, `ip` and `tc`, so it runs in a guest without a system.
//!
//! Comes in: nothing. Goes out: a [`Report`]. Never here: which kernel it is, or a check left out on an old one.

pub mod guest;
mod live;
mod redirected;
pub mod report;
mod runs;

use anyhow::Context as _;
use prewarm_ebpf::{
    abi::{BENCH_NEW, BENCH_VARY, EGRESS, INGRESS, PASS, SOCKOPS},
    answers::{BENCH_ANSWER, BENCH_DROP, BENCH_RESTORE, BENCH_TAIL},
    getaddrinfo::{LOOKUP_ANSWERED, LOOKUP_ASKED},
    redirect::{CONNECT4, CONNECT6, PEERNAME4, PEERNAME6, SOCKNAME4, SOCKNAME6},
    tproxy::TPROXY,
};
use prewarm_user::kernel::{Key, Settings, Trial, object};
pub use redirected::connect;
use report::{Check, Program, Report};

/// Each program of the object: its name, what it is, and how many instructions its verifier walks at least.
pub const PROGRAMS: [(&str, &str, u32); 19] = [
    (INGRESS, "xdp", 1000),
    (EGRESS, "tc", 1000),
    (TPROXY, "tc", 100),
    (SOCKOPS, "sock_ops", 100),
    (CONNECT4, "cgroup", 10),
    (CONNECT6, "cgroup", 10),
    (PEERNAME4, "cgroup", 10),
    (PEERNAME6, "cgroup", 10),
    (SOCKNAME4, "cgroup", 10),
    (SOCKNAME6, "cgroup", 10),
    (LOOKUP_ASKED, "uprobe", 20),
    (LOOKUP_ANSWERED, "uprobe", 100),
    (PASS, "xdp", 1),
    (BENCH_NEW, "xdp", 1000),
    (BENCH_VARY, "xdp", 10),
    (BENCH_ANSWER, "xdp", 1000),
    (BENCH_RESTORE, "xdp", 10),
    (BENCH_TAIL, "xdp", 4),
    (BENCH_DROP, "xdp", 4),
];

/// Something to try with programs.
struct Trying {
    /// Whose work it is.
    programs: &'static [&'static str],
    /// What must be so.
    what: &'static str,
    /// How that is found out.
    run: fn() -> anyhow::Result<()>,
}

/// Runs everything on this kernel.
///
/// # Errors
/// When it can't be tried at all: without the kernel programs, or without root.
pub fn run() -> anyhow::Result<Report> {
    if let Some(reason) = crate::kernel::missing() {
        anyhow::bail!("{reason}");
    }
    let object = object().context("built without the kernel programs")?;
    let mut programs: Vec<_> = PROGRAMS.into_iter().map(|row| load(object, row)).collect();
    for Trying { programs: whose, what, run } in runs::ALL.iter().chain(live::ALL).chain(redirected::ALL) {
        let failed = outcome(*run);
        for program in programs.iter_mut().filter(|program| whose.contains(&program.name.as_str())) {
            program.checks.push(Check { what: (*what).to_owned(), failed: failed.clone() });
        }
    }
    let kernel = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    Ok(Report { kernel, programs, tests: Vec::new() })
}

/// What the verifier says of one program, with all that can be switched on, which is more than any daemon has to walk.
fn load(object: &[u8], (name, kind, least): (&'static str, &str, u32)) -> Program {
    let settings = Settings { answers: 8192, ..Settings::new(Key::from_secret(&[1; 32])) };
    let trial = Trial::load(object, &settings, &[name]);
    let size = trial.as_ref().ok().and_then(|trial| trial.size(name));
    Program {
        name: name.to_owned(),
        kind: kind.to_owned(),
        walked: size.map(|(walked, _)| walked),
        least,
        native: size.map(|(_, native)| native),
        refused: trial.err().map(|error| error.to_string()),
        checks: Vec::new(),
    }
}

fn outcome(run: fn() -> anyhow::Result<()>) -> Option<String> {
    match std::panic::catch_unwind(run) {
        Ok(done) => done.err().map(|error| shown(&error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(text.unwrap_or_else(|| "it panicked".to_owned()))
        }
    }
}

/// An error with what it comes from, each part once: some say what theirs said before.
fn shown(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for part in error.chain().map(ToString::to_string).filter(|part| !part.is_empty()) {
        if !text.contains(&part) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&part);
        }
    }
    text
}
