//! The replay metric event by event, so that a recording need not be in memory: all thresholds at once, and calibration.
//!
//! Comes in: events, each with what was said after it. Goes out: coverage against cost, and reliability.

use std::collections::{HashMap, VecDeque};

use super::{
    Event,
    metric::{self, Copies, Copy, Replay, Sweep},
};

/// Seconds within which what was said must come.
const HORIZON: f64 = 10.0;
/// What is said with less is not judged.
const FLOOR: f32 = 0.05;
/// Names kept before those without a use are dropped.
const MANY: usize = 1 << 16;

/// The copies that live: what has run out is as good as none.
#[derive(Debug, Default)]
struct Live {
    copies: HashMap<u32, Copy>,
    swept: usize,
}

impl Copies for Live {
    fn copy(&mut self, name: u32) -> &mut Copy {
        self.copies.entry(name).or_insert(Copy::NONE)
    }
}

impl Live {
    fn sweep(&mut self, now: f64) {
        if self.copies.len() > 1024.max(2 * self.swept) {
            self.copies.retain(|_, copy| copy.lives(now));
            self.swept = self.copies.len();
        }
    }
}

/// The caches of one subject, one for each threshold.
#[derive(Debug)]
pub struct Running {
    ttl: f64,
    runs: Vec<(f32, Live, Replay)>,
    without: (Live, Replay),
}

impl Running {
    /// Empty caches for answers that are kept so many seconds.
    #[must_use]
    pub fn new(ttl: f64) -> Self {
        let run = |threshold| (threshold, Live::default(), Replay::default());
        Self { ttl, runs: metric::thresholds().map(run).collect(), without: (Live::default(), Replay::default()) }
    }

    /// Takes in an event and what was said after it, best first.
    pub fn event(&mut self, event: &Event, said: &[(u32, f32)]) {
        let (live, replay) = &mut self.without;
        live.sweep(event.at);
        metric::step(live, replay, event, &[], self.ttl, 0.0);
        for (threshold, live, replay) in &mut self.runs {
            live.sweep(event.at);
            metric::step(live, replay, event, said, self.ttl, *threshold);
        }
    }

    /// Prefetches per miss without any, and net coverage in percent, by cost.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        self.points().into_iter().map(|(cost, coverage, _)| (cost, coverage)).collect()
    }

    /// Coverage at the costs that are told.
    #[must_use]
    pub fn sweep(&self) -> Sweep {
        metric::at_costs(&self.points(), self.without.1.misses as f64)
    }

    fn points(&self) -> Vec<(f64, f64, Replay)> {
        metric::points(self.runs.iter().map(|run| run.2), self.without.1.misses as f64)
    }
}

/// What was said with which probability, and how often it came.
#[derive(Debug, Default)]
pub struct Calibrating {
    index: u64,
    pending: VecDeque<(u64, f64, u32, f32)>,
    /// The number of each name's last access.
    last: HashMap<u32, u64>,
    bins: [[f64; 3]; 10],
}

impl Calibrating {
    /// Takes in an event and the probabilities said after it.
    pub fn event(&mut self, event: &Event, said: &[(u32, f32)]) {
        self.settle(event.at - HORIZON);
        self.index += 1;
        self.last.insert(event.resource, self.index);
        if self.last.len() > MANY && self.last.len() == self.last.capacity() {
            let oldest = self.pending.front().map_or(self.index, |pending| pending.0);
            self.last.retain(|_, last| *last >= oldest);
        }
        let judged = said.iter().filter(|(name, p)| *p >= FLOOR && *name != event.resource);
        self.pending.extend(judged.map(|(name, p)| (self.index, event.at, *name, *p)));
    }

    /// Decides what was said before that time.
    fn settle(&mut self, before: f64) {
        while let Some(&(index, _, name, p)) = self.pending.front().filter(|pending| pending.1 < before) {
            self.pending.pop_front();
            // By their order, since many records of one second may carry the same time.
            let hit = self.last.get(&name).is_some_and(|last| *last > index);
            let bin = &mut self.bins[((p * 10.0) as usize).min(9)];
            bin[0] += f64::from(p);
            bin[1] += f64::from(u8::from(hit));
            bin[2] += 1.0;
        }
    }

    /// The mean distance between what was said and what came, and for each bin the mean said, the share that came and
    /// the count.
    #[must_use]
    pub fn finish(mut self) -> (f64, [[f64; 3]; 10]) {
        self.settle(f64::INFINITY);
        let bins = self.bins;
        let all: f64 = bins.iter().map(|bin| bin[2]).sum();
        let error = bins.iter().map(|bin| (bin[0] - bin[1]).abs()).sum::<f64>() / all.max(1.0);
        (error, bins.map(|[said, came, count]| [said / f64::max(count, 1.0), came / f64::max(count, 1.0), count]))
    }
}
