//! Which names an address was given for.
//!
//! Comes in: addresses of answers, with the time until which they stand for the name. Goes out: the names behind an
//! address. Never here: an address of a name that the name table does not hold, so the table is bounded by that one.

use std::{collections::HashMap, net::IpAddr};

use crate::model::{ResourceId, Timestamp};

/// Names kept for one address; shared hosting has more, and the latest are the likely ones.
const MAX_NAMES: usize = 8;

/// Address to names.
#[derive(Debug, Default)]
pub(super) struct Reverse(HashMap<IpAddr, Vec<(ResourceId, Timestamp)>>);

impl Reverse {
    /// Notes that `address` stands for `resource` until `until`.
    pub(super) fn insert(&mut self, address: IpAddr, resource: ResourceId, until: Timestamp) {
        let names = self.0.entry(address.to_canonical()).or_default();
        if let Some(known) = names.iter_mut().find(|(known, _)| *known == resource) {
            known.1 = known.1.max(until);
            return;
        }
        if names.len() >= MAX_NAMES {
            names.remove(0);
        }
        names.push((resource, until));
    }

    /// The address stands for the name no longer.
    pub(super) fn remove(&mut self, address: IpAddr, resource: ResourceId) {
        let address = address.to_canonical();
        if let Some(names) = self.0.get_mut(&address) {
            names.retain(|(known, _)| *known != resource);
            if names.is_empty() {
                self.0.remove(&address);
            }
        }
    }

    /// The names that the address stands for.
    pub(super) fn names(&self, now: Timestamp, address: IpAddr) -> impl Iterator<Item = ResourceId> + Clone {
        self.0
            .get(&address.to_canonical())
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .filter(move |(_, until)| *until >= now)
            .map(|(resource, _)| *resource)
    }

    /// Drops what has run out.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.0.retain(|_, names| {
            names.retain(|(_, until)| *until >= now);
            !names.is_empty()
        });
        // A flood's room is given back; without the threshold every quiet minute would shrink and grow the table.
        if self.0.capacity() > 4 * self.0.len().max(1024) {
            self.0.shrink_to(2 * self.0.len());
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let lists: usize = self.0.values().map(|names| names.capacity() * size_of::<(ResourceId, Timestamp)>()).sum();
        lists + self.0.capacity() * (size_of::<(IpAddr, Vec<(ResourceId, Timestamp)>)>() + 1) * 8 / 7
    }
}
