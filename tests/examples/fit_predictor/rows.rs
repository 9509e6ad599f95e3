//! Traces as rows to fit to: each candidate of each event, what it looked like, and what came of it.

use std::collections::HashMap;

use prewarm_tests::bench::predict::{Event, Said, since, spread, unspread};
use prewarm_user::{
    config::PredictSettings,
    predict::{ClientKey, FEATURES, Features, Mixture, Predictor as _},
};

use super::net::{Net, squash};

/// Lead of a copy, and how long one is kept, in seconds.
const LEAD: f64 = 0.020;
const KEPT: f64 = 60.0;
/// What a use is worth after this many seconds, and this many further accesses of the client, is a third.
const PATIENCE: f64 = 60.0;
const PATIENCE_ACCESSES: f64 = 20.0;

/// One candidate of one event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) event: u32,
    pub(crate) resource: u32,
    pub(crate) cold: bool,
    /// Seconds until it is accessed, infinite if it never is.
    lag: f64,
    /// What a copy made now is worth, and whether it is accessed within ten seconds.
    pub(crate) truth: [f32; 2],
}

/// A trace with its rows.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) events: Vec<Event>,
    pub(crate) rows: Vec<Row>,
    pub(crate) features: Vec<Features>,
    /// The first row of each event, and the end.
    pub(crate) starts: Vec<usize>,
    /// Whether it was made from another one.
    pub(crate) derived: bool,
}

/// The same accesses without a quarter of the resources: other traffic of the same kind, for more to fit to.
pub(crate) fn thinned(events: &[Event]) -> Vec<Event> {
    let stays = |event: &&Event| event.resource.wrapping_mul(0x9e37_79b1).wrapping_add(0x1715_8c75) >> 13 & 3 != 0;
    events.iter().filter(stays).copied().collect()
}

impl Trace {
    /// Runs the model over the events.
    pub(crate) fn new(events: Vec<Event>, derived: bool) -> Self {
        let mut model = Mixture::new(&PredictSettings::default());
        let (mut accesses, mut of_clients) = (HashMap::<u32, Vec<usize>>::new(), HashMap::<u32, Vec<f64>>::new());
        for (index, event) in events.iter().enumerate() {
            accesses.entry(event.resource).or_default().push(index);
            of_clients.entry(event.client).or_default().push(event.at);
        }
        let first = events.first().map_or(0.0, |event| event.at);
        let (mut rows, mut features, mut starts, mut out) = (vec![], vec![], vec![], vec![]);
        for (index, event) in events.iter().enumerate() {
            starts.push(rows.len());
            let (now, client) = (since(first, event.at), ClientKey(u128::from(event.client)));
            model.learn(now, client, spread(event.resource));
            model.describe(now, client, &mut out);
            for (resource, described, cold) in &out {
                let resource = unspread(*resource);
                let next = accesses[&resource].partition_point(|at| *at <= index);
                let lag = accesses[&resource].get(next).map_or(f64::INFINITY, |at| events[*at].at - event.at);
                let own = &of_clients[&event.client];
                let until = |time: f64| own.partition_point(|at| *at <= time) as f64;
                let between = (until(event.at + lag - LEAD) - until(event.at)).max(0.0);
                let worth = if (LEAD..KEPT).contains(&lag) {
                    (-lag / PATIENCE - between / PATIENCE_ACCESSES).exp() as f32
                } else {
                    0.0
                };
                let truth = [worth, if lag <= 10.0 { 1.0 } else { 0.0 }];
                rows.push(Row { event: index as u32, resource, cold: *cold, lag, truth });
                features.push(*described);
            }
        }
        starts.push(rows.len());
        Self { events, rows, features, starts, derived }
    }

    /// What a network says of each event, best worth first.
    pub(crate) fn said(&self, net: &Net) -> Said {
        (0..self.events.len())
            .map(|event| {
                let rows = self.starts[event]..self.starts[event + 1];
                let mut said: Vec<_> =
                    rows.map(|row| (self.rows[row].resource, squash(net.judge(&self.features[row]).0[0]))).collect();
                said.sort_by(|a, b| b.1.total_cmp(&a.1));
                said
            })
            .collect()
    }

    /// For each row, whether no better moment comes before the use, or within the time that a copy is kept: a threshold
    /// takes a candidate when it is passed for the first time, so what matters at a threshold is how rows turn out that
    /// no later one of the same resource surpasses.
    pub(crate) fn last_chances(&self, net: &Net) -> Vec<bool> {
        let scores: Vec<f32> = self.features.iter().map(|features| net.judge(features).0[0]).collect();
        let mut of = HashMap::<u32, Vec<usize>>::new();
        for (at, row) in self.rows.iter().enumerate() {
            of.entry(row.resource).or_default().push(at);
        }
        let time = |row: usize| self.events[self.rows[row].event as usize].at;
        let mut last = vec![true; self.rows.len()];
        for rows in of.values() {
            for (place, &row) in rows.iter().enumerate() {
                let until = time(row) + (self.rows[row].lag - LEAD).min(KEPT);
                let mut later = rows[place + 1..].iter().take_while(|later| time(**later) <= until);
                last[row] = !later.any(|&later| time(later) > time(row) && scores[later] > scores[row]);
            }
        }
        last
    }
}

const _: () = assert!(FEATURES == super::net::INPUTS);
