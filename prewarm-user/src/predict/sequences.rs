//! What comes next in an ordered list without times: the resources of a page, the fragments of an object.
//!
//! Comes in: whole sequences, to learn from; the beginning of one, to predict from. Goes out: the most likely of the
//! next items. Never here: more pairs than set aside; what comes when all are taken is not learnt.
//!
//! Two experts answer. The first is prediction by partial matching, longest context first, escape C (Cleary and Witten
//! 1984, Moffat 1990): it wins where order matters. The second is a vote of what stood so many places before, whatever
//! lay between (the dependency graph of Padmanabhan and Mogul 1996, by distance): it wins on sets and noisy orders. How
//! much the first counts beside the second, how far from a sequence's end the votes are taken, and whether repetitions
//! are expected, is learnt: before a sequence is learnt its end is predicted in every way, and the way that has been
//! right more often is heard more.

use std::collections::HashMap;

use crate::model::{ResourceId, ResourceMap};

/// Longest context of the first expert.
const ORDERS: usize = 5;
/// Votes are taken from this many last places of each sequence.
const TAILS: [usize; 4] = [1, 3, 12, usize::MAX];
/// How much the first expert counts beside the votes.
const SHARES: [f32; 8] = [0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 6.0, 1e6];
/// What is left of an item's score where repetitions are not expected.
const REPEATED: f32 = 1e-3;
/// All ways: share, tail, repetitions.
const WAYS: usize = SHARES.len() * TAILS.len() * 2;
/// How much less a way is heard that is right a little less often: to this power.
const SHARPNESS: f64 = 64.0;
/// Sequences that are all tried; of later ones, every second.
const ALL_TRIED: u32 = 1500;

/// What followed a context, counted in `N` ways.
#[derive(Clone, Debug)]
struct Followers<const N: usize> {
    count: [u32; N],
    of: ResourceMap<ResourceId, [u32; N]>,
}

impl<const N: usize> Default for Followers<N> {
    fn default() -> Self {
        Self { count: [0; N], of: HashMap::default() }
    }
}

/// What the experts say of one item.
#[derive(Clone, Copy, Debug, Default)]
struct Scores {
    matching: f32,
    votes: [f32; TAILS.len()],
    repeated: bool,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Sequences {
    window: usize,
    consequent: usize,
    /// Pairs left to be taken.
    room: usize,
    contexts: ResourceMap<u64, Followers<1>>,
    /// Counts by the nearest tail.
    lags: ResourceMap<u64, Followers<{ TAILS.len() }>>,
    /// How often each way was right; the more had been learnt, the more it counts.
    right: Vec<f64>,
    learnt: u32,
}

impl Sequences {
    /// An empty model that predicts one of the next `consequent` items from the `window` before, and takes `pairs`
    /// pairs of a context and what followed at most (about 40 bytes each).
    #[must_use]
    pub fn new(window: usize, consequent: usize, pairs: usize) -> Self {
        Self {
            window: window.max(1),
            consequent: consequent.max(1),
            room: pairs,
            contexts: HashMap::default(),
            lags: HashMap::default(),
            right: vec![0.0; WAYS],
            learnt: 0,
        }
    }

    /// Learns a sequence; before that, tries each way of predicting its end.
    pub fn learn(&mut self, sequence: &[ResourceId]) {
        if self.learnt < ALL_TRIED || self.learnt.is_multiple_of(2) {
            self.try_out(sequence);
        }
        self.learnt = self.learnt.saturating_add(1);
        let mut next = Vec::with_capacity(self.consequent);
        for place in 1..sequence.len() {
            let end = sequence.len().min(place + self.consequent);
            next.clear();
            for item in &sequence[place..end] {
                if !next.contains(item) {
                    next.push(*item);
                }
            }
            for order in 1..=ORDERS.min(place) {
                let key = key(order as u64, &sequence[place - order..place]);
                note(self.contexts.entry(key).or_default(), &next, 0, &mut self.room);
            }
            if place + self.consequent > sequence.len() {
                continue;
            }
            // 1 is where a prediction of the end is made from.
            let from_end = sequence.len() - self.consequent - place + 1;
            let tail = TAILS.iter().position(|tail| from_end <= *tail).unwrap_or(TAILS.len() - 1);
            for back in 1..=self.window.min(place) {
                let key = key(100 + back as u64, &sequence[place - back..=place - back]);
                note(self.lags.entry(key).or_default(), &next, tail, &mut self.room);
            }
        }
    }

    /// The item most likely among the next, by all ways together, each the more heard the more often it has been right.
    #[must_use]
    pub fn predict(&self, context: &[ResourceId]) -> Option<ResourceId> {
        let mixed = self.mixed();
        let mut best: Option<(f32, ResourceId)> = None;
        for (item, scores) in self.scores(context) {
            let score = scores.mixed(&mixed);
            if best.is_none_or(|(known, id)| score > known || (score == known && item < id)) {
                best = Some((score, item));
            }
        }
        best.map(|(_, item)| item)
    }

    /// The weights of all ways together.
    fn mixed(&self) -> Mixed {
        let most = self.right.iter().copied().fold(0.0, f64::max).max(1.0);
        let mut mixed = Mixed::default();
        for (way, right) in self.right.iter().enumerate() {
            let (share, tail, unique) = parts(way);
            let weight = (right / most).powf(SHARPNESS) as f32;
            mixed.votes[tail] += weight / (1.0 + share);
            mixed.matching += weight * share / (1.0 + share);
            mixed.unique += if unique { weight } else { -weight };
        }
        mixed
    }

    /// Pairs learnt and still to be taken, times their size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |followers: usize, each: usize| followers * (each + size_of::<ResourceId>() + 1);
        let contexts: usize = self.contexts.values().map(|known| of(known.of.capacity(), 4)).sum();
        let lags: usize = self.lags.values().map(|known| of(known.of.capacity(), 4 * TAILS.len())).sum();
        contexts
            + lags
            + self.contexts.capacity() * size_of::<(u64, Followers<1>)>()
            + self.lags.capacity() * size_of::<(u64, Followers<{ TAILS.len() }>)>()
    }

    /// Predicts the end of a sequence in every way.
    fn try_out(&mut self, sequence: &[ResourceId]) {
        if sequence.len() <= self.consequent {
            return;
        }
        let (context, truth) = sequence.split_at(sequence.len() - self.consequent);
        let mut best = [(f32::NEG_INFINITY, ResourceId(u64::MAX)); WAYS];
        for (item, scores) in self.scores(context) {
            for (way, best) in best.iter_mut().enumerate() {
                let score = scores.by(way);
                if score > best.0 || (score == best.0 && item < best.1) {
                    *best = (score, item);
                }
            }
        }
        for (right, (_, item)) in self.right.iter_mut().zip(best) {
            if truth.contains(&item) {
                *right += f64::from(self.learnt).powi(2);
            }
        }
    }

    fn scores(&self, context: &[ResourceId]) -> ResourceMap<ResourceId, Scores> {
        let context = &context[context.len().saturating_sub(self.window)..];
        let mut scores: ResourceMap<ResourceId, Scores> = HashMap::default();
        let mut left = 1.0f32;
        for order in (1..=ORDERS.min(context.len())).rev() {
            let key = key(order as u64, &context[context.len() - order..]);
            let Some(known) = self.contexts.get(&key).filter(|known| known.count[0] > 0) else { continue };
            let (count, distinct) = (known.count[0] as f32, known.of.len() as f32);
            let escape = distinct / (count + distinct);
            for (item, hits) in &known.of {
                scores.entry(*item).or_default().matching += left * (1.0 - escape) * hits[0] as f32 / count;
            }
            left *= escape;
        }
        for back in 1..=context.len() {
            let place = context.len() - back;
            let key = key(100 + back as u64, &context[place..=place]);
            let Some(known) = self.lags.get(&key) else { continue };
            let mut weights = [0.0f32; TAILS.len()];
            let mut count = 0.0;
            for (weight, more) in weights.iter_mut().zip(known.count) {
                count += more as f32;
                // The further back and the rarer, the less it is believed.
                *weight = 1.0 / ((count + 2.0) * (back as f32).sqrt());
            }
            for (item, hits) in &known.of {
                let votes = &mut scores.entry(*item).or_default().votes;
                let mut sum = 0.0;
                for ((vote, weight), more) in votes.iter_mut().zip(weights).zip(hits) {
                    sum += *more as f32;
                    *vote += weight * sum;
                }
            }
        }
        for item in context {
            if let Some(scores) = scores.get_mut(item) {
                scores.repeated = true;
            }
        }
        scores
    }
}

/// How the experts are added up, by all ways together.
#[derive(Clone, Copy, Debug, Default)]
struct Mixed {
    matching: f32,
    votes: [f32; TAILS.len()],
    /// Above zero if repetitions are not expected.
    unique: f32,
}

impl Scores {
    /// The score by all ways together.
    fn mixed(&self, mixed: &Mixed) -> f32 {
        let votes: f32 = self.votes.iter().zip(mixed.votes).map(|(votes, weight)| votes * weight).sum();
        let score = votes + mixed.matching * self.matching;
        if mixed.unique > 0.0 && self.repeated { score * REPEATED } else { score }
    }

    /// The score in one way.
    fn by(&self, way: usize) -> f32 {
        let (share, tail, unique) = parts(way);
        let score = self.votes[tail] + share * self.matching;
        if unique && self.repeated { score * REPEATED } else { score }
    }
}

/// A way's share of the first expert, tail, and whether repetitions are not expected.
fn parts(way: usize) -> (f32, usize, bool) {
    (SHARES[way / (2 * TAILS.len())], way / 2 % TAILS.len(), way % 2 == 1)
}

/// Counts what followed a context, in way `tail`.
fn note<const N: usize>(followers: &mut Followers<N>, next: &[ResourceId], tail: usize, room: &mut usize) {
    followers.count[tail] += 1;
    for item in next {
        if let Some(hits) = followers.of.get_mut(item) {
            hits[tail] += 1;
        } else if *room > 0 {
            *room -= 1;
            followers.of.entry(*item).or_insert([0; N])[tail] += 1;
        }
    }
}

/// A key of a context of this kind.
fn key(kind: u64, items: &[ResourceId]) -> u64 {
    let mut hash = kind.wrapping_mul(0x243f_6a88_85a3_08d3) | 1;
    for item in items {
        hash = (hash ^ item.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(items: &[u64]) -> Vec<ResourceId> {
        items.iter().copied().map(ResourceId).collect()
    }

    #[test]
    fn order_is_learnt() {
        let mut model = Sequences::new(5, 1, 1 << 16);
        for n in 0..50 {
            model.learn(&items(&[n + 100, 1, 2, 3]));
            model.learn(&items(&[n + 100, 2, 1, 4]));
        }
        assert_eq!(model.predict(&items(&[7, 1, 2])), Some(ResourceId(3)));
        assert_eq!(model.predict(&items(&[7, 2, 1])), Some(ResourceId(4)));
        assert_eq!(model.predict(&items(&[8, 9])), None);
    }

    #[test]
    fn sets_are_learnt_where_order_is_noise() {
        let mut model = Sequences::new(5, 1, 1 << 16);
        for n in 0..200u64 {
            let (a, b) = (n % 7 + 100, n % 11 + 200);
            model.learn(&items(&if n % 2 == 0 { [1, a, b, 9] } else { [2, b, a, 8] }));
        }
        assert_eq!(model.predict(&items(&[1, 999, 998])), Some(ResourceId(9)));
        assert_eq!(model.predict(&items(&[2, 999, 998])), Some(ResourceId(8)));
    }

    proptest! {
        #[test]
        fn any_sequences_are_taken_within_bounds(
            sequences in prop::collection::vec(prop::collection::vec(0u64..30, 0..12), 0..40),
            window in 0usize..8, consequent in 0usize..4, pairs in 0usize..200,
        ) {
            let mut model = Sequences::new(window, consequent, pairs);
            for sequence in &sequences {
                model.learn(&items(sequence));
                prop_assert!(model.predict(&items(sequence)).is_none_or(|item| item.0 < 30));
            }
            let taken: usize = model.contexts.values().map(|known| known.of.len()).sum::<usize>()
                + model.lags.values().map(|known| known.of.len()).sum::<usize>();
            prop_assert!(taken <= pairs);
        }
    }
}
