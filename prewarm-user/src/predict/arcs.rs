//! What followed what: for each context, how often it occurred, and which resources followed after how long.
//!
//! Comes in: contexts as 64-bit keys, and what followed them. Goes out: a context's arcs. Never here: more than the
//! nodes set aside, 384 bytes each with 26 arcs of 14 bytes. A full set of nodes gives up the one worth least; a full
//! node gives up its weakest arc (space saving: Metwally, Agrawal, El Abbadi 2005).

use super::{
    lags::{BINS, Lags},
    resources::Ref,
    snapshot::{Bytes, Record, Source},
};

/// Arcs of one node.
pub(super) const ARCS: usize = 26;
const WAYS: usize = 4;
/// A node's place and the generation of that place.
pub(super) type Handle = u32;
/// No node.
pub(super) const NOWHERE: Handle = u32::MAX;

const PLACE_BITS: u32 = 24;
/// All counts of a node are halved when it occurred this often: that is how old habits fade.
const HALVE_AT: u8 = 250;

/// One resource that followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arc<'a> {
    pub(super) to: Ref,
    /// How often, by lag.
    pub(super) lags: &'a Lags,
    /// How many occurrences before the last completed one it followed last.
    pub(super) ago: u8,
    /// Whether it followed in the last eight completed occurrences; the latest is the lowest bit.
    pub(super) history: u8,
}

/// A context.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Node {
    key: u64,
    /// When it was used last, in seconds.
    touched: u32,
    /// How often the context occurred.
    pub(super) count: u8,
    generation: u8,
    /// Arcs in use.
    used: u8,
    reserved: u8,
    /// What followed; apart from the counts, so that looking for one reads 104 bytes.
    to: [Ref; ARCS],
    lags: [Lags; ARCS],
    /// The node's count when it followed last: how many occurrences ago that was.
    last: [u8; ARCS],
    /// For the last eight occurrences up to `last`, whether it followed; the latest is the lowest bit.
    history: [u8; ARCS],
    spare: [u8; 4],
}

/// Bytes of a node.
pub(super) const BYTES_EACH: usize = size_of::<Node>();

const _: () = assert!(BYTES_EACH == 384, "the documented bytes per node");

impl Node {
    /// What followed, and when.
    #[inline]
    pub(super) fn arcs(&self) -> impl Iterator<Item = Arc<'_>> {
        (0..usize::from(self.used)).map(|arc| {
            // The occurrence that goes on now has had no chance yet.
            let ago = self.count.saturating_sub(1).saturating_sub(self.last[arc]);
            let history = if ago < 8 { self.history[arc] << ago } else { 0 };
            Arc { to: self.to[arc], lags: &self.lags[arc], ago, history }
        })
    }

    /// The context occurred once more.
    fn occurred(&mut self) {
        if self.count >= HALVE_AT {
            self.count /= 2;
            for lags in &mut self.lags[..usize::from(self.used)] {
                for count in lags {
                    *count /= 2;
                }
            }
            for last in &mut self.last {
                *last /= 2;
            }
        }
        self.count += 1;
    }

    /// `to` followed, in the given lag bin.
    #[inline]
    fn followed(&mut self, to: Ref, bin: usize) {
        let used = usize::from(self.used);
        // All places are looked at, without a way out: that is one vector comparison after the other.
        let mut found = usize::MAX;
        for (place, &known) in self.to.iter().enumerate() {
            if known == to && place < used {
                found = place;
            }
        }
        let arc = if found < used {
            found
        } else if used < ARCS {
            self.used += 1;
            (self.to[used], self.lags[used], self.history[used]) = (to, [0; BINS], 0);
            used
        } else {
            let Some(weakest) = (0..ARCS).min_by_key(|&arc| total(&self.lags[arc])) else { return };
            if total(&self.lags[weakest]) > 1 {
                // Wear it down instead: a passer-by does not replace what came twice.
                if let Some(count) = self.lags[weakest].iter_mut().find(|count| **count > 0) {
                    *count -= 1;
                }
                return;
            }
            (self.to[weakest], self.lags[weakest], self.history[weakest]) = (to, [0; BINS], 0);
            weakest
        };
        let since = self.count.saturating_sub(self.last[arc]);
        self.history[arc] = if since < 8 { self.history[arc] << since } else { 0 } | 1;
        self.last[arc] = self.count;
        let count = &mut self.lags[arc][bin];
        *count = count.saturating_add(1);
    }
}

/// How often an arc was taken.
fn total(lags: &Lags) -> u32 {
    lags.iter().map(|&count| u32::from(count)).sum()
}

impl Record for Node {
    fn put(&self, to: &mut Bytes<'_>) {
        to.put(&self.key).put(&self.touched).put(&[self.count, self.generation, self.used]);
        to.put(&self.to).put(&self.lags).put(&self.last).put(&self.history);
    }

    fn take(from: &mut Source<'_>) -> Self {
        let (key, touched, [count, generation, used]) = (from.take(), from.take(), from.take());
        Self {
            key,
            touched,
            count,
            generation: generation & 0x7f,
            used: used.min(ARCS as u8),
            reserved: 0,
            to: from.take(),
            lags: from.take(),
            last: from.take(),
            history: from.take(),
            spare: [0; 4],
        }
    }

    fn is_used(&self) -> bool {
        self.count > 0
    }
}

/// All nodes.
#[derive(Debug)]
pub(super) struct Arcs {
    pub(super) nodes: Vec<Node>,
}

impl Arcs {
    /// Room for about `count` nodes.
    pub(super) fn new(count: usize) -> Self {
        let count = count.clamp(WAYS, (1 << PLACE_BITS) - 1) / WAYS * WAYS;
        // Not all zeroes: so the memory is there from the start, and no event pays for it.
        let empty = Node {
            key: 0,
            touched: 0,
            count: 0,
            generation: 0,
            used: 0,
            reserved: 0,
            to: [Ref::MAX; ARCS],
            lags: [[0; BINS]; ARCS],
            last: [0; ARCS],
            history: [0; ARCS],
            spare: [0; 4],
        };
        Self { nodes: vec![empty; count] }
    }

    #[inline]
    pub(super) fn get(&self, at: Handle) -> Option<&Node> {
        let node = self.nodes.get((at & ((1 << PLACE_BITS) - 1)) as usize)?;
        (u32::from(node.generation) == at >> PLACE_BITS && node.count > 0).then_some(node)
    }

    #[inline]
    fn get_mut(&mut self, at: Handle) -> Option<&mut Node> {
        let node = self.nodes.get_mut((at & ((1 << PLACE_BITS) - 1)) as usize)?;
        (u32::from(node.generation) == at >> PLACE_BITS && node.count > 0).then_some(node)
    }

    /// The node of this key, if there is one.
    pub(super) fn find(&self, key: u64) -> Option<&Node> {
        let first = self.set(key);
        self.nodes[first..first + WAYS].iter().find(|node| node.count > 0 && node.key == key)
    }

    /// The context of this key occurred: finds or makes its node.
    pub(super) fn occurred(&mut self, key: u64, now: u32) -> Handle {
        let first = self.set(key);
        let at = (first..first + WAYS)
            .find(|&at| self.nodes[at].count > 0 && self.nodes[at].key == key)
            .unwrap_or_else(|| {
                let victim = (first..first + WAYS)
                    .min_by_key(|&at| {
                        let node = &self.nodes[at];
                        // A day of silence takes half. Not by events: a flood of them would age everything.
                        let days = now.saturating_sub(node.touched) / 86_400;
                        (u32::from(node.count) * 256 / (1 + days), node.touched)
                    })
                    .unwrap_or(first);
                let node = &mut self.nodes[victim];
                node.generation = node.generation.wrapping_add(1) & 0x7f;
                (node.key, node.count, node.used) = (key, 0, 0);
                victim
            });
        let node = &mut self.nodes[at];
        node.occurred();
        node.touched = now;
        at as u32 | u32::from(node.generation) << PLACE_BITS
    }

    /// After the context of this node, `to` followed.
    pub(super) fn followed(&mut self, at: Handle, to: Ref, bin: usize) {
        if let Some(node) = self.get_mut(at) {
            node.followed(to, bin);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }

    fn set(&self, key: u64) -> usize {
        let sets = (self.nodes.len() / WAYS) as u64;
        (((key >> 32) * sets) >> 32) as usize * WAYS
    }
}

/// A key of the parts of a context.
pub(super) fn key(parts: &[u64]) -> u64 {
    let mut hash = 0x243f_6a88_85a3_08d3u64;
    for part in parts {
        hash = (hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Counts only fall by halving, follow-ups never outnumber what a byte holds, and the table stays as it is.
        #[test]
        fn bounded_and_fading(events in prop::collection::vec((0u64..40, 0u32..60, 0usize..BINS), 1..2000)) {
            let mut arcs = Arcs::new(16);
            let bytes = arcs.bytes();
            for (event, (context, to, bin)) in (0u32..).zip(events) {
                let handle = arcs.occurred(key(&[context]), event);
                arcs.followed(handle, to, bin);
                let node = arcs.get(handle).unwrap();
                prop_assert!(node.count >= 1 && node.arcs().count() <= ARCS);
                prop_assert!(node.arcs().any(|arc| arc.to == to) || node.arcs().count() == ARCS);
            }
            prop_assert_eq!(arcs.bytes(), bytes);
        }
    }

    #[test]
    fn halving_keeps_ratios() {
        let mut arcs = Arcs::new(16);
        let mut handle = NOWHERE;
        for event in 0..10_000u32 {
            handle = arcs.occurred(key(&[1]), event);
            if event % 2 == 0 {
                arcs.followed(handle, 7, 3);
            }
        }
        let node = arcs.get(handle).unwrap();
        let share = node.arcs().map(|arc| total(arc.lags)).sum::<u32>() as f32 / f32::from(node.count);
        assert!((0.45..0.55).contains(&share), "{share}");
    }
}
