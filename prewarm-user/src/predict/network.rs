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
    features::{self, FEATURES, Features, LATELY},
    weights,
};

/// Hidden units.
pub(super) const HIDDEN: usize = 16;
/// Sums of one candidate: the hidden units, and the linear path of the two outputs.
pub(super) const SUMS: usize = HIDDEN + 4;

/// Groups of features.
pub(super) const GROUPS: usize = features::GROUPS.len();

/// The weights as they are used.
static INPUT: [[f32; SUMS]; FEATURES] = scaled(&weights::INPUT);
const BIAS: [f32; SUMS] = scaled(&[weights::BIAS])[0];
static OUTPUT: [[f32; HIDDEN]; 2] = scaled(&weights::OUTPUT);

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
    let mut sums = BIAS;
    for (value, weights) in features.iter().zip(&INPUT) {
        add(&mut sums, *value, weights);
    }
    sums
}

/// What is said of a candidate whose features differ from `base`, with the sums `start`, in the groups `touched` only.
#[inline]
pub(super) fn judge(features: &Features, touched: u32, base: &Features, start: &[f32; SUMS]) -> Logits {
    let mut sums = *start;
    let mut rest = touched;
    while rest != 0 {
        let group = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        let (from, to) = features::GROUPS[group];
        for at in from..to {
            add(&mut sums, features[at] - base[at], &INPUT[at]);
        }
        if group < 4 {
            let at = LATELY + group;
            add(&mut sums, features[at] - base[at], &INPUT[at]);
        }
    }
    let (mut worth, mut soon) = (sums[HIDDEN], sums[HIDDEN + 1]);
    let [for_worth, for_soon] = &OUTPUT;
    for ((sum, for_worth), for_soon) in sums.iter().zip(for_worth).zip(for_soon) {
        let value = sum.max(0.1 * sum);
        worth += value * for_worth;
        soon += value * for_soon;
    }
    Logits { worth: worth.clamp(-12.0, 12.0), soon: soon.clamp(-12.0, 12.0) }
}

/// From ten-thousandths.
const fn scaled<const N: usize, const M: usize>(weights: &[[i32; N]; M]) -> [[f32; N]; M] {
    let mut scaled = [[0.0; N]; M];
    let mut row = 0;
    while row < M {
        let mut column = 0;
        while column < N {
            scaled[row][column] = weights[row][column] as f32 / 10_000.0;
            column += 1;
        }
        row += 1;
    }
    scaled
}

#[inline]
fn add(sums: &mut [f32; SUMS], value: f32, weights: &[f32; SUMS]) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum += value * weight;
    }
}

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
