//! Observations and frames from other places than the kernel.
//!
//! Comes in: files; bytes that a DNS server writes. Goes out: frames with their number, time and link type; what DNS
//! messages ask and answer; the observations of recordings. Never here: a decision, or a packet sent.

mod blocks;
mod capture;
pub mod dnstap;
mod merge;
pub mod message;
pub mod recording;

pub use capture::{Capture, CaptureError, ETHERNET, Frame};
pub use merge::{Around, HOLD, Merge, MergeCounters, Teller, WINDOW};
