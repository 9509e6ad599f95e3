//! The network while it is fitted: the same sums as `predict/network.rs`, with gradients.

use prewarm_user::predict::{FEATURES, Features};

pub(crate) const INPUTS: usize = FEATURES;
pub(crate) const HIDDEN: usize = 24;
/// The first of them serve the worth alone.
const OWN: usize = 16;
/// Hidden units, and the linear path of the two outputs.
const SUMS: usize = HIDDEN + 2;
/// Numbers a row of weights is padded to.
const PADDED: usize = 28;

/// All weights, in one list: of the inputs, of the sums before any input, of the outputs.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    weights: Vec<f32>,
    mean: Features,
    /// One over the deviation of each input.
    scale: Features,
}

/// Where the weights of the inputs end, and those before any input.
const BIAS: usize = INPUTS * SUMS;
const OUTPUT: usize = BIAS + SUMS;
pub(crate) const WEIGHTS: usize = OUTPUT + 2 * HIDDEN;

pub(crate) fn squash(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

impl Net {
    /// A network with small random weights for inputs of this mean and deviation.
    pub(crate) fn new(mean: Features, scale: Features, mut random: impl FnMut() -> f32) -> Self {
        let mut weights = vec![0.0; WEIGHTS];
        for input in 0..INPUTS {
            for weight in &mut weights[input * SUMS..][..HIDDEN] {
                *weight = (random() - 0.5) * 0.23;
            }
        }
        weights[BIAS + HIDDEN..OUTPUT].fill(-2.0);
        for weight in &mut weights[OUTPUT..] {
            *weight = (random() - 0.5) * 0.245;
        }
        weights[OUTPUT + HIDDEN..][..OWN].fill(0.0);
        Self { weights, mean, scale }
    }

    pub(crate) fn weights_mut(&mut self) -> &mut [f32] {
        &mut self.weights
    }

    pub(crate) fn mean(&self) -> &Features {
        &self.mean
    }

    /// Features with mean and deviation taken out.
    fn scaled<'a>(&'a self, features: &'a Features) -> impl Iterator<Item = f32> + 'a {
        features.iter().zip(self.mean.iter().zip(&self.scale)).map(|(value, (mean, scale))| (value - mean) * scale)
    }

    /// The logits of both outputs, and the hidden units.
    pub(crate) fn judge(&self, features: &Features) -> ([f32; 2], [f32; HIDDEN]) {
        let mut sums = [0.0f32; SUMS];
        sums.copy_from_slice(&self.weights[BIAS..OUTPUT]);
        for (input, value) in self.scaled(features).enumerate() {
            for (sum, weight) in sums.iter_mut().zip(&self.weights[input * SUMS..][..SUMS]) {
                *sum += value * weight;
            }
        }
        let mut hidden = [0.0; HIDDEN];
        let mut outputs = [sums[HIDDEN], sums[HIDDEN + 1]];
        for unit in 0..HIDDEN {
            hidden[unit] = sums[unit].max(0.1 * sums[unit]);
            outputs[0] += hidden[unit] * self.weights[OUTPUT + unit];
            outputs[1] += hidden[unit] * self.weights[OUTPUT + HIDDEN + unit];
        }
        (outputs, hidden)
    }

    /// Adds the gradient of the logarithmic loss of one row, each output with its weight.
    pub(crate) fn gradient(&self, features: &Features, truth: [f32; 2], weight: [f32; 2], gradient: &mut [f32]) {
        let (outputs, hidden) = self.judge(features);
        let errors = [0, 1].map(|output| (squash(outputs[output]) - truth[output]) * weight[output]);
        let mut back = [errors[0]; SUMS];
        back[HIDDEN + 1] = errors[1];
        for unit in 0..HIDDEN {
            let error = errors[0] * self.weights[OUTPUT + unit] + errors[1] * self.weights[OUTPUT + HIDDEN + unit];
            back[unit] = if hidden[unit] > 0.0 { error } else { 0.1 * error };
            gradient[OUTPUT + unit] += errors[0] * hidden[unit];
            if unit >= OWN {
                gradient[OUTPUT + HIDDEN + unit] += errors[1] * hidden[unit];
            }
        }
        for (input, value) in self.scaled(features).enumerate() {
            for (sum, back) in gradient[input * SUMS..][..SUMS].iter_mut().zip(&back) {
                *sum += value * back;
            }
        }
        for (sum, back) in gradient[BIAS..OUTPUT].iter_mut().zip(&back) {
            *sum += back;
        }
    }

    /// The weights as source text, with mean and deviation worked in.
    pub(crate) fn source(&self) -> String {
        let mut bias: Vec<f64> = self.weights[BIAS..OUTPUT].iter().map(|weight| f64::from(*weight)).collect();
        let mut inputs = String::new();
        for input in 0..INPUTS {
            let scaled = self.weights[input * SUMS..][..SUMS]
                .iter()
                .map(|weight| f64::from(*weight) * f64::from(self.scale[input]));
            let scaled: Vec<f64> = scaled.collect();
            for (bias, weight) in bias.iter_mut().zip(&scaled) {
                *bias -= weight * f64::from(self.mean[input]);
            }
            inputs.extend(["    [", &list(&scaled, PADDED), "],\n"]);
        }
        let output = |at: usize| -> Vec<f64> {
            self.weights[OUTPUT + at * HIDDEN..][..HIDDEN].iter().map(|weight| f64::from(*weight)).collect()
        };
        format!(
            "//! The network's weights in ten-thousandths, fitted over recorded traffic of many kinds; written by the \
             example\n\
             //! `fit_predictor`.\n\nuse super::{{\n    features::FEATURES,\n    network::{{HIDDEN, SUMS}},\n}};\n\n\
             /// Weights of each feature: hidden units, linear path of the two outputs, padding.\n#[rustfmt::skip]\n\
             pub(super) const INPUT: [[i32; SUMS]; FEATURES] = [\n{inputs}];\n\n\
             /// Sums before any feature.\n#[rustfmt::skip]\npub(super) const BIAS: [i32; SUMS] = [\n    {}\n];\n\n\
             /// Weights of the hidden units in the two outputs.\n#[rustfmt::skip]\n\
             pub(super) const OUTPUT: [[i32; HIDDEN]; 2] = [\n    [{}],\n    [{}],\n];\n\n\
             /// Mean of each feature, and one over its deviation, where the weights were fitted.\n#[rustfmt::skip]\n\
             pub(super) const MOMENTS: [[i32; FEATURES]; 2] = [\n    [{}],\n    [{}],\n];\n",
            list(&bias, PADDED),
            list(&output(0), HIDDEN),
            list(&output(1), HIDDEN),
            list(&self.mean.map(f64::from), INPUTS),
            list(&self.scale.map(f64::from), INPUTS),
        )
    }
}

/// Numbers as source text in ten-thousandths, padded with zeroes.
fn list(numbers: &[f64], length: usize) -> String {
    let padded = numbers.iter().copied().chain(std::iter::repeat(0.0)).take(length);
    padded.map(|number| format!("{:.0}", number * 1e4 + 0.0)).collect::<Vec<_>>().join(", ").replace("-0,", "0,")
}
