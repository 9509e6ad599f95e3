//! What is learnt about each origin: whether it can be reached, how long it keeps idle connections, whether it speaks
//! first, and how many come for one.
//!
//! Comes in: what happened to dials, leases and programs, with the time. Goes out: whether a dial may start, how long its
//! lease may live, how many to keep. Never here: a clock, or memory that grows with the number of names seen.

mod memory;
mod places;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

pub use memory::{MemoryError, Remembered};
pub(crate) use places::Places;

use crate::model::{Origin, Timestamp};

/// Origins that are remembered; the one untouched longest is forgotten for a new one.
const REMEMBERED: usize = 4096;
/// No lifetime below this is believed: a server that restarts closes connections of any age.
pub(crate) const SHORTEST: Duration = Duration::from_secs(1);
/// So many connections in a row that ended sooner than that say that the origin wants none that are idle.
const REFUSALS: u32 = 3;

/// So often in a row its addresses were others than those of the answer before: they take turns.
const MOVES: u32 = 2;

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
    /// Their addresses.
    pub(crate) places: Places,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    failures: u32,
    failed: Timestamp,
    not_before: Timestamp,
    short_lives: u32,
    moves: u32,
    idle: Duration,
    round_trip: Option<Duration>,
    tally: Tally,
    touched: Timestamp,
}

/// What came of an origin's leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Tally {
    dials: u64,
    unreached: u64,
    taken: u64,
    missed: u64,
    wasted: u64,
    saved_us: u64,
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

/// One origin, for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OriginView {
    /// NAME:PORT.
    pub origin: String,
    /// Milliseconds of a handshake, smoothed; none before the first.
    pub round_trip_ms: Option<f64>,
    /// Seconds for which an idle connection to it is kept.
    pub idle_seconds: f64,
    /// Whether that was learnt, and is less than the setting.
    pub idle_learnt: bool,
    /// Whether its server speaks first, as its latest connections showed.
    pub speaks_first: bool,
    /// Whether it ends idle connections right away, and gets none for a while.
    pub refuses_idle: bool,
    /// Connections that were established.
    pub dials: u64,
    /// Dials that failed.
    pub unreached: u64,
    /// Leases that programs got.
    pub taken: u64,
    /// Programs that came while there was none.
    pub missed: u64,
    /// Leases that nobody got.
    pub wasted: u64,
    /// Milliseconds that the taken ones saved, in all.
    pub saved_ms: f64,
    /// Programs that come for a connection a second, of late.
    pub rate: f64,
    /// Seconds since anything happened; none before the daemon's start.
    pub quiet_seconds: Option<f64>,
}

impl Origins {
    /// Nothing is known.
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, known: HashMap::new(), places: Places::default() }
    }

    /// Whether a dial may start.
    pub(crate) fn readiness(&self, origin: &Origin, now: Timestamp) -> Readiness {
        match self.known.get(origin) {
            Some(known) if known.streak() == 0 => Readiness::Open,
            Some(known) if now < known.not_before => Readiness::Paused,
            Some(_) => Readiness::Trial,
            None => Readiness::Open,
        }
    }

    /// A dial that had begun at `since` failed. Of several that were under way together only the first counts: they
    /// tell the same story.
    pub(crate) fn failed(&mut self, origin: &Origin, since: Timestamp, now: Timestamp) {
        let patience = self.patience;
        let known = self.touch(origin, now);
        known.tally.unreached += 1;
        if known.failures > 0 && since <= known.failed {
            return;
        }
        known.failed = now;
        known.failures = known.failures.saturating_add(1);
        known.not_before = now + patience.pause(known.streak());
    }

    /// A dial to there succeeded.
    pub(crate) fn succeeded(&mut self, origin: &Origin, destination: SocketAddr, rtt: Duration, now: Timestamp) {
        let known = self.touch(origin, now);
        known.failures = 0;
        known.tally.dials += 1;
        known.round_trip = Some(known.round_trip.map_or(rtt, |before| before - before / 8 + rtt / 8));
        self.places.lead_to(destination, origin, now);
    }

    /// How long a lease may live.
    pub(crate) fn idle(&self, origin: &Origin) -> Duration {
        self.known.get(origin).map_or(self.patience.idle, |known| known.idle)
    }

    /// What a handshake takes.
    pub(crate) fn round_trip(&self, origin: &Origin) -> Option<Duration> {
        self.known.get(origin)?.round_trip
    }

    /// The origin (or something in between) ended a connection that had been idle since `since`. Half of that is safe:
    /// an end that is under way can't be seen, and ends are not punctual. An origin that ends them at once, by a reset
    /// or several times in a row, is left alone.
    pub(crate) fn ended(&mut self, origin: &Origin, since: Timestamp, reset: bool, now: Timestamp) {
        let (age, patience) = (now.since(since), self.patience);
        let known = self.touch(origin, now);
        known.idle = known.idle.min((age / 2).max(SHORTEST));
        if age >= SHORTEST {
            known.short_lives = 0;
            return;
        }
        // Several that were opened together and end together tell the same story.
        if known.short_lives > 0 && since < known.failed {
            return;
        }
        known.failed = now;
        known.short_lives = known.short_lives.saturating_add(1);
        if reset || known.short_lives > 1 {
            known.not_before = now + patience.pause(known.streak());
        }
    }

    /// A lease of that origin reached its end alive: a little longer next time, up to the setting.
    pub(crate) fn outlived(&mut self, origin: &Origin, age: Duration, now: Timestamp) {
        let most = self.patience.idle;
        let known = self.touch(origin, now);
        if age >= SHORTEST {
            known.short_lives = 0;
        }
        // One that ended before its time, because it was of no use beyond, says nothing of a longer one.
        if age >= known.idle {
            known.idle = (known.idle * 5 / 4).min(most);
        }
    }

    /// A look-up gave the addresses that were known, or others.
    pub(crate) fn looked_up(&mut self, origin: &Origin, same: bool, now: Timestamp) {
        let known = self.touch(origin, now);
        known.moves = if same { 0 } else { known.moves.saturating_add(1) };
    }

    /// Whether its addresses change from answer to answer, so that the latest are of no use.
    pub(crate) fn moves(&self, origin: &Origin) -> bool {
        self.known.get(origin).is_some_and(|known| known.moves >= MOVES)
    }

    /// A program got a lease.
    pub(crate) fn taken(&mut self, origin: &Origin, saved: Duration, now: Timestamp) {
        let known = self.touch(origin, now);
        known.short_lives = 0;
        known.tally.taken += 1;
        known.tally.saved_us += u64::try_from(saved.as_micros()).unwrap_or(u64::MAX);
    }

    /// A program came in vain.
    pub(crate) fn missed(&mut self, origin: &Origin, now: Timestamp) {
        self.touch(origin, now).tally.missed += 1;
    }

    /// Nobody got a lease.
    pub(crate) fn wasted(&mut self, origin: &Origin, now: Timestamp) {
        self.touch(origin, now).tally.wasted += 1;
    }

    /// All of them, those with most saved first.
    pub(crate) fn view(&self, now: Timestamp) -> Vec<OriginView> {
        let mut sums = self.places.sums(now);
        let mut rows: Vec<(u64, OriginView)> = self
            .known
            .iter()
            .map(|(origin, known)| {
                let (rate, speaks_first) = sums.remove(origin).unwrap_or_default();
                let view = OriginView {
                    origin: origin.to_string(),
                    round_trip_ms: known.round_trip.map(|rtt| rtt.as_secs_f64() * 1000.0),
                    idle_seconds: known.idle.as_secs_f64(),
                    idle_learnt: known.idle < self.patience.idle,
                    speaks_first,
                    refuses_idle: known.short_lives >= REFUSALS,
                    dials: known.tally.dials,
                    unreached: known.tally.unreached,
                    taken: known.tally.taken,
                    missed: known.tally.missed,
                    wasted: known.tally.wasted,
                    saved_ms: known.tally.saved_us as f64 / 1000.0,
                    rate,
                    quiet_seconds: (known.touched.as_nanos() >= REMEMBERED as u64)
                        .then(|| now.since(known.touched).as_secs_f64()),
                };
                (known.tally.saved_us, view)
            })
            .collect();
        rows.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.origin.cmp(&other.origin)));
        rows.into_iter().map(|(_, view)| view).collect()
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
        let known = self.known.entry(origin.clone()).or_insert_with(|| Known::new(idle, now));
        known.touched = now;
        known
    }
}

impl Known {
    fn new(idle: Duration, now: Timestamp) -> Self {
        Self {
            failures: 0,
            failed: now,
            not_before: now,
            short_lives: 0,
            moves: 0,
            idle,
            round_trip: None,
            tally: Tally::default(),
            touched: now,
        }
    }

    /// What went wrong in a row. One early close alone may be a server that restarts.
    fn streak(&self) -> u32 {
        self.failures.max(self.short_lives)
    }
}

impl Patience {
    fn pause(&self, streak: u32) -> Duration {
        if streak >= self.breaker {
            return self.ceiling;
        }
        self.backoff.saturating_mul(2_u32.saturating_pow(streak.saturating_sub(1))).min(self.ceiling)
    }
}

#[cfg(test)]
mod tests;
