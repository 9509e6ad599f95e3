//! Giving a link thread the punctuality it needs.

use nix::sys::prctl;

/// The lowest real-time priority: above everything that shares the host, below everything that is more urgent.
const PRIORITY: libc::c_int = 1;

/// Gives the calling thread SCHED_FIFO and the finest timer slack; says whether the host allowed the class.
pub(super) fn real_time() -> bool {
    // Ignored by the kernel for real-time threads, and worth 50 µs for others.
    let _finest = prctl::set_timerslack(1);
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    #[expect(unsafe_code, reason = "nix has no sched_setscheduler")]
    // SAFETY: the call reads one sched_param, which outlives it; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) };
    result == 0
}
