//! The harness: what the namespace tests and the lab are made of.
//!
//! In go a topology and a scenario; out come real programs (DNS servers, web servers, proxies, curl, the daemon)
//! running in network namespaces, and what was measured on them. Everything that is started or made on the host has an
//! owner whose drop removes it. What never happens here: a listener, an address or a route outside those namespaces.

pub mod against;
pub mod answering;
pub mod answers;
pub mod bed;
pub mod bench;
pub mod captures;
pub mod cgroup;
pub mod client;
pub mod clock;
pub mod daemon;
pub mod frames;
pub mod interrupt;
pub mod kernel;
pub mod lab;
pub mod link;
pub mod needs;
pub mod netns;
pub mod packages;
pub mod parse;
pub mod path;
pub mod program;
pub mod question;
pub mod recordings;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod servers;
pub mod service;
pub mod suite;
pub mod veth;
pub mod visit;
