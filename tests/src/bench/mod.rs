//! The benches: each gives rows, with its baselines as further subjects of the same case and metric.

pub mod answers;
pub mod behaviours;
pub mod handover;
pub mod live;
pub mod pipeline;
pub mod predict;
mod table;
pub mod xdp;

pub use table::render;

pub use crate::report::Row;

/// Nanoseconds of processor time of this thread: what a core of one's own would take, whatever else runs.
fn nanos() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
