//! What is accessed next, with what probability, and when.
//!
//! Comes in: accesses, each with its time, its client and its resource. Goes out: candidates for what the client
//! accesses within the horizon. Never here: a clock, names (a resource is a number), growth (all memory is set aside at
//! the start), or a training phase: the model predicts before it learns, event by event.

mod arcs;
mod correction;
mod explain;
mod fake;
mod features;
mod followers;
mod gather;
mod habits;
mod host;
mod lags;
mod mixture;
mod network;
mod recent;
mod resources;
mod sequences;
mod snapshot;
mod trials;
mod weights;

use std::{net::IpAddr, time::Duration};

pub use explain::{Effect, Explanation, Heard, Order, Reason, Rhythm, Vote};
pub use fake::Scripted;
pub use features::{FEATURES, Features};
pub use followers::Follower;
pub use lags::Timing;
pub use mixture::Mixture;
pub use sequences::Sequences;
pub use snapshot::SnapshotError;

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

/// What it is worth to make a resource ready now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// What.
    pub resource: ResourceId,
    /// The probability that a copy made now is used before it goes cold, given that no better moment to make it comes:
    /// what a price for making it is held against, 0 to 1.
    pub worth: f32,
    /// When it comes, if it comes.
    pub timing: Timing,
}

/// Copies that last for less are made when most accesses find them, others at once: measured by `bench predict --timing`.
const SHORT: Duration = Duration::from_secs(5);

impl Outlook {
    /// How to make a copy ready that takes `lead` and lasts for `hold`: how long to wait, and what it is worth then.
    #[must_use]
    pub fn plan(&self, lead: Duration, hold: Duration) -> (Duration, f32) {
        if hold >= SHORT {
            return (Duration::ZERO, self.worth);
        }
        let (start, share) = self.timing.best_start(lead, hold);
        (start, self.worth * share)
    }
}

/// An online predictor.
pub trait Predictor: std::fmt::Debug + Send {
    /// Takes an access in. Time may repeat or run backwards a little; what is older than the last event counts as now.
    fn learn(&mut self, now: Timestamp, client: ClientKey, resource: ResourceId);

    /// Replaces `out` with what `client` is expected to access within the horizon, most probable first, given all
    /// that was learnt.
    fn predict(&mut self, now: Timestamp, client: ClientKey, out: &mut Vec<Prediction>);

    /// What making ready is worth now, for the candidates of the last prediction, best first; empty if the predictor
    /// does not tell it apart from the probability.
    fn outlooks(&self) -> &[Outlook] {
        &[]
    }

    /// Why it says what it says of this client's next accesses, best worth first: after the latest access, or with
    /// `last` of two and more as if that many less one had not been yet. With `resource`, of this one only, be it a
    /// candidate or not. Changes nothing; empty if the predictor can't tell.
    fn explain(
        &mut self,
        _now: Timestamp,
        _client: ClientKey,
        _last: Option<usize>,
        _resource: Option<ResourceId>,
    ) -> Explanation {
        Explanation::default()
    }

    /// What followed a resource so far, whoever accessed it, most often first; empty if the predictor can't tell.
    fn followers(&self, _resource: ResourceId) -> Vec<Follower> {
        Vec::new()
    }

    /// Forgets a resource, for instance because its name is to be remembered no longer.
    fn forget(&mut self, resource: ResourceId);

    /// Writes what was learnt, to be read again after a restart; a predictor that keeps nothing writes nothing.
    ///
    /// # Errors
    /// When `to` does not take it.
    fn save(&self, _to: &mut dyn std::io::Write) -> std::io::Result<()> {
        Ok(())
    }

    /// Bytes taken, all included.
    fn bytes(&self) -> usize;
}

#[cfg(test)]
mod tests;
