//! Resources as small numbers, in a fixed table.
//!
//! Comes in: resource IDs. Goes out: 32-bit references that arcs store instead of them; a reference to a resource that
//! was evicted is found stale. Never here: more entries than set aside. A set of eight places keeps its newcomers in
//! the place of the one worth least, so resources seen once push out only one another.

use super::{
    features::{fast_log2, follow},
    snapshot::{Bytes, Record, Source},
    trials::NONE,
};
use crate::model::ResourceId;

/// A resource's place (low 16 bits and up) and the generation of the place (high bits).
pub(super) type Ref = u32;

const PLACE_BITS: u32 = 18;
/// Generations of a place, less one.
const GENERATIONS: u16 = (1 << (32 - PLACE_BITS)) - 1;
const WAYS: usize = 8;

/// One resource.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource {
    id: ResourceId,
    /// When it was accessed last, in seconds.
    pub(super) last: f64,
    /// Until when the copy fetched at a past access would be kept, in seconds: whether it is cold.
    pub(super) kept_until: f64,
    /// When the last long silence about it ended, in seconds.
    pub(super) began: u32,
    /// The newest trial about it.
    pub(super) trial: u32,
    /// The newest lesson about it.
    pub(super) lesson: u32,
    /// Accesses, up to 65535.
    pub(super) count: u16,
    /// Its rhythm.
    pub(super) rhythm: Rhythm,
    /// How predictions of it turned out.
    pub(super) ledger: Ledger,
    generation: u16,
    used: bool,
}

/// When a resource comes: gaps as logarithms (base 2) of seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rhythm {
    /// Mean gap of the whole host, and its mean deviation; valid from the second access on.
    pub(super) pace: f32,
    pub(super) spread: f32,
    /// A short and the middling gap of one client, with the number of gaps.
    pub(super) short: f32,
    pub(super) middling: f32,
    pub(super) gaps: u16,
    /// How often a copy was fetched, and how often it was wanted again within a minute of going cold.
    pub(super) fetched: u16,
    pub(super) renewed: u16,
    /// Mean gap between going cold and the next access.
    pub(super) cold_pace: f32,
}

impl Resource {
    /// It was accessed; `gap` seconds ago by the same client.
    pub(super) fn accessed(&mut self, now: f64, gap: Option<f32>) {
        if let Some(gap) = gap {
            self.rhythm.returned(gap);
        }
        if self.count > 0 {
            let gap = fast_log2(((now - self.last) as f32).max(0.05));
            follow(&mut self.rhythm.pace, &mut self.rhythm.spread, gap, self.count - 1);
        }
        self.last = now;
        self.count = self.count.saturating_add(1);
    }

    /// A copy was fetched, to be kept until then.
    pub(super) fn fetched(&mut self, now: f64, until: f64) {
        self.rhythm.fetched((now - self.kept_until) as f32);
        self.kept_until = until;
    }
}

impl Rhythm {
    /// One client came back after `gap` seconds.
    fn returned(&mut self, gap: f32) {
        let gap = fast_log2(1.0 + gap);
        if self.gaps == 0 {
            (self.short, self.middling) = (gap, gap);
        }
        self.gaps = self.gaps.saturating_add(1);
        // Steps towards the tenth and the fiftieth percentile.
        let step = 2.0 / (4.0 + f32::from(self.gaps.min(40)));
        self.short += if gap < self.short { -1.8 * step } else { 0.2 * step };
        self.middling += if gap < self.middling { -step } else { step };
    }

    /// It was fetched, `cold` seconds after the last copy had gone cold.
    fn fetched(&mut self, cold: f32) {
        if self.fetched > 0 {
            let gap = fast_log2(cold.clamp(0.1, 1e6));
            self.cold_pace += (gap - self.cold_pace) * if self.fetched < 3 { 0.5 } else { 0.25 };
            self.renewed += u16::from(cold <= 60.0);
        } else {
            self.cold_pace = 6.0;
        }
        if self.fetched >= 1000 {
            (self.fetched, self.renewed) = (self.fetched / 2, self.renewed / 2);
        }
        self.fetched += 1;
    }
}

/// How often something was tried, came, and should have come; old times fade.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ledger {
    pub(super) tried: f32,
    pub(super) came: f32,
    pub(super) hoped: f32,
}

impl Ledger {
    /// One more trial; all counts are halved at `limit`.
    #[inline]
    pub(super) fn note(&mut self, came: bool, hoped: f32, limit: f32) {
        if self.tried >= limit {
            (self.tried, self.came, self.hoped) = (self.tried / 2.0, self.came / 2.0, self.hoped / 2.0);
        }
        self.tried += 1.0;
        self.came += if came { 1.0 } else { 0.0 };
        self.hoped += hoped;
    }

    /// How much more, or less, came than should have, as a logarithm.
    #[inline]
    pub(super) fn luck(&self) -> f32 {
        fast_log2((self.came + 0.5) / (self.hoped + 0.5)) * 0.5
    }
}

impl Record for Ledger {
    fn put(&self, to: &mut Bytes<'_>) {
        to.put(&[self.tried, self.came, self.hoped]);
    }

    fn take(from: &mut Source<'_>) -> Self {
        let [tried, came, hoped] = from.take();
        Self { tried, came, hoped }
    }
}

impl Record for Resource {
    fn put(&self, to: &mut Bytes<'_>) {
        let rhythm = &self.rhythm;
        to.put(&self.id.0).put(&[self.last, self.kept_until]).put(&self.began).put(&[self.count, self.generation]);
        to.put(&[rhythm.pace, rhythm.spread, rhythm.short, rhythm.middling, rhythm.cold_pace]);
        to.put(&[rhythm.gaps, rhythm.fetched, rhythm.renewed]).put(&self.ledger);
    }

    fn take(from: &mut Source<'_>) -> Self {
        let (id, [last, kept_until], began, [count, generation]) = (from.take(), from.take(), from.take(), from.take());
        let [pace, spread, short, middling, cold_pace] = from.take();
        let [gaps, fetched, renewed] = from.take();
        Self {
            id: ResourceId(id),
            last,
            kept_until,
            began,
            // Trials do not outlive a restart.
            trial: NONE,
            lesson: NONE,
            count,
            rhythm: Rhythm { pace, spread, short, middling, gaps, fetched, renewed, cold_pace },
            ledger: from.take(),
            generation: generation & GENERATIONS,
            used: true,
        }
    }

    fn is_used(&self) -> bool {
        self.used
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Resources {
    pub(super) places: Vec<Resource>,
}

impl Resources {
    pub(super) const BYTES_EACH: usize = size_of::<Resource>();

    /// A table of about `count` places.
    pub(super) fn new(count: usize) -> Self {
        let count = count.clamp(WAYS, 1 << PLACE_BITS) / WAYS * WAYS;
        let empty = Resource {
            id: ResourceId(0),
            last: 0.0,
            kept_until: 0.0,
            began: 0,
            trial: NONE,
            lesson: NONE,
            count: 0,
            rhythm: Rhythm::default(),
            ledger: Ledger::default(),
            generation: 0,
            used: false,
        };
        Self { places: vec![empty; count] }
    }

    /// The resource behind a reference, if it is still there.
    #[inline]
    pub(super) fn get(&self, at: Ref) -> Option<&Resource> {
        let resource = self.places.get(place(at))?;
        (resource.used && resource.generation == generation(at)).then_some(resource)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: Ref) -> Option<&mut Resource> {
        let resource = self.places.get_mut(place(at))?;
        (resource.used && resource.generation == generation(at)).then_some(resource)
    }

    /// The ID behind a reference.
    #[inline]
    pub(super) fn id(&self, at: Ref) -> Option<ResourceId> {
        self.get(at).map(|resource| resource.id)
    }

    /// The reference of a resource that is known.
    pub(super) fn find(&self, id: ResourceId) -> Option<Ref> {
        let first = self.set(id);
        (first..first + WAYS).find(|&at| self.places[at].used && self.places[at].id == id).map(|at| self.reference(at))
    }

    /// The reference of a resource, which is taken in if need be.
    pub(super) fn intern(&mut self, id: ResourceId, now: f64) -> Ref {
        if let Some(known) = self.find(id) {
            return known;
        }
        let first = self.set(id);
        let worth = |resource: &Resource| {
            // A day of silence takes half, two take two thirds: a habit of once a week outlives what came once.
            let days = ((now - resource.last) / 86_400.0).max(0.0);
            (f64::from(resource.count.min(255)) / (1.0 + days), resource.last)
        };
        let victim = (first..first + WAYS)
            .min_by(|&a, &b| {
                let (a, b) = (&self.places[a], &self.places[b]);
                a.used.cmp(&b.used).then_with(|| worth(a).partial_cmp(&worth(b)).unwrap_or(std::cmp::Ordering::Equal))
            })
            .unwrap_or(first);
        let generation = self.places[victim].generation.wrapping_add(1) & GENERATIONS;
        self.places[victim] = Resource {
            id,
            last: now,
            kept_until: f64::NEG_INFINITY,
            began: now as u32,
            trial: NONE,
            lesson: NONE,
            count: 0,
            rhythm: Rhythm::default(),
            ledger: Ledger::default(),
            generation,
            used: true,
        };
        self.reference(victim)
    }

    pub(super) fn forget(&mut self, id: ResourceId) {
        if let Some(at) = self.find(id) {
            let resource = &mut self.places[place(at)];
            resource.used = false;
            resource.count = 0;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Resource>()
    }

    fn set(&self, id: ResourceId) -> usize {
        let sets = (self.places.len() / WAYS) as u64;
        let hash = id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (((hash >> 32) * sets) >> 32) as usize * WAYS
    }

    fn reference(&self, at: usize) -> Ref {
        at as u32 | u32::from(self.places[at].generation) << PLACE_BITS
    }
}

#[inline]
fn place(at: Ref) -> usize {
    (at & ((1 << PLACE_BITS) - 1)) as usize
}

#[inline]
fn generation(at: Ref) -> u16 {
    (at >> PLACE_BITS) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_push_out_only_one_another() {
        let mut resources = Resources::new(1024);
        let useful: Vec<_> = (0..400).map(|n| resources.intern(ResourceId(n), 0.0)).collect();
        for &at in &useful {
            if let Some(resource) = resources.get_mut(at) {
                resource.count = 10;
            }
        }
        let before = useful.iter().filter(|at| resources.get(**at).is_some()).count();
        for n in 1_000_000..2_000_000u64 {
            let at = resources.intern(ResourceId(n), 1.0);
            assert_eq!(resources.id(at), Some(ResourceId(n)));
            resources.get_mut(at).unwrap().count = 1;
        }
        let after = useful.iter().filter(|at| resources.get(**at).is_some()).count();
        assert!(after + 4 >= before && after > 380, "{after} of {before}");
        resources.forget(ResourceId(useful.len() as u64 - 1));
        assert_eq!(resources.get(useful[399]).map(|r| r.id), None);
    }
}
