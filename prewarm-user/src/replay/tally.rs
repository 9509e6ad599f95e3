//! What a replay counts.

use std::{collections::HashSet, net::IpAddr, time::Duration};

pub use super::{leases::Leases, names::LookUps};
use crate::model::{Name, ResourceId, ResourceMap, Timestamp};

/// Names and clients told apart; beyond that many, the rest is not counted apart.
const MANY: usize = 1 << 20;
/// Names whose savings are kept.
const LISTED: usize = 1 << 16;

/// Time waited without prewarm and with it, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waited {
    /// Without.
    pub cold: f64,
    /// With.
    pub warm: f64,
}

impl Waited {
    /// Adds what one access waited.
    pub(super) fn add(&mut self, cold: Duration, warm: Duration) {
        self.cold += cold.as_secs_f64() * 1000.0;
        self.warm += warm.as_secs_f64() * 1000.0;
    }

    /// The difference.
    #[must_use]
    pub fn saved(&self) -> f64 {
        self.cold - self.warm
    }
}

/// What the traffic was.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Questions, those that are folded into another's included.
    pub questions: u64,
    /// Questions that belong to an event that another began.
    pub folded: u64,
    /// Answers.
    pub answers: u64,
    /// Connections.
    pub connections: u64,
    /// Connections to an address that no answer named.
    pub nameless: u64,
    /// Clients that named whom they connect to.
    pub named: u64,
    /// Questions of types that lead to no connection (PTR, MX, TXT …).
    pub other_types: u64,
    /// Time of the first and the last, on the replay's clock.
    pub first: Option<Timestamp>,
    /// See above.
    pub last: Timestamp,
    clients: HashSet<IpAddr>,
    names: HashSet<ResourceId>,
}

impl Traffic {
    pub(super) fn client(&mut self, client: IpAddr) {
        if self.clients.len() < MANY {
            self.clients.insert(client);
        }
    }

    pub(super) fn name(&mut self, resource: ResourceId) {
        if self.names.len() < MANY {
            self.names.insert(resource);
        }
    }

    /// Clients told apart.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Names told apart.
    #[must_use]
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// From the first to the last.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.first.map_or(Duration::ZERO, |first| self.last.since(first))
    }
}

/// A name's part in what was saved.
#[derive(Clone, Debug)]
pub struct Share {
    /// The name.
    pub name: Name,
    /// Accesses.
    pub accesses: u64,
    /// Those that found nothing ready, without prewarm and with it.
    pub misses: [u64; 2],
    /// Milliseconds saved by names.
    pub look_ups_ms: f64,
    /// Connections that were taken from those opened ahead.
    pub leases_used: u64,
    /// Milliseconds saved by connections.
    pub leases_ms: f64,
}

impl Share {
    /// Milliseconds saved.
    #[must_use]
    pub fn saved(&self) -> f64 {
        self.look_ups_ms + self.leases_ms
    }
}

/// All counts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The traffic.
    pub traffic: Traffic,
    /// Accesses of names.
    pub accesses: u64,
    /// Accesses that found nothing ready, without prewarm.
    pub misses_cold: u64,
    /// With it.
    pub misses_warm: u64,
    /// Time waited for names.
    pub names_waited: Waited,
    /// Time waited for connections.
    pub connections_waited: Waited,
    /// Connections whose name is known, so that one could have been opened ahead.
    pub leasable: u64,
    /// Look-ups made ahead.
    pub look_ups: LookUps,
    /// Connections opened ahead.
    pub leases: Leases,
    shares: ResourceMap<ResourceId, Share>,
}

impl Tally {
    /// A name's share, to add to.
    pub(super) fn share(&mut self, resource: ResourceId, name: &Name) -> &mut Share {
        if self.shares.len() >= LISTED && !self.shares.contains_key(&resource) {
            self.shares.retain(|_, share| share.saved() != 0.0);
            if self.shares.len() >= LISTED {
                self.shares.clear();
            }
        }
        self.shares.entry(resource).or_insert_with(|| Share {
            name: name.clone(),
            accesses: 0,
            misses: [0; 2],
            look_ups_ms: 0.0,
            leases_used: 0,
            leases_ms: 0.0,
        })
    }

    /// The names that saved most, most first.
    #[must_use]
    pub fn best(&self, count: usize) -> Vec<&Share> {
        let mut shares: Vec<_> = self.shares.values().filter(|share| share.saved() > 0.0).collect();
        shares.sort_by(|a, b| b.saved().total_cmp(&a.saved()).then_with(|| a.name.cmp(&b.name)));
        shares.truncate(count);
        shares
    }

    /// Milliseconds saved in all.
    #[must_use]
    pub fn saved(&self) -> f64 {
        self.names_waited.saved() + self.connections_waited.saved()
    }
}
