//! Real-time scheduling: punctuality on a host that is busy with something else.

use nix::sys::prctl;

/// For programs under test: above everything that shares the host. Children inherit it.
pub const PROGRAMS: i32 = 1;

/// For the link between them, on which their times depend.
pub const LINK: i32 = 2;

/// Gives the calling thread a real-time class of this priority (round robin, so that equals share) and the finest timer
/// slack; says whether the host allowed the class.
pub fn real_time(priority: i32) -> bool {
    // Ignored by the kernel for real-time threads, and worth 50 µs for others.
    let _finest = prctl::set_timerslack(1);
    let parameters = libc::sched_param { sched_priority: priority };
    #[expect(unsafe_code, reason = "nix has no sched_setscheduler")]
    // SAFETY: the call reads one sched_param, which outlives it; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &parameters) };
    result == 0
}
