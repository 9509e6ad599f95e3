//! `prewarm exec`: runs a program whose `connect()` calls may be answered with leases.
//!
//! Comes in: a command line. Goes out: the program, in this very process, so that its number, its exit code, signals
//! and job control are exactly as without us. Never here: a byte of the program's traffic.
//!
//! ```text
//!  prewarm exec ──fork──▶ (gone) ──fork──▶ guardian ──fork──▶ supervisor
//!       │ filter, then listener ───────────────▲                  │ asks the daemon, replaces sockets
//!       ▼ exec                                                    ▼
//!     CMD ── connect() waits in the kernel ──────────────────▶ answered
//! ```

mod board;
mod carry;
mod filter;
mod fitness;
mod guardian;
mod launch;
mod listener;
mod supervisor;
mod tally;
mod target;

use std::ffi::CStr;

pub use launch::{ExecError, Plan, run};

/// Sets the name that `ps` and `top` show.
fn call_me(name: &CStr) {
    let _only_for_people = nix::sys::prctl::set_name(name);
}

/// Ends this process at once: what a forked copy would run on a normal exit belongs to the process it was copied from.
fn leave(code: i32) -> ! {
    #[expect(unsafe_code, reason = "_exit(2)")]
    // SAFETY: ends the process and touches nothing.
    unsafe {
        libc::_exit(code)
    }
}
