//! Fitting: Adam (Kingma and Ba 2015) on the logarithmic loss, whole features dropped at random.

use prewarm_user::predict::{FEATURES, Features};

use super::{
    net::{Net, WEIGHTS},
    rows::Trace,
};

/// Passes over the events, of each trace at most this many: so that none outweighs the others.
const PASSES: usize = 10;
const EVENTS: f32 = 4000.0;
const DERIVED_EVENTS: f32 = 1500.0;
/// From this pass on only last chances count for the worth; found anew in every second pass.
const STOPPING: usize = 2;
/// Share of features dropped for an event, so that none is relied upon alone.
const DROPPED: f32 = 0.1;
/// What other rows than cold last chances count for the worth.
const ASIDE: f32 = 0.05;
const DECAY: f32 = 0.05;
const RATE: f32 = 0.003;
/// Events between two steps.
const BATCH: usize = 4;
/// What is returned is the weights' mean over about this many of the last steps (Polyak and Juditsky 1992).
const MEAN_OVER: f32 = 4000.0;

/// xorshift64 (Marsaglia 2003): the same weights each time.
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    fn share(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1u32 << 24) as f32
    }
}

/// Fits a network to traces.
pub(crate) fn fit(traces: &[&Trace]) -> Net {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (center, scale) = moments(traces);
    let mut net = Net::new(center, scale, || random.share());
    let (mut gradient, mut first, mut second) = (vec![0.0f32; WEIGHTS], vec![0.0f32; WEIGHTS], vec![0.0f32; WEIGHTS]);
    let mut mean = net.weights_mut().to_vec();
    let mut steps = 0i32;
    let mut last_chances: Vec<Vec<bool>> = traces.iter().map(|trace| vec![true; trace.rows.len()]).collect();
    for pass in 0..PASSES {
        if pass >= STOPPING && pass % 2 == 0 {
            last_chances = traces.iter().map(|trace| trace.last_chances(&net)).collect();
        }
        let rate = RATE * (1.0 - pass as f32 / PASSES as f32) + 0.00005;
        for (number, &(of, event)) in order(traces, &mut random).iter().enumerate() {
            let trace = traces[of];
            let dropped: Vec<bool> = (0..FEATURES).map(|_| random.share() < DROPPED).collect();
            let rows = trace.starts[event]..trace.starts[event + 1];
            for (row, last_chance) in rows.clone().zip(&last_chances[of][rows]) {
                let mut features = trace.features[row];
                for (input, _) in dropped.iter().enumerate().filter(|(_, dropped)| **dropped) {
                    features[input] = net.mean()[input];
                }
                let counts = trace.rows[row].cold && *last_chance;
                let weight = [if counts { 1.0 } else { ASIDE }, 0.5];
                net.gradient(&features, trace.rows[row].truth, weight, &mut gradient);
            }
            if number % BATCH == BATCH - 1 {
                steps += 1;
                let (unbias_first, unbias_second) = (1.0 - 0.9f32.powi(steps), 1.0 - 0.999f32.powi(steps));
                for (at, weight) in net.weights_mut().iter_mut().enumerate() {
                    let slope = std::mem::take(&mut gradient[at]);
                    first[at] = 0.9 * first[at] + 0.1 * slope;
                    second[at] = 0.999 * second[at] + 0.001 * slope * slope;
                    let step = first[at] / unbias_first / ((second[at] / unbias_second).sqrt() + 1e-8);
                    *weight -= rate * (step + DECAY * *weight);
                    mean[at] += (*weight - mean[at]) / MEAN_OVER.min(steps as f32);
                }
            }
        }
    }
    net.weights_mut().copy_from_slice(&mean);
    net
}

/// Events to learn from in one pass, shuffled.
fn order(traces: &[&Trace], random: &mut Random) -> Vec<(usize, usize)> {
    let mut order = Vec::new();
    for (of, trace) in traces.iter().enumerate() {
        let most = if trace.derived { DERIVED_EVENTS } else { EVENTS };
        let share = most / trace.events.len() as f32;
        order.extend((0..trace.events.len()).filter(|_| random.share() < share).map(|event| (of, event)));
    }
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at + 1));
    }
    order
}

/// Mean and one over the deviation of each feature, every trace counting the same.
fn moments(traces: &[&Trace]) -> (Features, Features) {
    let (mut sum, mut squares, mut count) = ([0.0f64; FEATURES], [0.0f64; FEATURES], 0.0);
    for trace in traces {
        for features in trace.features.iter().step_by((trace.rows.len() / 20_000).max(1)) {
            count += 1.0;
            for (input, value) in features.iter().enumerate() {
                sum[input] += f64::from(*value);
                squares[input] += f64::from(*value) * f64::from(*value);
            }
        }
    }
    let mean: Features = std::array::from_fn(|input| (sum[input] / count) as f32);
    let scale = std::array::from_fn(|input| {
        let variance = squares[input] / count - (sum[input] / count).powi(2);
        if variance > 1e-9 { (1.0 / variance.sqrt()) as f32 } else { 0.0 }
    });
    (mean, scale)
}
