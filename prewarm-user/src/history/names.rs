//! The table of known names, bounded, with admission and eviction by usefulness.
//!
//! Comes in: events of one name each. Goes out: what is known of it. Never here: more names than asked for. A new name
//! gets into a full table only if it was seen more often lately than the least useful of a few names drawn at random
//! (TinyLFU), so a flood of names that are asked once pushes out nothing.

use std::{net::IpAddr, time::Duration};

use super::sketch::Sketch;
use crate::model::{Name, ResourceId, ResourceMap, Timestamp};

/// Addresses kept for a name.
const MAX_ADDRESSES: usize = 16;
/// Ports kept for a name.
const MAX_PORTS: usize = 4;
/// Names drawn for one eviction.
const DRAWN: usize = 8;

/// How often programs connected to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCount {
    /// The port.
    pub port: u16,
    /// Connections seen.
    pub count: u32,
}

/// What is known of a name.
#[derive(Clone, Debug)]
pub struct KnownName {
    /// Its ID.
    pub resource: ResourceId,
    /// The name.
    pub name: Name,
    /// The addresses of the last answers, in their order.
    pub addresses: Vec<IpAddr>,
    /// When the last answer came.
    pub answered_at: Option<Timestamp>,
    /// Until when that answer may be kept.
    pub fresh_until: Timestamp,
    /// The response code of the last answer (RFC 1035, 4.1.1).
    pub rcode: u8,
    /// Whether an HTTPS or SVCB record was seen.
    pub service_binding: bool,
    /// Ports that programs connected to, most used first.
    pub ports: Vec<PortCount>,
    /// When it was asked for last.
    pub last_asked: Timestamp,
    /// Who asked last.
    pub last_client: Option<IpAddr>,
    /// How often it was asked for.
    pub count: u64,
    /// The question that waits for its answer.
    pub(super) unanswered: Option<Timestamp>,
    /// When anything was heard of it.
    heard: Timestamp,
}

/// What became of a name that knocked.
#[derive(Debug)]
pub(super) enum Admission {
    /// It is in; another one may have had to go.
    Taken(Option<KnownName>),
    /// Everything kept is worth more.
    Refused,
}

impl KnownName {
    /// Whether the last answer said that the name does not exist (RFC 8020).
    #[must_use]
    pub const fn is_nxdomain(&self) -> bool {
        self.rcode == 3
    }

    /// Whether an answer with addresses was seen, and it was not followed by a refusal.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.rcode == 0 && !self.addresses.is_empty()
    }

    pub(super) fn asked_by(&mut self, at: Timestamp, client: IpAddr) {
        self.last_asked = self.last_asked.max(at);
        self.heard = self.heard.max(at);
        self.last_client = Some(client);
        self.unanswered = Some(at);
        self.count = self.count.saturating_add(1);
    }

    /// Takes an answer in; returns the addresses that stand for this name no longer.
    pub(super) fn answered(
        &mut self,
        at: Timestamp,
        rcode: u8,
        ttl: Duration,
        addresses: &[IpAddr],
        service_binding: bool,
    ) -> Vec<IpAddr> {
        self.heard = self.heard.max(at);
        self.service_binding |= service_binding;
        if rcode == 3 {
            (self.rcode, self.fresh_until) = (rcode, at);
            return std::mem::take(&mut self.addresses);
        }
        if rcode != 0 {
            // A server that fails for one type, or refuses one it does not know, says nothing of what is known.
            if self.addresses.is_empty() {
                self.rcode = rcode;
            }
            return Vec::new();
        }
        self.rcode = 0;
        // An empty answer (no AAAA) says nothing about the other family.
        if addresses.is_empty() {
            return Vec::new();
        }
        let (mut four, mut six) = (false, false);
        for address in addresses {
            four |= address.is_ipv4();
            six |= address.is_ipv6();
        }
        let mut gone = Vec::new();
        self.addresses.retain(|old| {
            let keep = if old.is_ipv4() { !four } else { !six };
            if !keep && !addresses.contains(old) {
                gone.push(*old);
            }
            keep
        });
        for &new in addresses {
            if self.addresses.len() < MAX_ADDRESSES && !self.addresses.contains(&new) {
                self.addresses.push(new);
            }
        }
        self.answered_at = Some(at);
        self.fresh_until = at + ttl;
        gone
    }

    pub(super) fn connected(&mut self, port: u16) {
        if let Some(known) = self.ports.iter_mut().find(|known| known.port == port) {
            known.count = known.count.saturating_add(1);
        } else if self.ports.len() < MAX_PORTS {
            self.ports.push(PortCount { port, count: 1 });
        } else if let Some(least) = self.ports.last_mut() {
            // Space saving: the least used makes room once its count is worn down, so one scan replaces nothing.
            if least.count <= 1 {
                *least = PortCount { port, count: 1 };
            } else {
                least.count -= 1;
            }
        }
        self.ports.sort_by_key(|known| std::cmp::Reverse(known.count));
    }

    /// Takes in what was known before a restart, within the bounds.
    pub(super) fn restore(&mut self, addresses: Vec<IpAddr>, ports: impl Iterator<Item = PortCount>) {
        self.addresses = addresses;
        self.addresses.truncate(MAX_ADDRESSES);
        self.ports = ports.take(MAX_PORTS).collect();
        self.ports.sort_by_key(|known| std::cmp::Reverse(known.count));
    }

    /// Bytes behind pointers.
    fn heap(&self) -> usize {
        self.name.as_wire().len()
            + 16
            + self.addresses.capacity() * size_of::<IpAddr>()
            + self.ports.capacity() * size_of::<PortCount>()
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Names {
    capacity: usize,
    slots: Vec<KnownName>,
    index: ResourceMap<ResourceId, u32>,
    sketch: Sketch,
    random: u64,
}

impl Names {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            slots: Vec::new(),
            index: ResourceMap::default(),
            sketch: Sketch::new(capacity),
            random: 0x2545_f491_4f6c_dd1d,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, resource: ResourceId) -> Option<&KnownName> {
        self.index.get(&resource).map(|&slot| &self.slots[slot as usize])
    }

    pub(super) fn get_mut(&mut self, resource: ResourceId) -> Option<&mut KnownName> {
        self.index.get(&resource).map(|&slot| &mut self.slots[slot as usize])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &KnownName> {
        self.slots.iter()
    }

    /// Counts a sighting; whether the resource is known.
    pub(super) fn touch(&mut self, resource: ResourceId) -> bool {
        self.sketch.add(resource);
        self.index.contains_key(&resource)
    }

    /// Lets a name in that is not known yet, if there is room or somebody worth less.
    pub(super) fn admit(&mut self, at: Timestamp, resource: ResourceId, name: &Name) -> Admission {
        let mut evicted = None;
        if self.slots.len() >= self.capacity {
            let victim = self.victim(at);
            if self.worth(&self.slots[victim], at) >= self.sketch.estimate(resource) * 4 {
                return Admission::Refused;
            }
            evicted = Some(self.take(victim));
        }
        self.index.insert(resource, u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        self.slots.push(KnownName {
            resource,
            name: name.clone(),
            addresses: Vec::new(),
            answered_at: None,
            fresh_until: Timestamp::ZERO,
            rcode: 0,
            service_binding: false,
            ports: Vec::new(),
            last_asked: Timestamp::ZERO,
            last_client: None,
            count: 0,
            unanswered: None,
            heard: at,
        });
        Admission::Taken(evicted)
    }

    /// Takes out some of the names nobody asked for in `idle`: a slice of the table a call, so that no call is long.
    pub(super) fn take_idle(&mut self, now: Timestamp, idle: Duration) -> Vec<KnownName> {
        let mut gone = Vec::new();
        let mut slot = self.slots.len();
        while slot > 0 && gone.len() < 1024 {
            slot -= 1;
            if now.since(self.slots[slot].heard) > idle {
                gone.push(self.take(slot));
            }
        }
        gone
    }

    pub(super) fn bytes(&self) -> usize {
        let heap: usize = self.slots.iter().map(KnownName::heap).sum();
        heap + self.slots.capacity() * size_of::<KnownName>()
            // A hash table of the standard library takes an entry and a control byte a bucket, at most 8/7 full.
            + self.index.capacity() * (size_of::<(ResourceId, u32)>() + 1) * 8 / 7
            + self.sketch.bytes()
    }

    /// What a name is worth, comparable with four times a sketch's estimate: sightings count, those of long ago as
    /// well, which a flood makes the sketch forget; a known port or address a little; and silence takes away.
    fn worth(&self, known: &KnownName, now: Timestamp) -> u64 {
        let seen = self.sketch.estimate(known.resource).max(known.count.min(15)) * 4;
        let extra = 2 * u64::from(!known.ports.is_empty()) + u64::from(known.is_reachable());
        let idle_hours = now.since(known.heard).as_secs() / 3600;
        (seen + extra).saturating_sub(idle_hours)
    }

    fn victim(&mut self, now: Timestamp) -> usize {
        let mut best = (u64::MAX, Timestamp::ZERO, 0);
        for _ in 0..DRAWN {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let slot = (self.random % self.slots.len() as u64) as usize;
            let candidate = (self.worth(&self.slots[slot], now), self.slots[slot].heard, slot);
            best = best.min(candidate);
        }
        best.2
    }

    fn take(&mut self, slot: usize) -> KnownName {
        let known = self.slots.swap_remove(slot);
        self.index.remove(&known.resource);
        if let Some(moved) = self.slots.get(slot) {
            self.index.insert(moved.resource, u32::try_from(slot).unwrap_or(u32::MAX));
        }
        known
    }
}
