//! Connections opened ahead, as they would stand open in the world with prewarm.
//!
//! A connection waits for a program that connects to exactly its address and port, until its time is over; nobody closes
//! it before. How long servers really keep idle connections, recordings do not show.

use std::{net::SocketAddr, time::Duration};

use crate::model::{IntentId, ResourceId, ResourceMap, Timestamp};

/// Origins whose round trips are remembered.
const MANY: usize = 1 << 17;

/// A connection opened ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) intent: IntentId,
    pub(super) resource: ResourceId,
    pub(super) destination: SocketAddr,
    pub(super) ready: Timestamp,
    pub(super) until: Timestamp,
    late: bool,
}

/// Which one is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// To this address and port.
    Address(SocketAddr),
    /// To this name and port.
    Name(ResourceId, u16),
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    /// Opened.
    pub opened: u64,
    /// Taken by a program.
    pub used: u64,
    /// Wanted while they were being opened.
    pub late: u64,
}

impl Leases {
    /// That nobody took.
    #[must_use]
    pub const fn in_vain(&self) -> u64 {
        self.opened - self.used
    }
}

/// Those that are open.
#[derive(Debug)]
pub(super) struct Held {
    open: Vec<Lease>,
    round_trips: ResourceMap<(ResourceId, u16), Duration>,
    round_trip: Duration,
    pub(super) leases: Leases,
}

impl Held {
    /// None; opening one takes so long where nothing was observed.
    pub(super) fn new(round_trip: Duration) -> Self {
        Self { open: Vec::new(), round_trips: ResourceMap::default(), round_trip, leases: Leases::default() }
    }

    /// How long a handshake takes.
    pub(super) fn round_trip(&self, resource: ResourceId, port: u16) -> Duration {
        self.round_trips.get(&(resource, port)).copied().unwrap_or(self.round_trip)
    }

    /// A handshake was observed.
    pub(super) fn measured(&mut self, resource: ResourceId, port: u16, round_trip: Duration) {
        if self.round_trips.len() >= MANY && !self.round_trips.contains_key(&(resource, port)) {
            self.round_trips.clear();
        }
        self.round_trips.insert((resource, port), round_trip);
    }

    /// Opens one.
    pub(super) fn open(
        &mut self,
        at: Timestamp,
        intent: IntentId,
        resource: ResourceId,
        destination: SocketAddr,
        until: Timestamp,
    ) {
        let ready = at + self.round_trip(resource, destination.port());
        self.leases.opened += 1;
        self.open.push(Lease { intent, resource, destination, ready, until, late: false });
    }

    /// Takes one, the oldest first.
    pub(super) fn take(&mut self, at: Timestamp, wanted: Wanted) -> Option<Lease> {
        let fits = |lease: &Lease| match wanted {
            Wanted::Address(destination) => lease.destination == destination,
            Wanted::Name(resource, port) => lease.resource == resource && lease.destination.port() == port,
        };
        let found = self.open.iter().position(|lease| fits(lease) && lease.ready <= at && lease.until > at);
        if let Some(found) = found {
            self.leases.used += 1;
            return Some(self.open.remove(found));
        }
        if let Some(lease) = self.open.iter_mut().find(|lease| fits(lease) && lease.ready > at && !lease.late) {
            lease.late = true;
            self.leases.late += 1;
        }
        None
    }

    /// Ends one, if it is still open.
    pub(super) fn end(&mut self, intent: IntentId) -> Option<Lease> {
        let found = self.open.iter().position(|lease| lease.intent == intent)?;
        Some(self.open.remove(found))
    }
}
