//! Observations and frames from other places than the kernel.
//!
//! Comes in: files. Goes out: frames with their number, time and link type; observations of recordings. Never here: a
//! decision, or a packet sent.

mod blocks;
mod capture;
pub mod recording;

pub use capture::{Capture, CaptureError, ETHERNET, Frame};
