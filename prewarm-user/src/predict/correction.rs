//! The last correction: what was said against what came, as it runs.
//!
//! Comes in: logits and, later, whether they came true. Goes out: probabilities. An adaptive probability map as in
//! context-mixing compressors (Mahoney's APM): the logit falls between two buckets, which share what is learnt.

use super::{
    features::squash,
    snapshot::{Bytes, Record, Source},
};

const BUCKETS: usize = 33;
/// Trials that the start, which believes what is said, is worth.
const START: f32 = 24.0;
/// Trials that a bucket remembers at most.
const MEMORY: f32 = 600.0;

/// One bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    probability: f32,
    weight: f32,
}

/// The map.
#[derive(Clone, Debug)]
pub(super) struct Correction([Bucket; BUCKETS]);

impl Correction {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|at| Bucket { probability: squash((at as f32 - 16.0) / 2.0), weight: START }))
    }

    /// The probability behind a logit.
    #[inline]
    pub(super) fn probability(&self, logit: f32) -> f32 {
        let (low, part) = place(logit);
        self.0[low].probability * (1.0 - part) + self.0[low + 1].probability * part
    }

    /// What was said came true, or not.
    #[inline]
    pub(super) fn learn(&mut self, logit: f32, came: bool) {
        let (low, part) = place(logit);
        let target = if came { 1.0 } else { 0.0 };
        for (at, share) in [(low, 1.0 - part), (low + 1, part)] {
            let bucket = &mut self.0[at];
            bucket.weight = (bucket.weight + share).min(MEMORY);
            bucket.probability += (target - bucket.probability) * share / bucket.weight;
        }
    }
}

impl Record for Correction {
    fn put(&self, to: &mut Bytes<'_>) {
        for bucket in &self.0 {
            to.put(&[bucket.probability, bucket.weight]);
        }
    }

    fn take(from: &mut Source<'_>) -> Self {
        Self(std::array::from_fn(|_| {
            let [probability, weight] = from.take();
            Bucket { probability, weight }
        }))
    }
}

/// Between which bucket and the next a logit stands, and at which part of the way.
#[inline]
fn place(logit: f32) -> (usize, f32) {
    let place = (logit * 2.0 + 16.0).clamp(0.0, (BUCKETS - 1) as f32 - 0.01);
    (place as usize, place.fract())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn overconfidence_is_taken_back() {
        let mut correction = Correction::new();
        assert!((correction.probability(2.0) - 0.88).abs() < 0.01);
        for n in 0..2000 {
            correction.learn(2.0, n % 2 == 0);
        }
        assert!((correction.probability(2.0) - 0.5).abs() < 0.02);
        assert!((correction.probability(-4.0) - 0.018).abs() < 0.01, "elsewhere nothing changed");
    }

    proptest! {
        #[test]
        fn probabilities_stay_probabilities(said in prop::collection::vec((-20f32..20.0, any::<bool>()), 1..500)) {
            let mut correction = Correction::new();
            for (logit, came) in said {
                correction.learn(logit, came);
                prop_assert!((0.0..=1.0).contains(&correction.probability(logit)));
            }
        }
    }
}
