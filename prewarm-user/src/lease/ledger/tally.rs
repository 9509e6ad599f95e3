//! How many dials and leases lead where, counted as they come and go: what a program waits for walks no list.
//!
//! Comes in: each that begins or ends to count. Goes out: how many. Never here: which.

use std::{collections::HashMap, hash::Hash, net::SocketAddr};

use crate::model::Origin;

/// All counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    by_origin: HashMap<Origin, usize>,
    by_place: HashMap<SocketAddr, usize>,
}

impl Tally {
    /// One more for that origin, at that address.
    pub(super) fn add(&mut self, origin: &Origin, place: Option<SocketAddr>) {
        match self.by_origin.get_mut(origin) {
            Some(count) => *count += 1,
            None => drop(self.by_origin.insert(origin.clone(), 1)),
        }
        if let Some(place) = place {
            *self.by_place.entry(place).or_default() += 1;
        }
    }

    /// One less.
    pub(super) fn subtract(&mut self, origin: &Origin, place: Option<SocketAddr>) {
        less(&mut self.by_origin, origin);
        if let Some(place) = place {
            less(&mut self.by_place, &place);
        }
    }

    /// How many to an origin.
    pub(super) fn to(&self, origin: &Origin) -> usize {
        self.by_origin.get(origin).copied().unwrap_or_default()
    }

    /// How many to an address.
    pub(super) fn at(&self, place: SocketAddr) -> usize {
        self.by_place.get(&place).copied().unwrap_or_default()
    }
}

fn less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
