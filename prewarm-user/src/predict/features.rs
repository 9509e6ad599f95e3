//! What a candidate looks like, as numbers: the input of the network.
//!
//! Comes in: counts and ages. Goes out: logits and logarithms of about unit size. Never here: anything about which
//! resource it is; the same numbers mean the same wherever they are met.

/// Contexts of the last access (alone, for this client, with the one before, with the two before), four numbers each:
/// the worth of what followed, its share within ten seconds, how often the context occurred, how long ago it followed.
pub(super) const LAST: usize = 0;
/// The same for the earlier accesses of the burst (the first three contexts): of the best of them the worth, the share,
/// the occurrences; and the second best worth.
pub(super) const EARLIER: usize = 16;
/// For each context of the last access, what the latest eight occurrences say.
pub(super) const LATELY: usize = 28;
/// How many earlier accesses speak for it, with how much, which share of them, and all their evidence together.
pub(super) const VOTES: usize = 32;
/// What other clients accessed lately: the best worth, its occurrences, its age.
pub(super) const OTHERS: usize = 36;
/// The resource itself: age, count, share of all accesses, pace, phase, spread, whether it is cold and since when,
/// how often it came soon after going cold, of how often, how long that took, how far that time has passed.
pub(super) const RESOURCE: usize = 39;
/// This client's use of it: whether any, age, count, share of short gaps, pace, phase, spread, and its age against the
/// short and the middling gap of any client, with the number of gaps.
pub(super) const HABIT: usize = 51;
/// How often it came when it was a leading candidate, against how often it should have; how often it was; its rate.
pub(super) const LEDGER: usize = 61;
/// The situation, the same for all candidates of an event.
pub(super) const SITUATION: usize = 64;
/// Numbers of the situation.
pub(super) const SITUATIONS: usize = 11;
/// All numbers.
pub const FEATURES: usize = SITUATION + SITUATIONS;

/// Groups of features, as bits: what nothing is known of need not be looked at. The first four are the contexts of the
/// last access, three are those of the earlier ones.
pub(super) const EARLIER_GROUP: u32 = 1 << 4;
pub(super) const VOTES_GROUP: u32 = 1 << 7;
pub(super) const OTHERS_GROUP: u32 = 1 << 8;
pub(super) const RESOURCE_GROUP: u32 = 1 << 9;
pub(super) const HABIT_GROUP: u32 = 1 << 10;
pub(super) const LEDGER_GROUP: u32 = 1 << 11;
/// The features of each group: from, to.
pub(super) const GROUPS: [(usize, usize); 12] = [
    (LAST, LAST + 4),
    (LAST + 4, LAST + 8),
    (LAST + 8, LAST + 12),
    (LAST + 12, LAST + 16),
    (EARLIER, EARLIER + 4),
    (EARLIER + 4, EARLIER + 8),
    (EARLIER + 8, EARLIER + 12),
    (VOTES, OTHERS),
    (OTHERS, RESOURCE),
    (RESOURCE, HABIT),
    (HABIT, LEDGER),
    (LEDGER, SITUATION),
];

/// What describes one candidate at one event.
pub type Features = [f32; FEATURES];

/// The logit where nothing is known.
const UNKNOWN: f32 = -1.7;

/// A candidate nothing is known of.
pub(super) const BLANK: Features = {
    let mut blank = [0.0; FEATURES];
    let mut context = 0;
    while context < 4 {
        blank[LAST + context * 4] = UNKNOWN;
        blank[LAST + context * 4 + 1] = UNKNOWN;
        blank[LATELY + context] = UNKNOWN;
        if context < 3 {
            blank[EARLIER + context * 4] = UNKNOWN;
            blank[EARLIER + context * 4 + 1] = UNKNOWN;
        }
        context += 1;
    }
    blank[OTHERS] = UNKNOWN;
    // No trials yet.
    blank[LEDGER + 2] = -1.7;
    // Long ago, and no rhythm.
    blank[RESOURCE + 3] = 2.0;
    blank[RESOURCE + 5] = 1.5;
    blank[HABIT + 1] = 4.0;
    blank[HABIT + 4] = 1.5;
    blank[HABIT + 6] = 1.5;
    blank[HABIT + 7] = 1.5;
    blank[HABIT + 8] = 0.8;
    blank
};

/// The logarithm to the base 2 to within 0.09, never falling where its argument rises.
#[inline]
pub(super) fn fast_log2(value: f32) -> f32 {
    (value.to_bits() as f32) / (1u32 << 23) as f32 - 127.0
}

/// The logit of `hits` in `trials`, with a prior of one trial that leans to "no" (Krichevsky and Trofimov, leaning).
#[inline]
pub(super) fn stretch(hits: f32, trials: f32) -> f32 {
    let hits = hits.min(trials);
    fast_log2((hits + 0.15) / (trials - hits + 0.85)) * std::f32::consts::LN_2
}

/// The probability of a logit.
#[inline]
pub(super) fn squash(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// A logarithm that starts at zero.
#[inline]
pub(super) fn amount(value: f32) -> f32 {
    fast_log2(1.0 + value.max(0.0)) * 0.3
}

/// How far `age` has come through a rhythm of this pace (logarithm to the base 2).
#[inline]
pub(super) fn phase(age: f32, pace: f32) -> f32 {
    (fast_log2(age + 0.1) - pace).clamp(-8.0, 8.0) * 0.3
}

/// The logit of having followed in the latest occurrences, of `count` at most eight, the latest counting most.
#[inline]
pub(super) fn lately(history: u8, count: f32) -> f32 {
    let (mut hits, mut all, mut weight) = (0.0, 0.0, 1.0f32);
    for bit in 0..(count as usize).min(8) {
        all += weight;
        hits += weight * f32::from(history >> bit & 1);
        weight *= 0.75;
    }
    stretch(hits, all)
}

/// Steps a mean of logarithms and its deviation towards a new value: fast at first.
#[inline]
pub(super) fn follow(pace: &mut f32, spread: &mut f32, value: f32, seen: u16) {
    if seen == 0 {
        (*pace, *spread) = (value, 1.5);
    } else {
        *spread += ((value - *pace).abs() - *spread) * 0.2;
        *pace += (value - *pace) * 0.25;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_finite_and_ordered() {
        for trials in 0..300u32 {
            let mut last = f32::NEG_INFINITY;
            for hits in 0..=trials {
                let now = stretch(hits as f32, trials as f32);
                assert!(now.is_finite() && now >= last, "{hits} of {trials}");
                last = now;
            }
        }
        assert!(amount(0.0).abs() < 0.05 && amount(-5.0).abs() < 0.05 && amount(1e30).is_finite());
        assert!((fast_log2(1024.0) - 10.0).abs() < 0.1);
        assert!((squash(0.0) - 0.5).abs() < 1e-6 && squash(90.0) <= 1.0 && squash(-90.0) >= 0.0);
        assert!(lately(0b1, 8.0) > lately(0b10, 8.0) && lately(0, 8.0) < lately(0, 1.0));
    }
}
