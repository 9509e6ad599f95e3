//! What is accessed next, with what probability, and when.
//!
//! Comes in: accesses, each with its time, its client and its resource. Goes out: candidates for what the client
//! accesses within the horizon. Never here: a clock, names (a resource is a number), growth (all memory is set aside at
//! the start), or a training phase: the model predicts before it learns, event by event.

mod agenda;
mod arcs;
mod correction;
mod due;
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
mod seasons;
mod sequences;
mod snapshot;
mod trials;
mod weights;

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

pub use explain::{Effect, Explanation, Heard, Order, Reason, Rhythm, Vote};
pub use fake::Scripted;
pub use features::{FEATURES, Features};
pub use followers::Follower;
pub use mixture::Mixture;
pub use sequences::Sequences;
pub use snapshot::SnapshotError;

use crate::model::{Prediction, ResourceId, Timestamp, Timing};

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

impl ClientKey {
    /// The address, if it is one's.
    #[must_use]
    pub fn address(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(self.0)).to_canonical()
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

/// Something that is due by the clock, though no access announces it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Due {
    /// Who is expected to access it.
    pub client: ClientKey,
    /// What, how probably, and when.
    pub prediction: Prediction,
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

    /// Tells the time on the wall: how long after the beginning of 1970 (UTC) the monotonic clock began, and by how many
    /// seconds local time is ahead of UTC. To be told at the start and when either is changed. Until then times of day
    /// and days of the week are not used.
    fn set_wall_clock(&mut self, _since_1970: Duration, _utc_offset_seconds: i32) {}

    /// Replaces `out` with what is due by its own rhythm or the time of day, though no access announces it: each is told
    /// once, shortly before its time. Wanted at [`Self::next_due`], and about once a second does no harm.
    fn due(&mut self, _now: Timestamp, out: &mut Vec<Due>) {
        out.clear();
    }

    /// When [`Self::due`] is wanted next, as far as is known now.
    fn next_due(&self, _now: Timestamp) -> Option<Timestamp> {
        None
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
#[cfg(test)]
mod tests_by_the_clock;
#[cfg(test)]
mod tests_properties;
