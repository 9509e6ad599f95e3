//! The one clock of the harness, and the one way to wait: for a state, with a limit.
//!
//! Times are `CLOCK_MONOTONIC`, which all namespaces share. Pacing (the gap a visitor leaves, the pause before a name
//! has expired) is part of the load, so [`pause`] exists; nothing uses it to guess that something is ready.

use std::time::Duration;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// How often a state is looked at while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The time now, since an arbitrary point shared by all processes of this host.
///
/// # Panics
/// When the kernel has no monotonic clock, which Linux always has.
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has CLOCK_MONOTONIC").into()
}

/// Sleeps to the given point of [`now`], to within the timer slack of the thread.
pub fn sleep_until(deadline: Duration) {
    let deadline = TimeSpec::from(deadline);
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &deadline) == Err(Errno::EINTR)
    {
    }
}

/// Leaves a gap of this length in the load.
pub fn pause(gap: Duration) {
    sleep_until(now() + gap);
}

/// Looks at a state until it is there, and says what was missing when the limit passes.
///
/// # Errors
/// When the limit passes or when the look itself fails.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = now() + limit;
    loop {
        if let Some(state) = look()? {
            return Ok(state);
        }
        if now() >= deadline {
            bail!("{what}: not there after {:.1} s", limit.as_secs_f64());
        }
        pause(LOOK_EVERY);
    }
}
