//! The test harness.

pub mod bench;
pub mod captures;
pub mod frames;
pub mod kernel;
pub mod parse;
pub mod veth;
