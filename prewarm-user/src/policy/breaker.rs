//! The breaker of an origin: after failures, or after warm-ups that nobody used, it is left alone for a while.
//!
//! Comes in: what became of warm-ups, with the time. Goes out: whether another may be tried. Closed until it trips;
//! then open for a back-off that doubles up to a ceiling; then half-open, with a single trial that decides.

use std::time::Duration;

use crate::{
    config::PolicySettings,
    model::{Timestamp, Verdict},
};

/// When breakers trip, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    failures: u32,
    wasted: f64,
    backoff: Duration,
    ceiling: Duration,
}

impl Limits {
    pub(super) fn new(settings: &PolicySettings) -> Self {
        Self {
            failures: settings.breaker_failures,
            // Waste is a matter of probability, so one run of bad luck must not trip it.
            wasted: f64::from(settings.breaker_failures) * 3.0,
            backoff: Duration::from_secs_f64(settings.breaker_backoff_seconds),
            ceiling: Duration::from_secs_f64(settings.breaker_ceiling_seconds.max(settings.breaker_backoff_seconds)),
        }
    }
}

/// One origin's breaker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// How many uses were expected since the last one: the probabilities of unused warm-ups added up, so that long
    /// shots, which mostly go unused, hardly count.
    wasted: f64,
    state: State,
    /// The last back-off, from which the next is doubled.
    backoff: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Timestamp,
    },
    /// A single trial is under way.
    HalfOpen,
}

impl Breaker {
    /// Whether a warm-up may be tried now.
    pub(super) fn allows(&self, now: Timestamp) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } => now >= until,
            State::HalfOpen => false,
        }
    }

    /// Whether it is anything but closed.
    pub(super) const fn is_tripped(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    /// A warm-up was started.
    pub(super) fn started(&mut self) {
        if let State::Open { .. } = self.state {
            self.state = State::HalfOpen;
        }
    }

    /// What became of a warm-up that was used with `probability`; whether the breaker opened.
    pub(super) fn outcome(&mut self, now: Timestamp, verdict: &Verdict, probability: f64, limits: &Limits) -> bool {
        let trial = matches!(self.state, State::HalfOpen);
        match verdict {
            Verdict::Used { .. } | Verdict::Late => {
                *self = Self::default();
                false
            }
            Verdict::Failed => {
                self.failures += 1;
                (trial || self.failures >= limits.failures) && self.open(now, Duration::ZERO, limits)
            }
            Verdict::Wasted => {
                self.wasted += probability;
                (trial || self.wasted >= limits.wasted) && self.open(now, Duration::ZERO, limits)
            }
            Verdict::PushedBack { retry_after } => self.open(now, retry_after.unwrap_or_default(), limits),
            Verdict::Refused => {
                // The trial told nothing: let another one through at once.
                if trial {
                    self.state = State::Open { until: now };
                }
                false
            }
        }
    }

    fn open(&mut self, now: Timestamp, at_least: Duration, limits: &Limits) -> bool {
        if matches!(self.state, State::Open { .. }) && at_least.is_zero() {
            // Warm-ups that were under way when it opened say nothing new.
            return false;
        }
        self.backoff = (self.backoff * 2).clamp(limits.backoff, limits.ceiling);
        let wait = self.backoff.max(at_least.min(limits.ceiling));
        self.state = State::Open { until: now + wait };
        self.failures = 0;
        self.wasted = 0.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    const USED: Verdict = Verdict::Used { saved: Duration::ZERO };

    #[test]
    fn opens_backs_off_and_closes() {
        let limits = Limits::new(&PolicySettings::default());
        let mut breaker = Breaker::default();
        assert!(!breaker.outcome(at(0), &Verdict::Failed, 1.0, &limits));
        assert!(!breaker.outcome(at(0), &Verdict::Failed, 1.0, &limits));
        assert!(breaker.outcome(at(0), &Verdict::Failed, 1.0, &limits), "three in a row");
        let mut now = 0;
        for wait in [10, 20, 40, 80, 160, 320, 600, 600] {
            assert!(!breaker.allows(at(now + wait - 1)), "{wait}");
            now += wait;
            assert!(breaker.allows(at(now)), "{wait}");
            breaker.started();
            assert!(!breaker.allows(at(now)), "one trial");
            assert!(breaker.outcome(at(now), &Verdict::Failed, 1.0, &limits));
        }
        now += 600;
        breaker.started();
        breaker.outcome(at(now), &USED, 1.0, &limits);
        assert!(breaker.allows(at(now)) && !breaker.is_tripped());
    }

    #[test]
    fn use_forgives() {
        let limits = Limits::new(&PolicySettings::default());
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            assert!(!breaker.outcome(at(0), &Verdict::Failed, 1.0, &limits));
            assert!(!breaker.outcome(at(0), &Verdict::Wasted, 1.0, &limits));
            breaker.outcome(at(0), &USED, 1.0, &limits);
        }
        for _ in 0..8 {
            assert!(!breaker.outcome(at(0), &Verdict::Wasted, 1.0, &limits));
        }
        assert!(breaker.outcome(at(0), &Verdict::Wasted, 1.0, &limits), "nine expected uses that never came");
        let mut long_shots = Breaker::default();
        for _ in 0..80 {
            assert!(!long_shots.outcome(at(0), &Verdict::Wasted, 0.1, &limits));
        }
    }

    #[test]
    fn who_says_so_is_left_alone() {
        let limits = Limits::new(&PolicySettings::default());
        let mut breaker = Breaker::default();
        let pushed = Verdict::PushedBack { retry_after: Some(Duration::from_secs(120)) };
        assert!(breaker.outcome(at(0), &pushed, 1.0, &limits));
        assert!(!breaker.allows(at(119)) && breaker.allows(at(120)));
        breaker.started();
        breaker.outcome(at(120), &Verdict::Refused, 1.0, &limits);
        assert!(breaker.allows(at(120)), "a trial that was not made decides nothing");
    }
}
