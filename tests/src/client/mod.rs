//! The plain client: the least program that uses a connection, so that what is measured is the way and not the program.
//!
//! In: a way and a task; out: one JSON object on standard output. It connects with one blocking call and times nothing
//! but that. It runs as a process of its own (`plain-client`), because ways are chosen by process: `prewarm exec`, a
//! cgroup, a namespace.

pub mod drum;
pub mod exchange;
pub mod fetch;
pub mod forward;
pub mod load;
pub mod misses;
pub mod requests;
pub mod way;

pub use fetch::{Fetched, Request, fetch};
pub use way::{Opened, Opener, Target, Way};

/// What is needed for an exchange: bytes out, bytes in.
pub trait Stream: std::io::Read + std::io::Write {}

impl<S: std::io::Read + std::io::Write> Stream for S {}
