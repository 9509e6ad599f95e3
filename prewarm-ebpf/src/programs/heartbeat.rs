//! Whether the daemon is alive, for programs that change anything.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use prewarm_ebpf::redirect::STALE;

use crate::maps::HEARTBEAT;

/// Whether the daemon has beaten lately. A stopped or hung daemon does not, and a program that would hand it a
/// connection then leaves that alone.
#[inline(always)]
pub(crate) fn is_fresh() -> bool {
    // SAFETY: the helper takes nothing and only reads a clock.
    is_fresh_at(unsafe { bpf_ktime_get_ns() })
}

/// The same at a time that was read before, in nanoseconds on the monotonic clock.
#[inline(always)]
pub(crate) fn is_fresh_at(now: u64) -> bool {
    let Some(beat) = HEARTBEAT.get_ptr(0) else { return false };
    // SAFETY: inside the map; a word that user space writes at any time, so read as it is now.
    let beat = unsafe { beat.read_volatile() };
    // Another processor may have beaten since the clock was read here.
    beat != 0 && (beat > now || now - beat <= STALE)
}
