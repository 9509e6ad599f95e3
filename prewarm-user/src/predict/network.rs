//! From what a candidate looks like to how likely it is: a small network with fixed weights.
//!
//! Comes in: features. Goes out: two logits, one for "accessed within ten seconds", one for "a copy made now is used,
//! and no better moment to make it comes". Never here: learning. The weights say what counts are worth, whichever they
//! are; they were fitted once over recorded traffic of many kinds (`docs/prediction.md`), while the counts, the ledgers
//! and the last correction are learnt as the model runs.
//!
//! Sixteen hidden units (leaky rectifiers) beside a linear path: logistic mixing (Mahoney 2005) whose weights depend on
//! the situation.

use super::{
    features::{FEATURES, Features, GROUPS, LATELY},
    weights,
};

/// Hidden units.
pub(super) const HIDDEN: usize = 16;
/// Sums of one candidate: the hidden units, and the linear path of the two outputs.
pub(super) const SUMS: usize = HIDDEN + 4;

/// What is said of one candidate, as logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Logits {
    /// A copy made now is used before it goes cold, and no better moment comes.
    pub(super) worth: f32,
    /// Accessed by anyone within ten seconds.
    pub(super) soon: f32,
}

/// The sums of a candidate that looks like this.
pub(super) fn sums(features: &Features) -> [f32; SUMS] {
    let mut sums = weights::BIAS;
    for (value, weights) in features.iter().zip(&weights::INPUT) {
        add(&mut sums, *value, weights);
    }
    sums
}

/// What is said of a candidate whose features differ from `base`, with the sums `start`, in the groups `touched` only.
pub(super) fn judge(features: &Features, touched: u32, base: &Features, start: &[f32; SUMS]) -> Logits {
    let mut sums = *start;
    let mut rest = touched;
    while rest != 0 {
        let group = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        let (from, to) = GROUPS[group];
        for at in from..to {
            add(&mut sums, features[at] - base[at], &weights::INPUT[at]);
        }
        if group < 4 {
            let at = LATELY + group;
            add(&mut sums, features[at] - base[at], &weights::INPUT[at]);
        }
    }
    let (mut worth, mut soon) = (sums[HIDDEN], sums[HIDDEN + 1]);
    for unit in 0..HIDDEN {
        let value = sums[unit].max(0.1 * sums[unit]);
        worth += value * weights::OUTPUT[0][unit];
        soon += value * weights::OUTPUT[1][unit];
    }
    Logits { worth: worth.clamp(-12.0, 12.0), soon: soon.clamp(-12.0, 12.0) }
}

#[inline]
fn add(sums: &mut [f32; SUMS], value: f32, weights: &[f32; SUMS]) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum += value * weight;
    }
}

const _: () = assert!(weights::INPUT.len() == FEATURES);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::predict::features::BLANK;

    proptest! {
        #[test]
        fn any_numbers_give_bounded_logits(at in 0..FEATURES, value in -1e6f32..1e6) {
            let mut features = BLANK;
            features[at] = value;
            let start = sums(&BLANK);
            let said = judge(&features, u32::MAX >> 20, &BLANK, &start);
            prop_assert!(said.worth.abs() <= 12.0 && said.soon.abs() <= 12.0);
        }
    }
}
