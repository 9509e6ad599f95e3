//! What is accessed next, with what probability, and when.
//!
//! Comes in: accesses, each with its time, its client and its resource. Goes out: candidates for what the client
//! accesses within the horizon. Never here: a clock, names (a resource is a number), growth (all memory is set aside at
//! the start), or a training phase: the model predicts before it learns, event by event.

mod arcs;
mod fake;
mod lags;
mod mixture;
mod rates;
mod recent;
mod resources;
mod trials;

use std::net::IpAddr;

pub use fake::Scripted;
pub use mixture::Mixture;

use crate::model::{Prediction, ResourceId, Timestamp};

/// Whose accesses form one sequence: a client's address, or a number of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub u128);

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => Self(address.to_bits()),
        }
    }
}

/// An online predictor.
pub trait Predictor: std::fmt::Debug + Send {
    /// Takes an access in. Time may repeat or run backwards a little; what is older than the last event counts as now.
    fn learn(&mut self, now: Timestamp, client: ClientKey, resource: ResourceId);

    /// Replaces `out` with what `client` is expected to access within the horizon, most probable first, given all
    /// that was learnt.
    fn predict(&mut self, now: Timestamp, client: ClientKey, out: &mut Vec<Prediction>);

    /// Forgets a resource, for instance because its name is to be remembered no longer.
    fn forget(&mut self, resource: ResourceId);

    /// Bytes taken, all included.
    fn bytes(&self) -> usize;
}

#[cfg(test)]
mod tests;
