//! What prewarm would have done on recorded traffic.
//!
//! Comes in: recordings. Goes out: what would have been saved, and at which cost; the replay metric that the bench of
//! the predictor shares. Never here: a decision (those are `decide`'s, the same that the daemon runs), a socket, a clock.

pub mod baselines;
mod curves;
mod leases;
pub mod metric;
mod names;
mod player;
mod plot;
pub mod report;
mod rows;
mod running;
mod tally;

pub use curves::{Curve, Curved, Curves};
pub use player::{Accessed, Assumed, Player};
pub use plot::{PlotError, svg};
pub use rows::rows;
pub use running::{Calibrating, Running};
pub use tally::{Leases, LookUps, Share, Tally, Traffic, Waited};

/// One access of a trace.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Seconds.
    pub at: f64,
    /// The client's number.
    pub client: u32,
    /// The resource's number, dense.
    pub resource: u32,
}

/// What a model says after each event: names with scores, best first.
pub type Said = Vec<Vec<(u32, f32)>>;
