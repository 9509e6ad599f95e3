//! The parts wired together.
//!
//! Comes in: the configuration. Goes out: a running daemon. Never here: a decision, a protocol, or a format.

mod decide;

pub use decide::{Counters as DeciderCounters, Decider, Decisions};
