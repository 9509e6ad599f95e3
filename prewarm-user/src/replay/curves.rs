//! What else predictors would have made of the same accesses: coverage against cost for prewarm's and for simple ones,
//! and how reliable prewarm's probabilities are.
//!
//! Comes in: accesses. Goes out: points to plot. The metric is the bench's (`docs/prediction.md`): one cache, one TTL, a
//! prefetch takes 20 ms, at most five for an access, the threshold swept.

use std::{collections::HashMap, net::IpAddr};

use super::{
    Event,
    baselines::{Baseline, Graph, Markov, Window},
    metric::{self, Sweep},
    player::Accessed,
    report::Row,
    running::{Calibrating, Running},
};
use crate::{
    config::PredictSettings,
    model::{Prediction, ResourceId, ResourceMap},
    predict::{ClientKey, Mixture, Predictor},
};

/// Candidates that the model names, as in the bench.
const CANDIDATES: u32 = 64;

/// All subjects at work.
pub struct Curves {
    model: Mixture,
    prewarm: Running,
    calibrating: Calibrating,
    baselines: Vec<(&'static str, Box<dyn Baseline>, Running)>,
    clients: HashMap<IpAddr, u32>,
    names: ResourceMap<ResourceId, u32>,
    predictions: Vec<Prediction>,
    said: Vec<(u32, f32)>,
}

/// A subject's curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// `prewarm`, or a baseline.
    pub subject: &'static str,
    /// Prefetches per miss without any, and net coverage in percent.
    pub points: Vec<(f64, f64)>,
    /// Coverage at the costs that are told.
    pub sweep: Sweep,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Curved {
    /// The curves, prewarm's first.
    pub curves: Vec<Curve>,
    /// Mean distance between what was said and what came.
    pub calibration_error: f64,
    /// For each tenth of probability: the mean said, the share that came, the count.
    pub reliability: [[f64; 3]; 10],
}

impl Curves {
    /// Models that know nothing yet, and caches that keep answers for so many seconds.
    #[must_use]
    pub fn new(settings: &PredictSettings, ttl: f64) -> Self {
        let settings = PredictSettings { candidates: CANDIDATES, ..settings.clone() };
        let window = |seconds| Box::new(Graph::new(Window::Seconds(seconds)));
        let baselines: [(_, Box<dyn Baseline>); 3] =
            [("markov-1", Box::new(Markov::default())), ("window-10", window(10.0)), ("window-60", window(60.0))];
        Self {
            model: Mixture::new(&settings),
            prewarm: Running::new(ttl),
            calibrating: Calibrating::default(),
            baselines: baselines.into_iter().map(|(name, model)| (name, model, Running::new(ttl))).collect(),
            clients: HashMap::new(),
            names: ResourceMap::default(),
            predictions: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Takes in an access.
    pub fn access(&mut self, accessed: Accessed) {
        let Accessed { at, client, resource } = accessed;
        let next = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        let number = *self.clients.entry(client).or_insert(next);
        let next = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let dense = *self.names.entry(resource).or_insert(next);
        let event = Event { at: at.as_nanos() as f64 / 1e9, client: number, resource: dense };
        let key = ClientKey::from(client);
        self.model.learn(at, key, resource);
        self.model.predict(at, key, &mut self.predictions);
        let names = &self.names;
        let numbered = |resource: ResourceId, score: f32| names.get(&resource).map(|dense| (*dense, score));
        self.said.clear();
        self.said.extend(self.model.outlooks().iter().filter_map(|said| numbered(said.resource, said.worth)));
        self.prewarm.event(&event, &self.said);
        self.said.clear();
        self.said.extend(self.predictions.iter().filter_map(|said| numbered(said.resource, said.probability as f32)));
        self.calibrating.event(&event, &self.said);
        for (_, model, running) in &mut self.baselines {
            let said = model.event(&event);
            running.event(&event, &said);
        }
    }

    /// What came out.
    #[must_use]
    pub fn finish(self) -> Curved {
        let curve = |subject, running: &Running| Curve { subject, points: running.curve(), sweep: running.sweep() };
        let baselines = self.baselines.iter().map(|(name, _, running)| curve(name, running));
        let curves = std::iter::once(curve("prewarm", &self.prewarm)).chain(baselines).collect();
        let (calibration_error, reliability) = self.calibrating.finish();
        Curved { curves, calibration_error, reliability }
    }
}

impl std::fmt::Debug for Curves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Curves").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

impl Curved {
    /// As rows of the JSON form.
    #[must_use]
    pub fn rows(&self, case: &str) -> Vec<Row> {
        let mut rows = Vec::new();
        for Curve { subject, sweep, .. } in &self.curves {
            let mut row = |metric: &str, value| rows.push(Row::new(case, subject, metric, value, "percent"));
            for (cost, coverage) in metric::COSTS.iter().zip(sweep.coverage) {
                row(&format!("net_coverage_{cost}"), coverage);
            }
        }
        rows.push(Row::new(case, "prewarm", "calibration_error", self.calibration_error, ""));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn event_by_event_is_the_same_as_at_once() {
        // Three names in a row every minute and a half, among some that never come again.
        let mut accesses = Vec::new();
        for round in 0..300_u64 {
            for (resource, lag) in [(1, 0), (2, 300), (3, 900), (100 + round, 5000)] {
                let at = Timestamp::from_nanos((round * 90_000 + lag + 1) * 1_000_000);
                let client = IpAddr::from([10, 0, 0, (round % 3) as u8]);
                accesses.push(Accessed { at, client, resource: ResourceId(resource << 32) });
            }
        }
        let settings = PredictSettings::default();
        let mut curves = Curves::new(&settings, 60.0);
        let mut model = Mixture::new(&PredictSettings { candidates: CANDIDATES, ..settings });
        let (mut events, mut worths, mut probabilities) = (Vec::new(), Vec::new(), Vec::new());
        let mut out = Vec::new();
        for access in &accesses {
            curves.access(*access);
            let key = ClientKey::from(access.client);
            model.learn(access.at, key, access.resource);
            model.predict(access.at, key, &mut out);
            let dense = |resource: ResourceId| (resource.0 >> 32) as u32;
            let IpAddr::V4(client) = access.client else { unreachable!("it is made above") };
            let at = access.at.as_nanos() as f64 / 1e9;
            events.push(Event { at, client: client.to_bits(), resource: dense(access.resource) });
            worths.push(model.outlooks().iter().map(|said| (dense(said.resource), said.worth)).collect());
            probabilities.push(out.iter().map(|said| (dense(said.resource), said.probability as f32)).collect());
        }
        let curved = curves.finish();
        let whole = metric::sweep(&events, &worths, 60.0);
        assert_eq!(curved.curves[0].sweep.coverage, whole.coverage);
        assert!(whole.coverage[2] > 30.0, "{whole:?}");
        let (error, bins) = metric::calibration(&events, &probabilities);
        assert_eq!((curved.calibration_error, curved.reliability), (error, bins));
        assert!(bins.iter().map(|bin| bin[2]).sum::<f64>() > 100.0);
        for (name, said) in super::super::baselines::all(&events) {
            if let Some(curve) = curved.curves.iter().find(|curve| curve.subject == name) {
                assert_eq!(curve.sweep.coverage, metric::sweep(&events, &said, 60.0).coverage, "{name}");
            }
        }
    }
}
