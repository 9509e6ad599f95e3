//! Observations and frames from other places than the kernel.
//!
//! Comes in: files. Goes out: frames with their number, time and link type. Never here: what is in a frame.

mod blocks;
mod capture;

pub use capture::{Capture, CaptureError, ETHERNET, Frame};
