//! The daemon and the command line of prewarm: what is asked on a network interface is seen, what comes next is
//! predicted, and made ready before anyone asks.
//!
//! Parts stand in layers; a part imports only what stands above it here (`tests/tests/layers.rs` keeps that). The
//! table and the reasons are in `docs/ARCHITECTURE.md`.

pub mod app;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod decide;
pub mod handover;
pub mod history;
pub mod kernel;
pub mod lease;
pub mod model;
pub mod observe;
pub mod policy;
pub mod predict;
pub mod replay;
pub mod resolve;
pub mod telemetry;
