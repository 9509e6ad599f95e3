//! How many connections to an origin the recent rate calls for.
//!
//! Comes in: programs that came for a connection, with the time; how long a dial takes and an idle connection lives.
//! Goes out: a level to keep. Never here: how many there are, or anything that an event could add up: the level is the
//! same however often it is asked for, so a steady load replaces what it takes and nothing more.

use std::time::Duration;

use crate::model::Timestamp;

/// An arrival counts less and less; after this long a third of it is left.
const MEMORY: Duration = Duration::from_secs(60);
/// Arrivals of one visit come within this.
const VISIT: Duration = Duration::from_secs(1);
/// How often somebody may find none ready.
const MISSES: f64 = 0.05;
/// How likely the last of several kept connections must be of use before it ends. At two thirds there is one unused for
/// two that are used, which is the default of `policy.waste_budget`.
const OF_USE: f64 = 2.0 / 3.0;
/// No level is higher; limits are lower.
const MOST: u32 = 64;

/// The arrivals at one origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// Arrivals, each weighted by its age.
    weight: f64,
    at: Timestamp,
    /// How many came in the latest visit so far, and when it began.
    visit: u32,
    visit_began: Timestamp,
    /// How many come in a visit: quick to fall, slow to rise.
    width: f64,
}

impl Default for Demand {
    fn default() -> Self {
        Self { weight: 0.0, at: Timestamp::ZERO, visit: 0, visit_began: Timestamp::ZERO, width: 1.0 }
    }
}

impl Demand {
    /// Somebody came, whether there was a connection or not.
    pub(crate) fn arrived(&mut self, now: Timestamp) {
        self.weight = self.weight_at(now) + 1.0;
        self.at = self.at.max(now);
        if self.visit > 0 && now.since(self.visit_began) < VISIT {
            self.visit += 1;
            return;
        }
        if self.visit > 0 {
            let change = f64::from(self.visit.min(MOST)) - self.width;
            self.width += change * if change < 0.0 { 0.6 } else { 0.25 };
        }
        (self.visit, self.visit_began) = (1, now);
    }

    /// Arrivals a second.
    pub(crate) fn rate(&self, now: Timestamp) -> f64 {
        self.weight_at(now) / MEMORY.as_secs_f64()
    }

    /// How many connections a visit takes.
    pub(crate) fn width(&self) -> u32 {
        (self.width.round() as u32).clamp(1, MOST)
    }

    /// How many connections to keep: as many as are taken while one is dialled, with a margin, but none that would
    /// rather end unused than be taken within `idle`.
    pub(crate) fn level(&self, now: Timestamp, dial: Duration, idle: Duration) -> u32 {
        let rate = self.rate(now);
        let (while_dialling, while_idle) = (rate * dial.as_secs_f64(), rate * idle.as_secs_f64());
        let enough = (1..).zip(tail(while_dialling)).find(|(_, more)| *more <= MISSES).map_or(MOST, |(level, _)| level);
        // The more are kept, the longer each waits for its turn.
        let of_use = tail(while_idle).take(enough as usize).take_while(|&used| used >= OF_USE).count();
        u32::try_from(of_use).unwrap_or(MOST)
    }

    fn weight_at(&self, now: Timestamp) -> f64 {
        self.weight * (-now.since(self.at).as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

/// The probabilities of at least one arrival, at least two and so on, where `mean` are expected (Poisson).
fn tail(mean: f64) -> impl Iterator<Item = f64> {
    // Beyond this a float has no room for e^-mean; there are enough arrivals for any level.
    let certain = mean > 500.0;
    let (mut term, mut below) = ((-mean).exp(), 0.0);
    (1..MOST).map(move |count| {
        if certain {
            return 1.0;
        }
        below += term;
        term *= mean / f64::from(count);
        1.0 - below
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIAL: Duration = Duration::from_millis(100);
    const IDLE: Duration = Duration::from_secs(22);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_millis(ms))
    }

    /// Arrivals at this pause for five minutes, and the time after them.
    fn steady(pause_ms: u64) -> (Demand, Timestamp) {
        let mut demand = Demand::default();
        let times = (0..300_000 / pause_ms).map(|number| at(number * pause_ms));
        for now in times {
            demand.arrived(now);
        }
        (demand, at(300_000))
    }

    #[test]
    fn the_rate_is_what_came() {
        for (pause_ms, rate) in [(10, 100.0), (1000, 1.0), (10_000, 0.1)] {
            let (demand, now) = steady(pause_ms);
            let measured = demand.rate(now);
            assert!((measured / rate - 1.0).abs() < 0.1, "{measured} for {rate}");
            let later = demand.rate(now + MEMORY);
            assert!((later / measured - 0.368).abs() < 0.01);
        }
        assert!(Demand::default().rate(at(5)).abs() < f64::EPSILON);
    }

    #[test]
    fn a_level_serves_the_dial_and_outlives_nothing() {
        // 100 a second and 100 ms: ten come while one is dialled.
        let (busy, now) = steady(10);
        assert_eq!(busy.level(now, DIAL, IDLE), 16);
        // One a second: one is nearly always enough.
        let (calm, now) = steady(1000);
        assert_eq!(calm.level(now, DIAL, IDLE), 2);
        assert_eq!(calm.level(now, Duration::from_millis(20), IDLE), 1);
        // One in fifty seconds: a connection that ends after 22 would rather be wasted.
        let (rare, now) = steady(50_000);
        assert_eq!(rare.level(now, DIAL, IDLE), 0);
        // Where the origin closes early, fewer are of use than would be taken while one is dialled, or none.
        assert_eq!(calm.level(now, DIAL, Duration::from_secs(2)), 1);
        assert_eq!(calm.level(now, DIAL, Duration::from_secs(1)), 0);
    }

    #[test]
    fn one_visit_is_no_demand_and_what_ended_is_forgotten() {
        let mut demand = Demand::default();
        demand.arrived(at(0));
        demand.arrived(at(1));
        assert_eq!(demand.level(at(2), DIAL, IDLE), 0);
        let (demand, end) = steady(1000);
        let kept = (0..600).take_while(|&s| demand.level(end + Duration::from_secs(s), DIAL, IDLE) > 0).count();
        assert!((100..200).contains(&kept), "kept for {kept} s after the last");
    }

    #[test]
    fn the_width_of_visits_rises_slowly_and_falls_fast() {
        let mut demand = Demand::default();
        let mut visit = |number: u64, connections: u64| {
            (0..connections).for_each(|connection| demand.arrived(at(number * 30_000 + connection * 20)));
            demand.width()
        };
        assert_eq!([visit(0, 4), visit(1, 4), visit(2, 4), visit(3, 4), visit(4, 4)], [1, 2, 2, 3, 3]);
        assert_eq!([visit(5, 1), visit(6, 1), visit(7, 1), visit(8, 1)], [3, 2, 1, 1]);
    }

    #[test]
    fn poisson() {
        let at_least = |count: usize, mean: f64| tail(mean).nth(count - 1).unwrap();
        assert!((at_least(1, 1.0) - 0.632).abs() < 0.001);
        assert!((at_least(3, 2.0) - 0.323).abs() < 0.001);
        assert!((at_least(63, 1000.0) - 1.0).abs() < f64::EPSILON);
        assert!(at_least(1, 0.0).abs() < f64::EPSILON);
    }
}
