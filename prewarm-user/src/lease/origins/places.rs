//! What is learnt about single addresses: which origin lies there, whether its server speaks first, how many come.
//!
//! Comes in: dials that succeeded, programs that came, greetings. Goes out: the same, by address. Never here: memory
//! that grows: the address untouched longest is forgotten for a new one.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use crate::{
    lease::demand::Demand,
    model::{Origin, Timestamp},
};

/// Addresses that are remembered.
const REMEMBERED: usize = 4096;
/// So many connections in a row whose server spoke first are no accident.
const GREETINGS: u8 = 2;

/// All addresses that leases led to.
#[derive(Debug, Default)]
pub(crate) struct Places {
    known: HashMap<SocketAddr, Place>,
    /// Those that there may be demand at.
    busy: BTreeSet<SocketAddr>,
}

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) origin: Origin,
    pub(super) greetings: u8,
    demand: Demand,
    touched: Timestamp,
}

impl Places {
    /// A connection to there was established for this origin.
    pub(super) fn lead_to(&mut self, destination: SocketAddr, origin: &Origin, now: Timestamp) {
        self.restore(destination, origin.clone(), None, now);
    }

    /// What was known of an address before.
    pub(super) fn restore(&mut self, destination: SocketAddr, origin: Origin, greetings: Option<u8>, now: Timestamp) {
        if !self.known.contains_key(&destination)
            && self.known.len() >= REMEMBERED
            && let Some(oldest) = self.known.iter().min_by_key(|(_, place)| place.touched).map(|(place, _)| *place)
        {
            self.known.remove(&oldest);
            self.busy.remove(&oldest);
        }
        let fresh = || Place { origin: origin.clone(), greetings: 0, demand: Demand::default(), touched: now };
        let place = self.known.entry(destination).or_insert_with(fresh);
        if place.origin != origin {
            place.origin = origin;
        }
        place.touched = now;
        if let Some(greetings) = greetings {
            place.greetings = greetings;
        }
    }

    /// Whose address this is.
    pub(crate) fn origin(&self, destination: SocketAddr) -> Option<&Origin> {
        self.known.get(&destination).map(|place| &place.origin)
    }

    /// The address of an origin that programs came to last.
    pub(crate) fn latest(&self, origin: &Origin) -> Option<SocketAddr> {
        let of_origin = self.known.iter().filter(|(_, place)| place.origin == *origin);
        of_origin.max_by_key(|(_, place)| place.touched).map(|(destination, _)| *destination)
    }

    /// A program came for a connection to there. Addresses that no lease ever led to are not remembered.
    pub(crate) fn arrived(&mut self, destination: SocketAddr, now: Timestamp) {
        if let Some(place) = self.known.get_mut(&destination) {
            place.demand.arrived(now);
            place.touched = now;
            self.busy.insert(destination);
        }
    }

    /// How many connections to there the recent rate calls for.
    pub(crate) fn level(&self, destination: SocketAddr, dial: Duration, idle: Duration, now: Timestamp) -> u32 {
        match self.known.get(&destination) {
            // They would end within the second.
            Some(place) if place.greetings >= GREETINGS => 0,
            Some(place) => place.demand.level(now, dial, idle),
            None => 0,
        }
    }

    /// How many connections to there a visit takes.
    pub(crate) fn width(&self, destination: SocketAddr) -> u32 {
        self.known.get(&destination).map_or(1, |place| place.demand.width())
    }

    /// Where there may be demand.
    pub(crate) fn busy(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.busy.iter().copied()
    }

    /// There is none at this one any more.
    pub(crate) fn calm(&mut self, destination: SocketAddr) {
        self.busy.remove(&destination);
    }

    /// Whether the server there speaks first.
    pub(crate) fn speaks_first(&self, destination: SocketAddr) -> bool {
        self.known.get(&destination).is_some_and(|place| place.greetings >= GREETINGS)
    }

    /// The server there spoke before it was spoken to, on a fresh connection; or it did not, or hung up behind it.
    pub(crate) fn greeted(&mut self, destination: SocketAddr, spoke: bool) {
        if let Some(place) = self.known.get_mut(&destination) {
            place.greetings = if spoke { place.greetings.saturating_add(1).min(GREETINGS) } else { 0 };
        }
    }

    /// By origin: arrivals a second, and whether any of its servers speaks first.
    pub(super) fn sums(&self, now: Timestamp) -> HashMap<&Origin, (f64, bool)> {
        let mut sums: HashMap<&Origin, (f64, bool)> = HashMap::new();
        for place in self.known.values() {
            let sum = sums.entry(&place.origin).or_default();
            sum.0 += place.demand.rate(now);
            sum.1 |= place.greetings >= GREETINGS;
        }
        sums
    }

    /// All, the one untouched longest first.
    pub(super) fn oldest_first(&self) -> Vec<(SocketAddr, &Place)> {
        let mut all: Vec<_> = self.known.iter().map(|(destination, place)| (*destination, place)).collect();
        all.sort_by_key(|(destination, place)| (place.touched, *destination));
        all
    }
}
