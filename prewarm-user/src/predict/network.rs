//! From what a candidate looks like to how likely it is: a small network.
//!
//! Comes in: features, and later what they were worth. Goes out: two logits, one for "accessed within ten seconds", one
//! for "a copy made now is used, and no better moment to make it comes". Never here: which resource it is about. The
//! weights say what counts are worth, whichever they are: they were fitted once over recorded traffic of many kinds
//! (`docs/prediction.md`), and the hidden units go on learning slowly where the model runs.
//!
//! Hidden units (leaky rectifiers) beside a linear path: logistic mixing (Mahoney 2005) whose weights depend on the
//! situation. Most of the units serve the worth alone, and these learn; what the probability is made from stays as it was
//! fitted, so that it means the same in situations that nothing is learnt from.

use super::{
    features::{self, FEATURES, Features, LATELY, squash},
    snapshot::{Bytes, Record, Source},
    weights,
};

/// Hidden units: those that serve the worth alone, then those that serve both outputs.
pub(super) const HIDDEN: usize = 24;
const OWN: usize = 16;
/// Sums of one candidate: the hidden units, and the linear path of the two outputs.
pub(super) const SUMS: usize = HIDDEN + 4;
/// The sums that stay as they were fitted. They are kept apart: short rows stay in registers while they are summed up.
const FIXED: usize = SUMS - OWN;

/// Groups of features.
pub(super) const GROUPS: usize = features::GROUPS.len();

/// The weights that are shipped.
static INPUT: [[f32; OWN]; FEATURES] = scaled(&part(&weights::INPUT, 0));
static FIXED_INPUT: [[f32; FIXED]; FEATURES] = scaled(&part(&weights::INPUT, OWN));
const BIAS: [f32; OWN] = scaled(&part(&[weights::BIAS], 0))[0];
const FIXED_BIAS: [f32; FIXED] = scaled(&part(&[weights::BIAS], OWN))[0];
static OUTPUT: [[f32; HIDDEN]; 2] = scaled(&weights::OUTPUT);
/// Mean of each feature over what the weights were fitted to, and one over its deviation.
static MOMENTS: [[f32; FEATURES]; 2] = scaled(&weights::MOMENTS);

/// The deviations; what does not vary has none.
static SPREAD: Features = {
    let mut spread = [0.0; FEATURES];
    let mut at = 0;
    while at < FEATURES {
        if MOMENTS[1][at] > 0.0 {
            spread[at] = 1.0 / MOMENTS[1][at];
        }
        at += 1;
    }
    spread
};

/// How fast the hidden units are learnt at first, and after how many lessons half as fast, in the square.
const RATE: f32 = 0.002;
const SLOWER_AFTER: f32 = 3000.0;
/// What the rate does not fall below, so that a host that changes is followed.
const RATE_LEAST: f32 = 0.0003;
/// Steps that a deviation is told in, and how many deviations are told at most.
const STEPS: f32 = 31.0;
const DEVIATIONS: f32 = 4.0;
/// No weight wanders further than this from where it was shipped, in terms of features of unit deviation.
const FURTHEST: f32 = 2.0;

/// What is said of one candidate, as logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Logits {
    /// A copy made now is used before it goes cold, and no better moment comes.
    pub(super) worth: f32,
    /// Accessed by anyone within ten seconds.
    pub(super) soon: f32,
}

/// Features as they are kept until their truth is known: how many deviations from the mean, a byte each.
pub(super) type Sketch = [i8; FEATURES];

/// Features as a sketch.
pub(super) fn sketch(features: &Features) -> Sketch {
    // Added to a small number, this leaves it, rounded, in the lowest bits: much faster than rounding here.
    const ROUND: f32 = 12_582_912.0;
    let [mean, scale] = &MOMENTS;
    let mut sketch = [0; FEATURES];
    for (((steps, feature), mean), scale) in sketch.iter_mut().zip(features).zip(mean).zip(scale) {
        let deviations = ((feature - mean) * scale).clamp(-DEVIATIONS, DEVIATIONS);
        *steps = (deviations * STEPS + ROUND).to_bits() as i8;
    }
    sketch
}

/// Sums of the units that learn, and of the rest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    own: [f32; OWN],
    fixed: [f32; FIXED],
}

/// The network, with what it has learnt here.
#[derive(Clone, Debug)]
pub(super) struct Network {
    input: Box<[[f32; OWN]; FEATURES]>,
    bias: [f32; OWN],
    /// Lessons so far.
    lessons: u32,
}

impl Network {
    /// Bytes it takes beside itself.
    pub(super) const BYTES: usize = size_of::<[[f32; OWN]; FEATURES]>();

    /// As it is shipped.
    pub(super) fn new() -> Self {
        Self { input: Box::new(INPUT), bias: BIAS, lessons: 0 }
    }

    /// The sums of a candidate that looks like this.
    pub(super) fn sums(&self, features: &Features) -> Sums {
        let mut sums = Sums { own: self.bias, fixed: FIXED_BIAS };
        for ((value, own), fixed) in features.iter().zip(self.input.iter()).zip(&FIXED_INPUT) {
            add(&mut sums.own, *value, own);
            add(&mut sums.fixed, *value, fixed);
        }
        sums
    }

    /// What is said of a candidate whose features differ from `base`, with the sums `start`, in the groups `touched`
    /// only.
    #[inline]
    pub(super) fn judge(&self, features: &Features, touched: u32, base: &Features, start: &Sums) -> Logits {
        let mut sums = *start;
        add_groups(&mut sums.own, &self.input, features, touched, base);
        add_groups(&mut sums.fixed, &FIXED_INPUT, features, touched, base);
        let [worth, soon] = sums.outputs();
        Logits { worth: worth.clamp(-12.0, 12.0), soon: soon.clamp(-12.0, 12.0) }
    }

    /// What looked like this was worth so much: the hidden units take a small step down the slope of the logarithmic
    /// loss. The linear path and the outputs stay as they are; learning them here was worse.
    pub(super) fn learn(&mut self, sketch: &Sketch, truth: f32) {
        let [mean, scale] = &MOMENTS;
        let (mut deviations, mut features) = ([0.0f32; FEATURES], *mean);
        for (deviations, steps) in deviations.iter_mut().zip(sketch) {
            *deviations = f32::from(*steps) * (1.0 / STEPS);
        }
        for ((feature, deviations), spread) in features.iter_mut().zip(&deviations).zip(&SPREAD) {
            *feature += deviations * spread;
        }
        let sums = self.sums(&features);
        let rate = (RATE / (1.0 + self.lessons as f32 / SLOWER_AFTER).sqrt()).max(RATE_LEAST);
        let error = (squash(sums.outputs()[0]) - truth) * rate;
        if !error.is_finite() {
            return;
        }
        let mut back = [0.0f32; OWN];
        for ((back, sum), weight) in back.iter_mut().zip(&sums.own).zip(&OUTPUT[0]) {
            *back = error * weight * if *sum > 0.0 { 1.0 } else { 0.1 };
        }
        // A step of a weight for features of unit deviation, in terms of the features as they are.
        let mut middle = 1.0;
        for (at, weights) in self.input.iter_mut().enumerate() {
            let step = deviations[at] * scale[at];
            middle -= mean[at] * step;
            for (weight, back) in weights.iter_mut().zip(&back) {
                *weight -= step * back;
            }
        }
        for (bias, back) in self.bias.iter_mut().zip(&back) {
            *bias -= middle * back;
        }
        self.lessons = self.lessons.saturating_add(1);
        if self.lessons.is_multiple_of(1024) {
            self.rein_in();
        }
    }

    /// Takes back what wandered too far.
    fn rein_in(&mut self) {
        let [mean, scale] = &MOMENTS;
        for (at, weights) in self.input.iter_mut().enumerate() {
            let furthest = FURTHEST * scale[at];
            for ((unit, weight), shipped) in weights.iter_mut().enumerate().zip(&INPUT[at]) {
                let before = *weight;
                *weight = before.clamp(shipped - furthest, shipped + furthest);
                self.bias[unit] -= mean[at] * (*weight - before);
            }
        }
    }
}

impl Sums {
    /// The outputs: worth, soon.
    #[inline]
    fn outputs(&self) -> [f32; 2] {
        const SHARED: usize = HIDDEN - OWN;
        let leaky = |sum: f32| sum.max(0.1 * sum);
        let [for_worth, for_soon] = &OUTPUT;
        let (mut worth, mut soon) = (self.fixed[SHARED], self.fixed[SHARED + 1]);
        for (sum, weight) in self.own.iter().zip(for_worth) {
            worth += leaky(*sum) * weight;
        }
        for (unit, sum) in self.fixed[..SHARED].iter().enumerate() {
            worth += leaky(*sum) * for_worth[OWN + unit];
            soon += leaky(*sum) * for_soon[OWN + unit];
        }
        [worth, soon]
    }
}

/// Stands for the weights that are shipped: what was learnt on others is of no use.
fn fingerprint() -> u64 {
    let fixed = FIXED_INPUT.as_flattened().iter().chain(&FIXED_BIAS);
    let all = INPUT.as_flattened().iter().chain(&BIAS).chain(fixed).chain(OUTPUT.as_flattened());
    all.fold(0, |hash, weight| super::arcs::key(&[hash, u64::from(weight.to_bits())]))
}

impl Record for Network {
    fn put(&self, to: &mut Bytes<'_>) {
        to.put(&fingerprint()).put(&self.lessons).put(&self.bias).put(&*self.input);
    }

    fn take(from: &mut Source<'_>) -> Self {
        let (shipped, lessons, bias) = (from.take::<u64>(), from.take(), from.take::<[f32; OWN]>());
        let input = from.take::<[[f32; OWN]; FEATURES]>();
        let sound = bias.iter().chain(input.as_flattened()).all(|weight| weight.abs() < 1e6);
        if shipped == fingerprint() && sound { Self { input: Box::new(input), bias, lessons } } else { Self::new() }
    }
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

/// The columns of weights from `from` on.
const fn part<const N: usize, const M: usize>(weights: &[[i32; SUMS]; M], from: usize) -> [[i32; N]; M] {
    let mut part = [[0; N]; M];
    let mut row = 0;
    while row < M {
        let mut column = 0;
        while column < N {
            part[row][column] = weights[row][from + column];
            column += 1;
        }
        row += 1;
    }
    part
}

/// Adds what the groups `touched` differ from `base` in.
#[inline]
fn add_groups<const N: usize>(
    sums: &mut [f32; N],
    input: &[[f32; N]; FEATURES],
    features: &Features,
    touched: u32,
    base: &Features,
) {
    let mut all = *sums;
    let mut rest = touched;
    while rest != 0 {
        let group = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        let (from, to) = features::GROUPS[group];
        for at in from..to {
            add(&mut all, features[at] - base[at], &input[at]);
        }
        if group < 4 {
            let at = LATELY + group;
            add(&mut all, features[at] - base[at], &input[at]);
        }
    }
    *sums = all;
}

#[inline]
fn add<const N: usize>(sums: &mut [f32; N], value: f32, weights: &[f32; N]) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum += value * weight;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::predict::features::BLANK;

    fn judged(network: &Network, features: &Features) -> Logits {
        network.judge(features, u32::MAX >> 20, &BLANK, &network.sums(&BLANK))
    }

    #[test]
    fn what_turns_out_otherwise_is_learnt() {
        let mut network = Network::new();
        // Middling but for what the last access says, and but for the resource's own rhythm.
        let [mean, _] = &MOMENTS;
        let (mut features, mut other) = (*mean, *mean);
        (0..4).for_each(|at| features[at] += SPREAD[at]);
        (features::RESOURCE..features::HABIT).for_each(|at| other[at] -= 0.5 * SPREAD[at]);
        let (before, aside) = (judged(&network, &features), judged(&network, &other));
        for _ in 0..3000 {
            network.learn(&sketch(&features), 0.0);
            network.learn(&sketch(&other), squash(aside.worth));
        }
        let (after, still) = (judged(&network, &features), judged(&network, &other));
        assert!(after.worth < before.worth - 1.0, "{before:?} {after:?}");
        assert!((still.worth - aside.worth).abs() < 0.5, "{aside:?} {still:?}");
        assert_eq!((after.soon, still.soon), (before.soon, aside.soon), "the probability stays");
    }

    proptest! {
        #[test]
        fn any_numbers_give_bounded_logits(at in 0..FEATURES, value in -1e6f32..1e6, truths in prop::collection::vec(0f32..=1.0, 0..200)) {
            let mut features = BLANK;
            features[at] = value;
            let mut network = Network::new();
            for truth in truths {
                network.learn(&sketch(&features), truth);
            }
            let said = judged(&network, &features);
            prop_assert!(said.worth.abs() <= 12.0 && said.soon.abs() <= 12.0);
        }
    }
}
