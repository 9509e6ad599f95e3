//! The parts wired together.
//!
//! Comes in: the configuration. Goes out: a running daemon. Never here: a decision, a protocol, or a format.

mod act;
mod answers;
mod core;
mod daemon;
mod explain;
mod handle;
mod keep;
mod key;
mod memory;
mod numbers;
mod proxies;
mod redirect;
mod sockops;
mod sources;
mod tproxy;
mod uses;
mod warm;
mod ways;
mod why;

pub use daemon::run;
