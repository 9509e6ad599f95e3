//! What was asked, answered and connected to: names with their addresses and ports, and who asked for what lately.
//!
//! Comes in: observations, each with its time. Goes out: what is known of a name, the name behind an address, and
//! which names were learnt or forgotten, so that the kernel's table of known names can follow. Never here: a clock,
//! a socket, growth without bound (what strangers ask can push out only what is worth less), or a guess about the
//! future.

mod clients;
mod names;
mod origins;
mod remembered;
mod reverse;
mod sketch;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use clients::{Client, Clients};
pub use names::{KnownName, PortCount};
pub use origins::OriginUse;
pub use remembered::RememberedName;

use self::{names::Names, origins::Origins, reverse::Reverse};
use crate::{
    config::HistorySettings,
    model::{Connection, Direction, Observation, Phase, ResourceId, Seen, Timestamp},
};

/// A change of what is known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The name behind this ID is known from now on; its events need not carry it.
    New(ResourceId),
    /// It is not known any more; its next event must carry the name.
    Forgotten(ResourceId),
}

/// An observation as far as it concerns the other parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A client asked for a resource.
    Asked {
        /// What it asked for.
        resource: ResourceId,
        /// Whether another client's question of a moment ago is merely being passed on by this host.
        forwarded: bool,
    },
    /// An answer was seen.
    Answered {
        /// What was answered.
        resource: ResourceId,
        /// The time since the question, if that was seen too.
        after: Option<Duration>,
    },
    /// A program connected to an address that a name stands for, or gave the name itself.
    Connected {
        /// The name that the client meant, or most likely did.
        resource: ResourceId,
        /// The port.
        port: u16,
        /// Whether it got a lease.
        leased: bool,
        /// Whether nobody was seen to ask for the name lately, so that this is the access.
        unasked: bool,
    },
    /// A program connected to an address that no answer named.
    Nameless,
    /// A handshake of the daemon's own was measured.
    Dialled {
        /// The name that the address stands for.
        resource: ResourceId,
        /// The port.
        port: u16,
    },
    /// Nothing that concerns the others.
    Nothing,
}

/// Counters of what the tables did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Names taken in.
    pub learned: u64,
    /// Names dropped, for room or for age.
    pub forgotten: u64,
    /// Names not taken in because everything kept is worth more.
    pub not_admitted: u64,
    /// Events that carry no name although none is known for their ID.
    pub nameless_events: u64,
    /// Connections to addresses that no answer named: the blind share is this over all connections.
    pub blind_connects: u64,
    /// Connections to addresses that a name is known for.
    pub named_connects: u64,
    /// Connections in network namespaces that nothing is learnt from.
    pub elsewhere_connects: u64,
    /// Connections to resolvers over TLS (port 853), which no name is learnt from.
    pub encrypted_connects: u64,
}

/// All that is remembered.
#[derive(Debug)]
pub struct History {
    settings: HistorySettings,
    names: Names,
    reverse: Reverse,
    clients: Clients,
    origins: Origins,
    namespaces: Vec<u64>,
    counters: Counters,
    swept: Timestamp,
}

/// A client's question that this host sends on itself is not a second access.
const FORWARD_WINDOW: Duration = Duration::from_secs(3);
/// A connection belongs to a question that was asked within this time.
const ASKED_LATELY: Duration = Duration::from_secs(5);
/// Where resolvers are asked, over TCP and TLS: no access of a program's.
const RESOLVERS: [u16; 2] = [53, ENCRYPTED];
/// DNS over TLS (RFC 7858).
const ENCRYPTED: u16 = 853;
/// How often idle names are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

impl History {
    /// An empty history.
    #[must_use]
    pub fn new(settings: &HistorySettings) -> Self {
        Self {
            names: Names::new(settings.names as usize),
            reverse: Reverse::default(),
            clients: Clients::new(
                settings.clients as usize,
                settings.session_length as usize,
                Duration::from_secs(settings.session_idle_seconds),
            ),
            origins: Origins::default(),
            namespaces: Vec::new(),
            settings: settings.clone(),
            counters: Counters::default(),
            swept: Timestamp::ZERO,
        }
    }

    /// Takes in what was seen, and notes in `changes` which names came and went.
    pub fn observe(&mut self, observation: &Observation, changes: &mut Vec<Learned>) -> Access {
        let Observation { at, client, seen } = observation;
        match seen {
            Seen::Question { resource, name, direction, .. } => {
                let known = self.admit(*at, *resource, name.as_ref(), changes);
                let forwarded = *direction == Direction::Egress
                    && known
                    && self.names.get(*resource).is_some_and(|known| {
                        known.last_client.is_some_and(|last| last != *client)
                            && at.since(known.last_asked) < FORWARD_WINDOW
                    });
                if !forwarded {
                    if let Some(known) = self.names.get_mut(*resource) {
                        known.asked_by(*at, *client);
                    }
                    self.clients.asked(*at, *client, *resource);
                }
                Access::Asked { resource: *resource, forwarded }
            }
            Seen::Answer { resource, name, rcode, ttl, addresses, service_binding, .. } => {
                self.admit(*at, *resource, name.as_ref(), changes);
                let mut after = None;
                if let Some(known) = self.names.get_mut(*resource) {
                    after = known.unanswered.take().map(|asked| at.since(asked));
                    let keep = *ttl + Duration::from_secs(self.settings.address_memory_seconds);
                    for gone in known.answered(*at, *rcode, *ttl, addresses, *service_binding) {
                        self.reverse.remove(gone, *resource);
                    }
                    for &address in &known.addresses {
                        self.reverse.insert(address, *resource, *at + keep);
                    }
                }
                Access::Answered { resource: *resource, after }
            }
            Seen::Connect { destination, leased } => self.connected(*at, *client, *destination, *leased),
            Seen::Connection(connection) => self.connection(*at, *client, connection),
            Seen::Named { resource, name, port, leased } => {
                self.admit(*at, *resource, Some(name), changes);
                self.named(*at, *client, (*resource, *port), *leased)
            }
        }
    }

    /// Names the network namespaces, by their cookies, whose programs' connections count.
    pub fn set_namespaces(&mut self, namespaces: Vec<u64>) {
        self.namespaces = namespaces;
    }

    /// The origins that connections were seen to, in no order.
    pub fn origins(&self) -> impl Iterator<Item = (&KnownName, u16, &OriginUse)> {
        self.origins.iter().filter_map(|(resource, port, known)| Some((self.names.get(resource)?, port, known)))
    }

    /// What is known of connections to there.
    #[must_use]
    pub fn origin(&self, resource: ResourceId, port: u16) -> Option<&OriginUse> {
        self.origins.get((resource, port))
    }

    /// Forgets what is too old. Cheap to call often.
    pub fn tick(&mut self, now: Timestamp, changes: &mut Vec<Learned>) {
        if now.since(self.swept) < SWEEP_EVERY {
            return;
        }
        self.swept = now;
        let idle = Duration::from_secs(self.settings.name_idle_hours.saturating_mul(3600));
        for known in self.names.take_idle(now, idle) {
            self.unlink(&known, changes);
        }
        self.reverse.expire(now);
        self.clients.expire(now);
    }

    /// What is known of a resource.
    #[must_use]
    pub fn get(&self, resource: ResourceId) -> Option<&KnownName> {
        self.names.get(resource)
    }

    /// All known names, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &KnownName> {
        self.names.iter()
    }

    /// The clients and what each asked lately.
    #[must_use]
    pub const fn clients(&self) -> &Clients {
        &self.clients
    }

    /// The name that `client` most likely means by `address`: the one it asked for last of those that the address
    /// was given for, else the one that anybody asked for last.
    #[must_use]
    pub fn name_behind(&self, now: Timestamp, client: IpAddr, address: IpAddr) -> Option<ResourceId> {
        let candidates = self.reverse.names(now, address);
        self.clients.recent(client).map(|(_, resource)| resource).find(|r| candidates.clone().any(|c| c == *r)).or_else(
            || candidates.clone().max_by_key(|&resource| self.names.get(resource).map(|known| known.last_asked)),
        )
    }

    /// Number of known names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no name is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.len() == 0
    }

    /// What the tables did so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes taken by all tables, heap included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.names.bytes() + self.reverse.bytes() + self.clients.bytes() + self.origins.bytes()
    }

    /// Makes the resource known if its event carries a name that is worth keeping; whether it is known afterwards.
    fn admit(
        &mut self,
        at: Timestamp,
        resource: ResourceId,
        name: Option<&crate::model::Name>,
        changes: &mut Vec<Learned>,
    ) -> bool {
        if self.names.touch(resource) {
            return true;
        }
        let Some(name) = name else {
            self.counters.nameless_events += 1;
            return false;
        };
        match self.names.admit(at, resource, name) {
            names::Admission::Refused => {
                self.counters.not_admitted += 1;
                false
            }
            names::Admission::Taken(evicted) => {
                if let Some(evicted) = evicted {
                    self.unlink(&evicted, changes);
                }
                self.counters.learned += 1;
                changes.push(Learned::New(resource));
                true
            }
        }
    }

    /// A program connected.
    fn connected(&mut self, at: Timestamp, client: IpAddr, destination: SocketAddr, leased: bool) -> Access {
        let (address, port) = (destination.ip().to_canonical(), destination.port());
        let Some(resource) = self.name_behind(at, client, address) else {
            self.counters.blind_connects += 1;
            return Access::Nameless;
        };
        self.counters.named_connects += 1;
        self.origins.connected(at, (resource, port), leased);
        let mut unasked = false;
        if let Some(known) = self.names.get_mut(resource) {
            known.connected(port);
            // A cache nearby hides questions for names that were asked for before; a name that nobody was ever
            // seen to ask for is not asked for where we look.
            unasked = known.count > 0 && at.since(known.last_asked) > ASKED_LATELY;
            if unasked {
                known.asked_by(at, client);
                // No question, so no answer is awaited.
                known.unanswered = None;
                self.clients.asked(at, client, resource);
            }
        }
        Access::Connected { resource, port, leased, unasked }
    }

    /// A client named whom it wants.
    fn named(&mut self, at: Timestamp, client: IpAddr, origin: (ResourceId, u16), leased: bool) -> Access {
        let (resource, port) = origin;
        self.origins.connected(at, origin, leased);
        let mut unasked = false;
        if let Some(known) = self.names.get_mut(resource) {
            known.connected(port);
            // A client that looks names up itself was seen to ask, if its questions pass here; from this host they come
            // from another address than its connections over loopback.
            let asker = client.is_loopback() || known.last_client == Some(client);
            unasked = !(asker && known.count > 0 && at.since(known.last_asked) <= ASKED_LATELY);
            if unasked {
                known.asked_by(at, client);
                // Whoever was given the name asks, and not by a question that is seen here.
                known.unanswered = None;
                self.clients.asked(at, client, resource);
            }
        }
        Access::Connected { resource, port, leased, unasked }
    }

    /// The kernel tells of a connection.
    fn connection(&mut self, at: Timestamp, client: IpAddr, connection: &Connection) -> Access {
        let Connection { socket, namespace, destination, phase } = *connection;
        if RESOLVERS.contains(&destination.port()) {
            let opened = matches!(phase, Phase::Established { own: false, .. }) && self.namespaces.contains(&namespace);
            self.counters.encrypted_connects += u64::from(opened && destination.port() == ENCRYPTED);
            return Access::Nothing;
        }
        match phase {
            Phase::Established { own: true, round_trip } => {
                let resource = self.name_behind(at, client, destination.ip().to_canonical());
                let (Some(resource), Some(took)) = (resource, round_trip) else { return Access::Nothing };
                self.origins.handshake(at, (resource, destination.port()), took, false);
                Access::Dialled { resource, port: destination.port() }
            }
            Phase::Established { own: false, .. } if !self.namespaces.contains(&namespace) => {
                self.counters.elsewhere_connects += 1;
                Access::Nothing
            }
            Phase::Established { own: false, round_trip } => {
                let access = self.connected(at, client, destination, false);
                if let Access::Connected { resource, port, .. } = access {
                    self.origins.opened(at, (resource, port), socket);
                    if let Some(took) = round_trip {
                        self.origins.handshake(at, (resource, port), took, true);
                    }
                }
                access
            }
            Phase::Closed { round_trip, carried, sent, received } => {
                self.origins.closed(at, socket, round_trip, carried, (sent, received));
                Access::Nothing
            }
            Phase::Carried => Access::Nothing,
        }
    }

    fn unlink(&mut self, known: &KnownName, changes: &mut Vec<Learned>) {
        for &address in &known.addresses {
            self.reverse.remove(address, known.resource);
        }
        self.counters.forgotten += 1;
        changes.push(Learned::Forgotten(known.resource));
    }
}

#[cfg(test)]
mod tests;
