//! How many there may be, and how many there should be: limits, standing wishes, demand.
//!
//! Comes in: wishes, and what is there. Goes out: dials to start, or a count of what kept them from it. Never here: a
//! sum of events: what is missing is a level less what is dialling or open, so nothing is ever opened twice.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{Dial, LeaseId, LeaseOrder, Ledger, Ready, Standing, Start};
use crate::{
    lease::{counters::Reason, order::interleave, origins::Readiness},
    model::{IntentId, Origin, Timestamp, Verdict},
};

/// What a dial takes where none was made, and what it takes at least, with the time until it is begun.
const DIAL: Duration = Duration::from_millis(100);

/// What keeps a dial from being started.
enum Obstacle {
    Draining,
    Limit,
    Backoff,
    Pace,
}

impl<C> Ledger<C> {
    /// Keeps `count` leases to an origin open until a deadline; zero ends that. Those that were wanted to an address it no
    /// longer has end now.
    pub(crate) fn want(
        &mut self,
        origin: Origin,
        addresses: Vec<IpAddr>,
        until: Timestamp,
        count: u32,
        now: Timestamp,
    ) {
        self.stirred = true;
        if count == 0 {
            self.standing.remove(&origin);
            return;
        }
        for ready in self.ready.values_mut() {
            if ready.order.origin == origin
                && ready.order.reason == Reason::Wanted
                && !addresses.contains(&ready.destination.ip())
            {
                ready.expires = now;
            }
        }
        self.standing.insert(origin, Standing { addresses, until, count });
    }

    /// Whether a lease is one of those that are kept, so that another was dialled in its place, or is now.
    pub(super) fn is_kept(&self, order: &LeaseOrder) -> bool {
        order.reason == Reason::Wanted && self.standing.contains_key(&order.origin)
    }

    /// How long before the end of a kept lease another is dialled, so that there is always one.
    pub(super) fn lead(&self, origin: &Origin) -> Duration {
        // Half as long again: round trips vary, and a miss costs more than an early dial.
        DIAL.max(self.origins.round_trip(origin).unwrap_or(DIAL) * 3 / 2)
    }

    /// What is open to an origin and will be when another could be there.
    fn lasting_to(&self, origin: &Origin, now: Timestamp) -> usize {
        let soon = now + self.lead(origin);
        let ending = |ready: &&Ready<C>| ready.order.origin == *origin && ready.expires <= soon;
        self.open_to(origin) - self.ready.values().filter(ending).count()
    }

    /// What has to be dialled so that there is as much as is wanted, or in demand.
    pub(crate) fn replenish(&mut self, now: Timestamp) -> Vec<Start> {
        self.standing.retain(|_, standing| standing.until > now);
        let mut starts = std::mem::take(&mut self.starts);
        let mut missing = Vec::new();
        for (origin, standing) in &self.standing {
            for _ in self.lasting_to(origin, now)..standing.count as usize {
                missing.push(LeaseOrder {
                    intent: None,
                    reason: Reason::Wanted,
                    origin: origin.clone(),
                    addresses: standing.addresses.clone(),
                    until: standing.until,
                });
            }
        }
        for destination in self.origins.places.busy().collect::<Vec<_>>() {
            let level = self.level(destination, now);
            if level == 0 {
                self.origins.places.calm(destination);
                continue;
            }
            let Some(origin) = self.origins.places.origin(destination).cloned() else { continue };
            for _ in self.open_to_place(destination)..level {
                missing.push(LeaseOrder {
                    intent: None,
                    reason: Reason::Demanded,
                    origin: origin.clone(),
                    addresses: vec![destination.ip()],
                    // Whether another follows is decided then.
                    until: now + self.origins.idle(&origin),
                });
            }
        }
        // What can't be had now is looked at again soon: each look is no refusal.
        starts.extend(missing.into_iter().filter_map(|order| self.try_admit(order, now).ok()));
        starts
    }

    /// Whether less is open than is wanted or in demand.
    pub(crate) fn is_short(&self, now: Timestamp) -> bool {
        self.standing.iter().any(|(origin, standing)| self.lasting_to(origin, now) < standing.count as usize)
            || self.origins.places.busy().any(|place| self.open_to_place(place) < self.level(place, now))
    }

    /// The same of one origin, at one of its addresses: what a program waits for must not look at all.
    pub(super) fn is_short_at(&self, origin: &Origin, place: SocketAddr, now: Timestamp) -> bool {
        let level = self.level(place, now);
        (level > 0 && self.open_to_place(place) < level)
            || self.standing.get(origin).is_some_and(|standing| self.lasting_to(origin, now) < standing.count as usize)
    }

    /// A program came for a connection to there.
    pub(crate) fn arrived(&mut self, destination: SocketAddr, now: Timestamp) {
        self.origins.places.arrived(destination, now);
        let level = self.level(destination, now);
        self.stirred |= level > 0 && self.open_to_place(destination) < level;
    }

    /// How many the recent rate calls for.
    fn level(&self, destination: SocketAddr, now: Timestamp) -> usize {
        if !self.follow_demand || self.draining {
            return 0;
        }
        let Some(origin) = self.origins.places.origin(destination) else { return 0 };
        let level = self.origins.places.level(destination, self.lead(origin), self.origins.idle(origin), now) as usize;
        // The origin may have several addresses in demand; its own limit is for all of them.
        level.min(self.limits.per_origin)
    }

    /// More leases beside one that was ordered, where a visit to that address takes several.
    pub(crate) fn accompany(&mut self, id: LeaseId, now: Timestamp) -> Vec<Start> {
        if !self.follow_demand {
            return Vec::new();
        }
        let Some(dial) = self.dials.get(&id) else { return Vec::new() };
        let Some(first) = dial.destinations.first() else { return Vec::new() };
        let (width, first) = (self.origins.places.width(*first) as usize, *first);
        let beside = LeaseOrder { intent: None, reason: Reason::Demanded, ..dial.order.clone() };
        let missing = width.saturating_sub(self.open_to_place(first));
        (0..missing).map_while(|_| self.try_admit(beside.clone(), now).ok()).collect()
    }

    /// The name of an intent's origin now has these addresses: a lease to another is exchanged for one to them. What is
    /// to be closed, and dialled.
    pub(crate) fn correct(
        &mut self,
        intent: IntentId,
        addresses: &[IpAddr],
        now: Timestamp,
    ) -> (Option<C>, Option<Start>) {
        let is_it = |order: &LeaseOrder| order.intent.is_some_and(|(number, _)| number == intent);
        if let Some((&id, dial)) = self.dials.iter_mut().find(|(_, dial)| is_it(&dial.order)) {
            dial.order.addresses = addresses.to_vec();
            // It may still be answered at one of them; `dialled` looks at where it was.
            if dial.destinations.iter().any(|destination| addresses.contains(&destination.ip())) {
                return (None, None);
            }
            let Some(Dial { order, .. }) = self.end_dial(id) else { return (None, None) };
            return (None, self.exchange(order, now));
        }
        let Some((&id, ready)) = self.ready.iter_mut().find(|(_, ready)| is_it(&ready.order)) else {
            return (None, None);
        };
        ready.order.addresses = addresses.to_vec();
        if addresses.contains(&ready.destination.ip()) {
            return (None, None);
        }
        self.withdraw(id, now);
        let Some(ready) = self.remove(id) else { return (None, None) };
        self.origins.wasted(&ready.order.origin, now);
        let start = self.exchange(ready.order, now);
        (Some(ready.connection), start)
    }

    /// An order whose lease was to an address that its name no longer has.
    pub(super) fn exchange(&mut self, order: LeaseOrder, now: Timestamp) -> Option<Start> {
        self.counters.readdressed += 1;
        self.order(order, now)
    }

    /// The name of an intent's origin is gone: so is its lease.
    pub(crate) fn cancel(&mut self, intent: IntentId, now: Timestamp) -> Option<C> {
        let is_it = |order: &LeaseOrder| order.intent.is_some_and(|(number, _)| number == intent);
        if let Some(id) = self.dials.iter().find(|(_, dial)| is_it(&dial.order)).map(|(&id, _)| id) {
            let dial = self.end_dial(id)?;
            self.counters.cancelled += 1;
            self.report(dial.order.intent, Verdict::Failed, now);
            return None;
        }
        let id = self.ready.iter().find(|(_, ready)| is_it(&ready.order)).map(|(&id, _)| id)?;
        self.withdraw(id, now);
        let ready = self.remove(id)?;
        self.counters.cancelled += 1;
        self.origins.wasted(&ready.order.origin, now);
        self.report(ready.order.intent, Verdict::Failed, now);
        Some(ready.connection)
    }

    /// Starts a dial, or counts why not.
    pub(super) fn admit(&mut self, order: LeaseOrder, now: Timestamp) -> Option<Start> {
        let obstacle = match self.try_admit(order, now) {
            Ok(start) => return Some(start),
            Err(obstacle) => obstacle,
        };
        self.counters.refused += 1;
        match obstacle {
            Obstacle::Draining => self.counters.refused_draining += 1,
            Obstacle::Limit => self.counters.refused_limit += 1,
            Obstacle::Backoff => self.counters.refused_backoff += 1,
            Obstacle::Pace => self.counters.refused_pace += 1,
        }
        None
    }

    fn try_admit(&mut self, order: LeaseOrder, now: Timestamp) -> Result<Start, Obstacle> {
        if self.draining {
            return Err(Obstacle::Draining);
        }
        let destinations: Vec<_> = interleave(&order.addresses)
            .into_iter()
            .filter(|&address| self.has_room(address))
            .map(|address| SocketAddr::new(address, order.origin.port))
            .collect();
        let all = self.dials.len() + self.ready.len() + self.handed.len() + self.claimed.len();
        if destinations.is_empty() || all >= self.limits.total || self.open_to(&order.origin) >= self.limits.per_origin
        {
            return Err(Obstacle::Limit);
        }
        if now < self.not_before || !self.may_dial(&order.origin, now) {
            return Err(Obstacle::Backoff);
        }
        if !self.pace.take(now) {
            return Err(Obstacle::Pace);
        }
        let id = LeaseId(self.next);
        self.next += 1;
        self.counters.opened += 1;
        self.marks.extend(destinations.iter().map(|&destination| (destination, true)));
        self.tally.add(&order.origin, destinations.first().copied());
        self.dials.insert(id, Dial { order, destinations: destinations.clone(), since: now, late: false });
        Ok(Start { id, destinations })
    }

    fn may_dial(&self, origin: &Origin, now: Timestamp) -> bool {
        match self.origins.readiness(origin, now) {
            Readiness::Open => true,
            Readiness::Trial => !self.dials.values().any(|dial| dial.order.origin == *origin),
            Readiness::Paused => false,
        }
    }

    /// What is on its way to a program counts, because it may come back.
    pub(super) fn open_to(&self, origin: &Origin) -> usize {
        self.tally.to(origin)
    }

    /// A dial counts for the address it tries first.
    fn open_where(&self, there: impl Fn(SocketAddr) -> bool) -> usize {
        self.dials.values().filter(|dial| dial.destinations.first().is_some_and(|&first| there(first))).count()
            + self.open().filter(|&destination| there(destination)).count()
    }

    fn open_to_place(&self, place: SocketAddr) -> usize {
        self.tally.at(place)
    }

    fn has_room(&self, address: IpAddr) -> bool {
        self.open_where(|destination| destination.ip() == address) < self.limits.per_address
            && self.open_where(|destination| network(destination.ip()) == network(address)) < self.limits.per_network
    }

    fn open(&self) -> impl Iterator<Item = SocketAddr> {
        let ready = self.ready.values().map(|ready| ready.destination);
        let handed = self.handed.values().map(|handed| handed.destination);
        ready.chain(handed).chain(self.claimed.values().map(|claimed| claimed.ready.destination))
    }
}

/// The network that is taken for one operator's: /24 of IPv4, /48 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(ip) => (u32::from(ip) & 0xffff_ff00).to_be_bytes().into(),
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}
