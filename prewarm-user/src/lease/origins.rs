//! What is learnt about each origin: whether it can be reached, and how long it keeps idle connections.
//!
//! Comes in: failures, successes, closed and outlived connections, with the time. Goes out: whether a dial may start,
//! and how long its lease may live. Never here: a clock, or memory that grows with the number of names seen.

use std::{collections::HashMap, time::Duration};

use crate::model::{Origin, Timestamp};

/// Origins that are remembered; the one untouched longest is forgotten for a new one.
const REMEMBERED: usize = 4096;
/// No lifetime below this is believed: a server that restarts closes connections of any age.
const SHORTEST: Duration = Duration::from_secs(1);

/// The settings of [`Origins`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The pause after the first failure.
    pub(crate) backoff: Duration,
    /// The longest pause.
    pub(crate) ceiling: Duration,
    /// Failures in a row that lead to the longest pause at once.
    pub(crate) breaker: u32,
    /// How long a lease lives where nothing else was learnt.
    pub(crate) idle: Duration,
}

/// All origins that something was learnt about.
#[derive(Debug)]
pub(crate) struct Origins {
    patience: Patience,
    known: HashMap<Origin, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    failures: u32,
    failed: Timestamp,
    not_before: Timestamp,
    idle: Duration,
    touched: Timestamp,
}

/// How ready an origin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Dial.
    Open,
    /// It failed before, and its pause is over: one dial at a time, to see.
    Trial,
    /// Not before its pause is over.
    Paused,
}

impl Origins {
    /// Nothing is known.
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, known: HashMap::new() }
    }

    /// Whether a dial may start.
    pub(crate) fn readiness(&self, origin: &Origin, now: Timestamp) -> Readiness {
        match self.known.get(origin) {
            Some(known) if known.failures > 0 && now < known.not_before => Readiness::Paused,
            Some(known) if known.failures > 0 => Readiness::Trial,
            _ => Readiness::Open,
        }
    }

    /// A dial that had begun at `since` failed, or the origin reset a connection of that age: it does not want this.
    /// Of several that were under way together only the first counts: they tell the same story.
    pub(crate) fn failed(&mut self, origin: &Origin, since: Timestamp, now: Timestamp) {
        let Patience { backoff, ceiling, breaker, .. } = self.patience;
        let known = self.touch(origin, now);
        if known.failures > 0 && since <= known.failed {
            return;
        }
        known.failed = now;
        known.failures = known.failures.saturating_add(1);
        let pause = if known.failures >= breaker {
            ceiling
        } else {
            backoff.saturating_mul(2_u32.saturating_pow(known.failures - 1)).min(ceiling)
        };
        known.not_before = now + pause;
    }

    /// A dial succeeded.
    pub(crate) fn succeeded(&mut self, origin: &Origin, now: Timestamp) {
        if self.known.contains_key(origin) {
            self.touch(origin, now).failures = 0;
        }
    }

    /// How long a lease may live.
    pub(crate) fn idle(&self, origin: &Origin) -> Duration {
        self.known.get(origin).map_or(self.patience.idle, |known| known.idle)
    }

    /// The origin closed a connection that had been idle for `age`. Half of that is safe: a close that is under way
    /// can't be seen, and closes are not punctual.
    pub(crate) fn closed(&mut self, origin: &Origin, age: Duration, now: Timestamp) {
        let known = self.touch(origin, now);
        known.idle = known.idle.min((age / 2).max(SHORTEST));
    }

    /// A lease of that origin reached its end alive: a little longer next time, up to the setting.
    pub(crate) fn outlived(&mut self, origin: &Origin, now: Timestamp) {
        let most = self.patience.idle;
        if self.known.contains_key(origin) {
            let known = self.touch(origin, now);
            known.idle = (known.idle * 5 / 4).min(most);
        }
    }

    fn touch(&mut self, origin: &Origin, now: Timestamp) -> &mut Known {
        if !self.known.contains_key(origin)
            && self.known.len() >= REMEMBERED
            && let Some(oldest) =
                self.known.iter().min_by_key(|(_, known)| known.touched).map(|(origin, _)| origin.clone())
        {
            self.known.remove(&oldest);
        }
        let idle = self.patience.idle;
        let known = self.known.entry(origin.clone()).or_insert(Known {
            failures: 0,
            failed: now,
            not_before: now,
            idle,
            touched: now,
        });
        known.touched = now;
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Origins {
        Origins::new(Patience {
            backoff: Duration::from_secs(1),
            ceiling: Duration::from_secs(60),
            breaker: 5,
            idle: Duration::from_secs(22),
        })
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn pauses_double_up_to_the_breaker_and_its_ceiling() {
        let mut origins = origins();
        let origin: Origin = "a.example:80".parse().unwrap();
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            origins.failed(&origin, now, now + Duration::from_millis(1));
            origins.failed(&origin, now, now + Duration::from_millis(2));
            now = now + Duration::from_millis(1);
            let end =
                (0..100).find(|&wait| origins.readiness(&origin, now + Duration::from_secs(wait)) == Readiness::Trial);
            pauses.push(end.unwrap());
            now = now + Duration::from_secs(end.unwrap());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 60, 60]);
        origins.succeeded(&origin, now);
        assert_eq!(origins.readiness(&origin, now), Readiness::Open);
    }

    #[test]
    fn lifetimes_are_learnt_down_and_up() {
        let mut origins = origins();
        let origin: Origin = "a.example:80".parse().unwrap();
        assert_eq!(origins.idle(&origin), Duration::from_secs(22));
        origins.closed(&origin, Duration::from_secs(5), at(5));
        assert_eq!(origins.idle(&origin), Duration::from_millis(2500));
        origins.closed(&origin, Duration::from_secs(30), at(6));
        assert_eq!(origins.idle(&origin), Duration::from_millis(2500), "a later close teaches nothing");
        origins.outlived(&origin, at(7));
        assert_eq!(origins.idle(&origin), Duration::from_millis(3125));
        for _ in 0..30 {
            origins.outlived(&origin, at(8));
        }
        assert_eq!(origins.idle(&origin), Duration::from_secs(22));
        origins.closed(&origin, Duration::from_millis(3), at(9));
        assert_eq!(origins.idle(&origin), SHORTEST);
    }

    #[test]
    fn memory_is_bounded() {
        let mut origins = origins();
        for number in 0..REMEMBERED + 10 {
            let now = at(number as u64);
            origins.failed(&format!("a{number}.example:80").parse().unwrap(), now, now);
        }
        assert_eq!(origins.known.len(), REMEMBERED);
        assert_eq!(origins.readiness(&"a0.example:80".parse().unwrap(), at(0)), Readiness::Open, "the oldest is gone");
    }
}
