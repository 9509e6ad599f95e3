//! How often what a count seems to say comes true: the learnt hit rate of each state of counts.
//!
//! "Followed 2 of 3 times" is worth what it turned out to be worth, in this place, for this kind of context. Comes in:
//! states and whether they came true. Goes out: a probability, in the logit domain.

/// States of one expert: counts below 8 exactly, above by size and ratio, each by how long ago the last hit was.
pub(super) const STATES: usize = COUNTS * AGES;
const COUNTS: usize = 128;
const AGES: usize = 3;

/// Trials that the start is worth.
const PRIOR: f32 = 40.0;

const EXACT: u32 = 8;
const RATIOS: u32 = 24;

/// The state of `hits` in `trials`, the last of them `ago` trials before the latest.
pub(super) fn state(hits: f32, trials: f32, ago: u8) -> u16 {
    let age = match ago {
        0 => 0,
        1 | 2 => 1,
        _ => 2,
    };
    age * COUNTS as u16 + u16::from(counts(hits, trials))
}

/// `hits` is no more than `trials`, and there is at least one trial.
fn counts(hits: f32, trials: f32) -> u8 {
    let trials = trials.max(1.0);
    let hits = hits.clamp(0.0, trials);
    let rounded = trials.round() as u32;
    if rounded < EXACT {
        let hits = (hits.round() as u32).min(rounded);
        // Row n holds the n + 1 states of n trials.
        return (rounded * (rounded + 1) / 2 - 1 + hits) as u8;
    }
    let size = if rounded < 20 {
        0
    } else if rounded < 70 {
        1
    } else {
        2
    };
    let odds = fast_log2((hits + 0.25) / (trials - hits + 0.25));
    let ratio = ((odds + 8.5) * 1.4).clamp(0.0, (RATIOS - 1) as f32) as u32;
    (EXACT * (EXACT + 1) / 2 - 1 + size * RATIOS + ratio) as u8
}

/// The logarithm to the base 2 to within 0.09, never falling where its argument rises: enough to choose a state.
pub(super) fn fast_log2(value: f32) -> f32 {
    (value.to_bits() as f32) / (1u32 << 23) as f32 - 127.0
}

/// One state's record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    probability: f32,
    weight: f32,
    /// Logit of the probability, kept so that predicting takes no logarithm.
    pub(super) logit: f32,
}

/// The logit, bounded.
pub(super) fn logit(probability: f32) -> f32 {
    let p = probability.clamp(1e-4, 1.0 - 1e-4);
    (p / (1.0 - p)).ln()
}

/// The probability of a logit.
pub(super) fn squash(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

impl Rate {
    pub(super) fn new(probability: f32, weight: f32) -> Self {
        Self { probability, weight, logit: logit(probability) }
    }

    pub(super) fn probability(&self) -> f32 {
        self.probability
    }

    /// It came true, or not, with this much weight; the record's own weight stays below `limit`, so it goes on
    /// adapting.
    pub(super) fn learn(&mut self, hit: bool, weight: f32, limit: f32) {
        self.weight = (self.weight + weight).min(limit);
        let target = if hit { 1.0 } else { 0.0 };
        self.probability += (target - self.probability) * weight / self.weight;
        self.logit = logit(self.probability);
    }
}

/// The rates of one expert.
#[derive(Clone, Debug)]
pub(super) struct Rates(pub(super) [Rate; STATES]);

impl Rates {
    /// Starts from what the counts say, a little less (Krichevsky and Trofimov, with a prior below a half).
    pub(super) fn new() -> Self {
        let mut rates = [Rate::new(0.1, 1.0); STATES];
        for trials in 1..300u32 {
            for hits in 0..=trials {
                let (hits, trials) = (hits as f32, trials as f32);
                let start = Rate::new((hits + 0.3) / (trials + 1.5), PRIOR);
                for age in 0..AGES {
                    rates[age * COUNTS + usize::from(counts(hits, trials))] = start;
                }
            }
        }
        Self(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_in_range_and_ordered() {
        let rates = Rates::new();
        for trials in 1..=255u32 {
            let mut last = 0;
            for hits in 0..=trials {
                let state = state(hits as f32, trials as f32, 0);
                assert!(usize::from(state) < STATES && state >= last);
                last = state;
                assert!((0.0..=1.0).contains(&rates.0[usize::from(state)].probability()));
            }
        }
    }

    #[test]
    fn learns_the_rate() {
        let mut rate = Rate::new(0.9, 4.0);
        for n in 0..1000 {
            rate.learn(n % 4 == 0, 1.0, 255.0);
        }
        assert!((rate.probability() - 0.25).abs() < 0.02);
        assert!((squash(rate.logit) - rate.probability()).abs() < 1e-4);
    }
}
