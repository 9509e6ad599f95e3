//! What is wanted at set intervals: for a client and a resource, when it will be asked for next though nothing else
//! announces it.
//!
//! Comes in: accesses. Goes out: appointments whose time has come. Never here: more of them than set aside, 48 bytes
//! each; in a full set the one that came least often, and of those the oldest, is given up.

use super::{ClientKey, lags::WINDOW, resources::Ref};

const PLACES: usize = 2048;
const WAYS: usize = 4;
/// Accesses closer together than this many seconds are one.
const ONE: f64 = 5.0;
/// Gaps in a row that make an interval, and how much of it they may differ in the mean, with as many seconds on top.
const GAPS: u8 = 3;
const REGULAR: f32 = 0.1;
const REGULAR_SECONDS: f32 = 1.0;
/// A gap that differs by this share of the interval is none of its own.
const OTHER: f32 = 0.5;
/// Deviations before the expected time from which on it is due, and seconds on top.
const DEVIATIONS: f32 = 2.0;
const AHEAD: f32 = 1.0;

/// One client's appointments with one resource.
#[derive(Clone, Copy, Debug)]
struct Entry {
    client: ClientKey,
    /// When it was accessed last, and when it was last told to be due, in seconds.
    last: f64,
    told: f64,
    resource: Ref,
    /// Mean gap and its mean deviation, in seconds.
    gap: f32,
    deviation: f32,
    /// Gaps of this length in a row.
    seen: u8,
    record: Record,
}

/// How often it was told, and how often it came then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    pub(super) told: u8,
    pub(super) within_horizon: u8,
    pub(super) within_window: u8,
}

impl Record {
    /// It was told to be due.
    pub(super) fn told(&mut self) {
        if self.told >= 100 {
            (self.told, self.within_horizon, self.within_window) =
                (self.told / 2, self.within_horizon / 2, self.within_window / 2);
        }
        self.told += 1;
    }

    /// It came `lag` seconds after it was told.
    pub(super) fn came(&mut self, lag: f64, horizon: f32) {
        self.within_horizon += u8::from(lag <= f64::from(horizon));
        self.within_window += u8::from(lag < f64::from(WINDOW));
    }

    /// The shares of times that it came within the horizon and within a minute; at first believed to be `first`, for two
    /// trials' worth.
    pub(super) fn shares(&self, first: [f32; 2]) -> [f32; 2] {
        let share = |came: u8, first: f32| (f32::from(came) + 2.0 * first) / (f32::from(self.told) + 2.0);
        [share(self.within_horizon, first[0]), share(self.within_window, first[1])].map(|share| share.clamp(0.0, 1.0))
    }
}

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Appointment {
    pub(super) client: ClientKey,
    pub(super) resource: Ref,
    /// The probability of an access within the horizon, and of one within a minute.
    pub(super) probability: f32,
    pub(super) worth: f32,
    /// Seconds until it is expected, and the mean deviation of that.
    pub(super) expected_in: f32,
    pub(super) deviation: f32,
}

/// The share of what comes at a time with this mean deviation that has come `late` seconds after the mean (Laplace).
pub(super) fn come(late: f32, deviation: f32) -> f32 {
    let deviations = late / deviation.max(0.2);
    if deviations < 0.0 { 0.5 * deviations.exp() } else { 1.0 - 0.5 * (-deviations).exp() }
}

/// All appointments.
#[derive(Debug)]
pub(super) struct Agenda {
    places: Vec<Entry>,
    /// Nothing is due before.
    next: f64,
}

impl Entry {
    fn is_regular(&self) -> bool {
        self.seen >= GAPS && self.deviation <= REGULAR * self.gap + REGULAR_SECONDS
    }

    /// From when on it is due.
    fn from(&self) -> f64 {
        self.last + f64::from(self.gap - DEVIATIONS * self.deviation - AHEAD)
    }

    /// Until when it makes sense to expect it.
    fn until(&self) -> f64 {
        self.last + f64::from(self.gap + 2.0 * DEVIATIONS * self.deviation)
    }
}

impl Agenda {
    pub(super) const BYTES: usize = PLACES * size_of::<Entry>();

    pub(super) fn new() -> Self {
        let empty = Entry {
            client: ClientKey(0),
            last: 0.0,
            told: f64::NEG_INFINITY,
            resource: Ref::MAX,
            gap: 0.0,
            deviation: 0.0,
            seen: 0,
            record: Record::default(),
        };
        Self { places: vec![empty; PLACES], next: f64::INFINITY }
    }

    /// A client accessed a resource that it has accessed `gap` seconds before.
    pub(super) fn accessed(&mut self, client: ClientKey, resource: Ref, now: f64, gap: f32, horizon: f32) {
        let hash = super::arcs::key(&[client.0 as u64, (client.0 >> 64) as u64, resource.into()]);
        let first = (hash >> 32) as usize % (PLACES / WAYS) * WAYS;
        let set = &mut self.places[first..first + WAYS];
        let Some(known) = set.iter().position(|entry| entry.resource == resource && entry.client == client) else {
            if f64::from(gap) < ONE {
                return;
            }
            let weakest = (0..WAYS).min_by(|&a, &b| {
                let rank = |at: usize| (set[at].seen, set[at].last);
                rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal)
            });
            if let Some(weakest) = weakest.filter(|&at| set[at].seen < GAPS || set[at].until() < now) {
                let told = f64::NEG_INFINITY;
                set[weakest] = Entry {
                    client,
                    last: now,
                    told,
                    resource,
                    gap,
                    deviation: 0.0,
                    seen: 1,
                    record: Record::default(),
                };
            }
            return;
        };
        let entry = &mut set[known];
        let gap = now - entry.last;
        if gap < ONE {
            return;
        }
        if entry.told > entry.last {
            entry.record.came(now - entry.told, horizon);
        }
        entry.last = now;
        let off = (gap as f32 - entry.gap).abs();
        if off > OTHER * entry.gap {
            // Another rhythm, or a pause: some of these are forgiven.
            entry.seen = entry.seen.saturating_sub(2);
            if entry.seen == 0 {
                (entry.gap, entry.deviation, entry.seen) = (gap as f32, 0.0, 1);
            }
        } else {
            let weight = (1.0 / (f32::from(entry.seen) + 1.0)).max(0.1);
            // The first gap itself was as far off as the second.
            let weight_of_deviation = if entry.seen == 1 { 0.75 } else { weight };
            entry.deviation += (off - entry.deviation) * weight_of_deviation;
            entry.gap += (gap as f32 - entry.gap) * weight;
            entry.seen = (entry.seen + 1).min(16);
        }
        if entry.is_regular() {
            self.next = self.next.min(entry.from());
        }
    }

    /// Nothing is due before this time.
    pub(super) const fn next(&self) -> f64 {
        self.next
    }

    /// Tells once of each appointment whose time has come.
    pub(super) fn due(&mut self, now: f64, horizon: f32, mut tell: impl FnMut(Appointment)) {
        if now < self.next {
            return;
        }
        self.next = f64::INFINITY;
        for entry in self.places.iter_mut().filter(|entry| entry.is_regular() && entry.told <= entry.last) {
            let from = entry.from();
            if now < from {
                self.next = self.next.min(from);
                continue;
            }
            entry.told = now;
            let expected_in = (entry.last - now) as f32 + entry.gap;
            if now > entry.until() {
                continue;
            }
            let first = [horizon, WINDOW].map(|time| come(time - expected_in, entry.deviation));
            let [probability, worth] = entry.record.shares(first);
            entry.record.told();
            tell(Appointment {
                client: entry.client,
                resource: entry.resource,
                probability,
                worth,
                expected_in: expected_in.max(0.0),
                deviation: entry.deviation,
            });
        }
    }
}
