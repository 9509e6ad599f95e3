//! The test harness.

pub mod bench;
pub mod frames;
