//! What predictions would have made ready on recorded accesses, at which cost: the replay metric, and calibration.
//!
//! Comes in: events, and what was said after each. Goes out: coverage at set costs, precision, waste, calibration
//! error. Never here: models. One cache with a fixed TTL is shared by all clients; a prefetch takes 20 ms; at most five
//! are made for an event; the threshold on the score is swept.

use std::collections::HashMap;

use super::{Event, Said};

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

/// Replays the events with prefetches of what is said with a score of at least `threshold`.
#[must_use]
pub fn replay(events: &[Event], said: Option<&Said>, ttl: f64, threshold: f32) -> Replay {
    #[derive(Clone, Copy)]
    struct Copy {
        ready: f64,
        expire: f64,
        mark: f64,
    }
    let names = events.iter().map(|event| event.resource as usize + 1).max().unwrap_or(0);
    let none = Copy { ready: f64::NEG_INFINITY, expire: f64::NEG_INFINITY, mark: f64::NAN };
    let mut copies = vec![none; names];
    let mut result = Replay::default();
    for (index, event) in events.iter().enumerate() {
        let copy = &mut copies[event.resource as usize];
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
        for &(name, score) in said.map_or(&[][..], |said| &said[index]) {
            if made >= MOST || score < threshold {
                break;
            }
            let copy = &mut copies[name as usize];
            if name == event.resource || copy.expire > event.at {
                continue;
            }
            *copy = Copy { ready: event.at + LEAD, expire: event.at + LEAD + ttl, mark: event.at };
            made += 1;
        }
        result.prefetches += made;
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

/// Sweeps the threshold.
#[must_use]
pub fn sweep(events: &[Event], said: &Said, ttl: f64) -> Sweep {
    let without = replay(events, None, ttl, 0.0).misses as f64;
    sweep_with(without, &|threshold| replay(events, Some(said), ttl, threshold))
}

/// Sweeps the threshold of a replay; `without` are the misses without any prefetch.
#[must_use]
pub fn sweep_with(without: f64, replay: &dyn Fn(f32) -> Replay) -> Sweep {
    if without == 0.0 {
        return Sweep::default();
    }
    let mut points: Vec<(f64, f64, Replay)> = (0..=70)
        .map(|step| {
            let threshold = if step == 70 { 0.0 } else { 0.97 * 0.92f64.powi(step) };
            let result = replay(threshold as f32);
            (result.prefetches as f64 / without, 100.0 * (1.0 - result.misses as f64 / without), result)
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
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
    let mut accesses: HashMap<u32, Vec<usize>> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        accesses.entry(event.resource).or_default().push(index);
    }
    let mut bins = [[0.0; 3]; 10];
    for (index, event) in events.iter().enumerate() {
        for &(name, p) in &said[index] {
            if p < 0.05 || name == event.resource {
                continue;
            }
            // By their order, since many records of one second may carry the same time.
            let came = &accesses[&name];
            let next = came.partition_point(|at| *at <= index);
            let hit = came.get(next).is_some_and(|at| events[*at].at - event.at <= 10.0);
            let bin = &mut bins[((p * 10.0) as usize).min(9)];
            bin[0] += f64::from(p);
            bin[1] += f64::from(u8::from(hit));
            bin[2] += 1.0;
        }
    }
    let all: f64 = bins.iter().map(|bin| bin[2]).sum();
    let error = bins.iter().map(|bin| (bin[0] - bin[1]).abs()).sum::<f64>() / all.max(1.0);
    (error, bins.map(|[said, came, count]| [said / f64::max(count, 1.0), came / f64::max(count, 1.0), count]))
}
