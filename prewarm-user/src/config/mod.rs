//! Settings.

pub mod lease;
