//! What predictions would have made ready on recorded accesses, at which cost: the replay metric, and calibration.
//!
//! Comes in: events, and what was said after each. Goes out: coverage at set costs, precision, waste, calibration
//! error. Never here: models. One cache with a fixed TTL is shared by all clients; a prefetch takes 20 ms; at most five
//! are made for an event; the threshold on the score is swept.

use super::{Event, Said, running::Calibrating};

/// Lead time of a prefetch in seconds.
const LEAD: f64 = 0.020;
/// Prefetches for one event at most.
const MOST: usize = 5;
/// The costs at which coverage is told, in prefetches per miss without any.
pub const COSTS: [f64; 4] = [0.25, 0.5, 1.0, 2.0];

/// Misses and prefetches of one replay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replay {
    /// Accesses that nothing was ready for.
    pub misses: usize,
    /// Prefetches made.
    pub prefetches: usize,
    /// Prefetches used within 10 s, 60 s, and the TTL.
    pub used: [usize; 3],
}

/// A name's answer in the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    ready: f64,
    expire: f64,
    /// When the prefetch was made that nobody has used so far.
    mark: f64,
}

impl Copy {
    /// None.
    pub(super) const NONE: Self = Self { ready: f64::NEG_INFINITY, expire: f64::NEG_INFINITY, mark: f64::NAN };

    /// Whether it still matters.
    pub(super) const fn lives(&self, now: f64) -> bool {
        self.expire > now
    }
}

/// Where copies are kept.
pub(super) trait Copies {
    /// A name's.
    fn copy(&mut self, name: u32) -> &mut Copy;
}

impl Copies for Vec<Copy> {
    fn copy(&mut self, name: u32) -> &mut Copy {
        &mut self[name as usize]
    }
}

/// One event: its access, and the prefetches of what was said after it with a score of at least `threshold`.
pub(super) fn step(
    copies: &mut impl Copies,
    result: &mut Replay,
    event: &Event,
    said: &[(u32, f32)],
    ttl: f64,
    threshold: f32,
) {
    let copy = copies.copy(event.resource);
    if copy.expire > event.at {
        result.misses += usize::from(copy.ready > event.at);
    } else {
        result.misses += 1;
        *copy = Copy { ready: event.at, expire: event.at + ttl, mark: f64::NAN };
    }
    if !copy.mark.is_nan() {
        let lead = event.at - copy.mark;
        if lead >= LEAD && lead < ttl {
            result.used[0] += usize::from(lead <= 10.0);
            result.used[1] += usize::from(lead <= 60.0);
            result.used[2] += 1;
        }
        copy.mark = f64::NAN;
    }
    let mut made = 0;
    for &(name, score) in said {
        if made >= MOST || score < threshold {
            break;
        }
        if name == event.resource {
            continue;
        }
        let copy = copies.copy(name);
        if copy.expire > event.at {
            continue;
        }
        *copy = Copy { ready: event.at + LEAD, expire: event.at + LEAD + ttl, mark: event.at };
        made += 1;
    }
    result.prefetches += made;
}

/// Replays the events with prefetches of what is said with a score of at least `threshold`.
#[must_use]
pub fn replay(events: &[Event], said: Option<&Said>, ttl: f64, threshold: f32) -> Replay {
    let names = events.iter().map(|event| event.resource as usize + 1).max().unwrap_or(0);
    let mut copies = vec![Copy::NONE; names];
    let mut result = Replay::default();
    for (index, event) in events.iter().enumerate() {
        step(&mut copies, &mut result, event, said.map_or(&[][..], |said| &said[index]), ttl, threshold);
    }
    result
}

/// What a sweep of the threshold gives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sweep {
    /// Net coverage in percent at each of the costs.
    pub coverage: [f64; 4],
    /// At a cost of one or just below: the percentages of prefetches used within 10 s and 60 s, and prefetches never
    /// used, in percent of the misses without any.
    pub precision: [f64; 2],
    /// See above.
    pub waste: f64,
}

/// The thresholds that are swept.
pub(super) fn thresholds() -> impl Iterator<Item = f32> {
    (0..=70).map(|step| if step == 70 { 0.0 } else { (0.97 * 0.92f64.powi(step)) as f32 })
}

/// Cost and coverage of each run, by cost.
pub(super) fn points(runs: impl Iterator<Item = Replay>, without: f64) -> Vec<(f64, f64, Replay)> {
    let without = without.max(1.0);
    let point = |run: Replay| (run.prefetches as f64 / without, 100.0 * (1.0 - run.misses as f64 / without), run);
    let mut points: Vec<_> = runs.map(point).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// Sweeps the threshold.
#[must_use]
pub fn sweep(events: &[Event], said: &Said, ttl: f64) -> Sweep {
    let without = replay(events, None, ttl, 0.0).misses as f64;
    sweep_with(without, &|threshold| replay(events, Some(said), ttl, threshold))
}

/// Sweeps the threshold of a replay; `without` are the misses without any prefetch.
#[must_use]
pub fn sweep_with(without: f64, replay: &dyn Fn(f32) -> Replay) -> Sweep {
    at_costs(&points(thresholds().map(replay), without), without)
}

/// Coverage at the costs that are told, of points by cost.
pub(super) fn at_costs(points: &[(f64, f64, Replay)], without: f64) -> Sweep {
    if without == 0.0 {
        return Sweep::default();
    }
    let coverage = COSTS.map(|cost| {
        let best = points.iter().filter(|point| point.0 <= cost).map(|point| point.1).fold(0.0, f64::max);
        let below = points.iter().rev().find(|point| point.0 <= cost).map_or((0.0, 0.0), |point| (point.0, point.1));
        let above = points.iter().find(|point| point.0 > cost);
        above.map_or(best, |above| {
            let part = (cost - below.0) / (above.0 - below.0);
            best.max(below.1 + part * (above.1 - below.1))
        })
    });
    let one = points.iter().rev().find(|point| point.0 <= 1.0).map(|point| point.2).unwrap_or_default();
    let share = |used: usize| 100.0 * used as f64 / one.prefetches.max(1) as f64;
    Sweep {
        coverage,
        precision: [share(one.used[0]), share(one.used[1])],
        waste: 100.0 * (one.prefetches - one.used[2]) as f64 / without,
    }
}

/// Mean distance between what was said and what came, over ten bins of the probability: for every candidate said with
/// at least 0.05, whether any client accessed it after the event and within 10 s. With the mean said, the share that
/// came and the count of each bin.
#[must_use]
pub fn calibration(events: &[Event], said: &Said) -> (f64, [[f64; 3]; 10]) {
    let mut calibrating = Calibrating::default();
    for (event, said) in events.iter().zip(said) {
        calibrating.event(event, said);
    }
    calibrating.finish()
}
