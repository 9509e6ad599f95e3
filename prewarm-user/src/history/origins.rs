//! What connections to each origin were like: how long handshakes took, how long connections lived, whether they were
//! used; those of programs that take nothing from us too.
//!
//! Comes in: what the kernel saw of connections, each with its time. Goes out: the numbers of
//! an origin. Never here: a clock, or more origins and open connections than stated.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::model::{ResourceId, ResourceMap, Timestamp};

/// Origins kept; the one silent for longest makes room.
const MAX_ORIGINS: usize = 4096;
/// Open connections whose beginning is remembered; the oldest is forgotten, and its lifetime stays unknown.
const MAX_OPEN: usize = 16_384;
/// How much a new sample counts: a path that changed is believed after some ten connections.
const WEIGHT: f64 = 0.2;

/// The numbers of one origin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OriginUse {
    /// Connections that programs opened themselves.
    pub connected: u64,
    /// Connections that programs got as a lease.
    pub leased: u64,
    /// What programs waited for handshakes of their own: what leases would have saved.
    pub waited: Duration,
    /// What a handshake takes, smoothed.
    pub handshake: Option<Duration>,
    /// The smoothed round trip at the end of connections that were used, smoothed again over them.
    pub round_trip: Option<Duration>,
    /// Connections of programs that are over.
    pub closed: u64,
    /// Of those, the ones over which nothing was sent.
    pub unused: u64,
    /// How long connections of programs lived, smoothed.
    pub lifetime: Option<Duration>,
    /// Bytes that programs sent over connections of their own that are over.
    pub sent: u64,
    /// Bytes that came back.
    pub received: u64,
    /// When anything was seen of it last.
    pub seen: Timestamp,
}

/// A connection that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    resource: ResourceId,
    port: u16,
    since: Timestamp,
}

/// All origins, and the connections of programs that are open.
#[derive(Debug, Default)]
pub(super) struct Origins {
    known: ResourceMap<(ResourceId, u16), OriginUse>,
    open: HashMap<u64, Open>,
    order: VecDeque<u64>,
}

impl Origins {
    /// A program got a connection: a lease, or one of its own.
    pub(super) fn connected(&mut self, at: Timestamp, origin: (ResourceId, u16), leased: bool) {
        let known = self.touch(at, origin);
        let count = if leased { &mut known.leased } else { &mut known.connected };
        *count = count.saturating_add(1);
    }

    /// The handshake of a connection was measured; `waited` says that a program waited for it.
    pub(super) fn handshake(&mut self, at: Timestamp, origin: (ResourceId, u16), took: Duration, waited: bool) {
        let known = self.touch(at, origin);
        known.handshake = Some(smooth(known.handshake, took));
        if waited {
            known.waited = known.waited.saturating_add(took);
        }
    }

    /// A program's connection is open from now on.
    pub(super) fn opened(&mut self, at: Timestamp, (resource, port): (ResourceId, u16), socket: u64) {
        while self.order.len() >= MAX_OPEN {
            if let Some(oldest) = self.order.pop_front() {
                self.open.remove(&oldest);
            }
        }
        if self.open.insert(socket, Open { resource, port, since: at }).is_none() {
            self.order.push_back(socket);
        }
    }

    /// A connection is over; one that is not remembered changes nothing.
    pub(super) fn closed(
        &mut self,
        at: Timestamp,
        socket: u64,
        round_trip: Duration,
        carried: bool,
        (sent, received): (u64, u64),
    ) {
        let Some(Open { resource, port, since }) = self.open.remove(&socket) else { return };
        // Most connections are short: the gone ones are at the front. Those inside the queue wait until they are.
        while self.order.front().is_some_and(|oldest| !self.open.contains_key(oldest)) {
            self.order.pop_front();
        }
        let known = self.touch(at, (resource, port));
        known.closed = known.closed.saturating_add(1);
        known.lifetime = Some(smooth(known.lifetime, at.since(since)));
        known.sent = known.sent.saturating_add(sent);
        known.received = known.received.saturating_add(received);
        if carried {
            known.round_trip = Some(smooth(known.round_trip, round_trip));
        } else {
            known.unused = known.unused.saturating_add(1);
        }
    }

    pub(super) fn get(&self, origin: (ResourceId, u16)) -> Option<&OriginUse> {
        self.known.get(&origin)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ResourceId, u16, &OriginUse)> {
        self.known.iter().map(|(&(resource, port), known)| (resource, port, known))
    }

    pub(super) fn bytes(&self) -> usize {
        let row = size_of::<((ResourceId, u16), OriginUse)>() + 1;
        let open = size_of::<(u64, Open)>() + 1;
        (self.known.capacity() * row + self.open.capacity() * open) * 8 / 7 + self.order.capacity() * 8
    }

    fn touch(&mut self, at: Timestamp, origin: (ResourceId, u16)) -> &mut OriginUse {
        if self.known.len() >= MAX_ORIGINS
            && !self.known.contains_key(&origin)
            && let Some(oldest) = self.known.iter().min_by_key(|(_, known)| known.seen).map(|(origin, _)| *origin)
        {
            self.known.remove(&oldest);
        }
        let known = self.known.entry(origin).or_default();
        known.seen = known.seen.max(at);
        known
    }
}

fn smooth(old: Option<Duration>, sample: Duration) -> Duration {
    old.map_or(sample, |old| old.mul_f64(1.0 - WEIGHT) + sample.mul_f64(WEIGHT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: (ResourceId, u16) = (ResourceId(1), 443);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn a_connection_is_followed_from_its_handshake_to_its_end() {
        let mut origins = Origins::default();
        let trip = Duration::from_millis(40);
        origins.connected(at(40), ORIGIN, false);
        origins.handshake(at(40), ORIGIN, trip, true);
        origins.opened(at(40), ORIGIN, 7);
        origins.closed(at(1040), 7, trip, true, (100, 2000));
        origins.closed(at(1050), 7, trip, true, (100, 2000));
        let known = *origins.get(ORIGIN).unwrap();
        assert_eq!((known.connected, known.closed, known.unused), (1, 1, 0), "its end counts once");
        assert_eq!((known.waited, known.handshake), (trip, Some(trip)));
        assert_eq!((known.lifetime, known.round_trip), (Some(Duration::from_secs(1)), Some(trip)));
        assert_eq!((known.sent, known.received, known.seen), (100, 2000, at(1040)));
        origins.opened(at(2000), ORIGIN, 8);
        origins.closed(at(2001), 8, trip, false, (0, 0));
        assert_eq!(origins.get(ORIGIN).unwrap().unused, 1);
    }

    #[test]
    fn one_outlier_moves_little() {
        let trip = Duration::from_millis(40);
        assert_eq!(smooth(Some(trip), Duration::from_millis(1040)), Duration::from_millis(240));
        let mut settled = Some(Duration::from_millis(240));
        (0..20).for_each(|_| settled = Some(smooth(settled, trip)));
        assert!(settled.unwrap() < Duration::from_millis(43), "{settled:?}");
    }

    #[test]
    fn tables_stay_within_their_bounds() {
        let mut origins = Origins::default();
        for n in 0..2 * MAX_ORIGINS as u64 {
            origins.connected(at(n), (ResourceId(n), 443), false);
        }
        assert_eq!(origins.known.len(), MAX_ORIGINS);
        assert!(origins.get((ResourceId(0), 443)).is_none(), "the oldest is gone");
        for socket in 0..3 * MAX_OPEN as u64 {
            origins.opened(at(socket), ORIGIN, socket);
            // Every other ends at once, the rest stay open.
            if socket % 2 == 0 {
                origins.closed(at(socket), socket, Duration::ZERO, true, (1, 1));
            }
        }
        assert!(origins.open.len() <= MAX_OPEN && origins.order.len() <= MAX_OPEN);
        assert!(origins.open.contains_key(&(3 * MAX_OPEN as u64 - 1)), "the newest is there");
    }
}
