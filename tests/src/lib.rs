//! The test harness.

pub mod bench;
