//! What is wanted at a time of the day, on all days or some of the week, after hours of silence: the backup at three,
//! the report on Mondays, the first look in the morning.
//!
//! Comes in: accesses that end a silence, with the local time. Goes out: appointments whose time has come. Never here:
//! time zones (the caller's local time is taken as it is), or more entries than set aside, 64 bytes each; one that came
//! on a single day gives way, one that came on more only after weeks. A name that comes once gets none.

use super::{
    ClientKey,
    agenda::{Appointment, Record, come},
    lags::WINDOW,
    resources::Ref,
    snapshot::{self, Bytes, Source},
};

const PLACES: usize = 1024;
const WAYS: usize = 4;
const DAY: f64 = 86_400.0;
/// Seconds without an access that make the next one a beginning.
pub(super) const SILENCE: f64 = 4.0 * 3600.0;
/// Seconds around its time within which an access belongs to an appointment at least.
const NEAR: f32 = 900.0;
/// Deviations before its time from which on it is due, and seconds on top.
const DEVIATIONS: f32 = 3.0;
const AHEAD: f32 = 5.0;
/// Days that are looked back upon; then all counts are halved.
const LOOK_BACK: u32 = 56;
/// Days on which it came, from which on it is told, and kept for so many days without.
const TIMES: u32 = 2;
const KEPT_DAYS: u32 = 28;

/// A resource that is wanted at a time of the day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Season {
    client: ClientKey,
    /// When it was last told to be due, in local seconds since 1970.
    told: f64,
    resource: Ref,
    /// Seconds since midnight, and their mean deviation.
    time: f32,
    deviation: f32,
    /// The day it began, the last one on which it came, and the last one on which it was told, since 1970.
    first: u32,
    last: u32,
    told_on: u32,
    /// How often it came on each day of the week, Monday first.
    days: [u8; 7],
    record: Record,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Seasons {
    pub(super) places: Vec<Season>,
    /// Nothing is due before, in local seconds since 1970.
    next: f64,
}

/// From -12 h to 12 h.
fn around(seconds: f64) -> f64 {
    (seconds + DAY / 2.0).rem_euclid(DAY) - DAY / 2.0
}

/// The day of the week, Monday being 0; 1970 began with a Thursday.
const fn weekday(day: u32) -> usize {
    ((day + 3) % 7) as usize
}

impl Season {
    fn times(&self) -> u32 {
        self.days.iter().map(|&count| u32::from(count)).sum()
    }

    /// The probability that it comes on this day: what was on this day of the week, and on all days for half a day's worth.
    fn on(&self, day: u32) -> f32 {
        let days = day.saturating_sub(self.first);
        // How many of the days since the first were this day of the week.
        let ahead = (weekday(day) + 7 - weekday(self.first)) as u32 % 7;
        let same = if days > ahead { (days - ahead - 1) / 7 + 1 } else { 0 };
        let all = (self.times() as f32 / days.max(1) as f32).min(1.0);
        let came = f32::from(self.days[weekday(day)]).min(same as f32);
        (came + 0.5 * all) / (same as f32 + 0.5)
    }

    /// From when on it is due on this day, and until when.
    fn due_on(&self, day: u32) -> [f64; 2] {
        let at = f64::from(day) * DAY + f64::from(self.time);
        [at - f64::from(DEVIATIONS * self.deviation + AHEAD), at + f64::from(DEVIATIONS * self.deviation)]
    }

    /// It came on this day, `off` seconds after its time.
    fn came(&mut self, day: u32, off: f32) {
        if day == self.last {
            return;
        }
        let weight = (1.0 / (self.times() as f32 + 1.0)).max(0.2);
        self.deviation += (off.abs() - self.deviation) * weight;
        self.time = (self.time + off * weight).rem_euclid(DAY as f32);
        let count = &mut self.days[weekday(day)];
        *count = count.saturating_add(1);
        self.last = day;
        if day.saturating_sub(self.first) >= LOOK_BACK {
            self.days = self.days.map(|count| count.div_ceil(2));
            self.first = day - LOOK_BACK / 2;
        }
    }
}

impl Seasons {
    pub(super) const BYTES: usize = PLACES * size_of::<Season>();

    pub(super) fn new() -> Self {
        let empty = Season {
            client: ClientKey(0),
            told: 0.0,
            resource: Ref::MAX,
            time: 0.0,
            deviation: 0.0,
            first: 0,
            last: 0,
            told_on: 0,
            days: [0; 7],
            record: Record::default(),
        };
        Self { places: vec![empty; PLACES], next: f64::NEG_INFINITY }
    }

    /// Someone accessed a resource after a silence; the time before that such a silence ended was `since` seconds ago.
    pub(super) fn accessed(&mut self, client: ClientKey, resource: Ref, local: f64, since: f64, horizon: f32) {
        if !(DAY..DAY * 1e6).contains(&local) {
            return;
        }
        let hash = super::arcs::key(&[resource.into()]);
        let first = (hash >> 32) as usize % (PLACES / WAYS) * WAYS;
        let set = &mut self.places[first..first + WAYS];
        let off = |season: &Season| around(local - f64::from(season.time)) as f32;
        let near = |season: &Season| {
            season.resource == resource && off(season).abs() <= NEAR.max(2.0 * DEVIATIONS * season.deviation)
        };
        let today = (local / DAY) as u32;
        if let Some(known) = set.iter().position(near) {
            let season = &mut set[known];
            let off = off(season);
            // The day is that of its time: what is due at midnight may come on either side.
            let day = ((local - f64::from(off)) / DAY) as u32;
            if season.last != day {
                // Of the days on which it comes, on how many it was told in time.
                season.record.told();
                if season.told_on == day {
                    season.record.came(local - season.told, horizon);
                }
            }
            season.client = client;
            season.came(day, off);
            self.next = f64::NEG_INFINITY;
            return;
        }
        let weakest = (0..WAYS).min_by_key(|&at| {
            let season = &set[at];
            // A week of silence takes half.
            (season.times() * 256 / (1 + today.saturating_sub(season.last) / 7), season.last)
        });
        let kept = |season: &Season| season.times() >= TIMES && today.saturating_sub(season.last) < KEPT_DAYS;
        let Some(weakest) = weakest.filter(|&at| !kept(&set[at])) else { return };
        let mut season = Season {
            client,
            told: 0.0,
            resource,
            time: local.rem_euclid(DAY) as f32,
            deviation: 0.0,
            first: today,
            last: today,
            told_on: 0,
            days: [0; 7],
            record: Record::default(),
        };
        season.days[weekday(today)] = 1;
        let before = local - since;
        let off = around(since) as f32;
        if since > DAY / 2.0 && off.abs() <= NEAR && before > DAY {
            // The time before was at the same time of its day.
            (season.time, season.first) = (before.rem_euclid(DAY) as f32, (before / DAY) as u32);
            (season.last, season.days) = (season.first, [0; 7]);
            season.days[weekday(season.first)] = 1;
            season.came(((local - f64::from(off)) / DAY) as u32, off);
        }
        set[weakest] = season;
        self.next = f64::NEG_INFINITY;
    }

    /// Nothing is due before this time.
    pub(super) const fn next(&self) -> f64 {
        self.next
    }

    /// Tells once a day of each season whose time has come.
    pub(super) fn due(&mut self, local: f64, horizon: f32, mut tell: impl FnMut(Appointment)) {
        if local < self.next {
            return;
        }
        self.next = f64::INFINITY;
        // A clock that was never set knows no days.
        if !(DAY..DAY * 1e6).contains(&local) {
            return;
        }
        let today = (local / DAY) as u32;
        for season in self.places.iter_mut().filter(|season| season.times() >= TIMES) {
            // What is due just after midnight begins to be so before.
            for day in [today, today + 1] {
                let [from, until] = season.due_on(day);
                if local < from {
                    self.next = self.next.min(from);
                    break;
                }
                if local > until || season.told_on == day || season.last == day {
                    continue;
                }
                (season.told, season.told_on) = (local, day);
                let expected_in = (f64::from(day) * DAY + f64::from(season.time) - local) as f32;
                let first = [horizon, WINDOW].map(|time| come(time - expected_in, season.deviation));
                let shares = season.record.shares(first);
                let [probability, worth] = shares.map(|share| share * season.on(day));
                tell(Appointment {
                    client: season.client,
                    resource: season.resource,
                    probability,
                    worth,
                    expected_in: expected_in.max(0.0),
                    deviation: season.deviation,
                });
            }
        }
    }
}

impl snapshot::Record for Season {
    fn put(&self, to: &mut Bytes<'_>) {
        to.put(&(self.client.0 as u64)).put(&((self.client.0 >> 64) as u64)).put(&self.told);
        to.put(&[self.resource, self.first, self.last, self.told_on]).put(&[self.time, self.deviation]);
        to.put(&self.days).put(&[self.record.told, self.record.within_horizon, self.record.within_window]);
    }

    fn take(from: &mut Source<'_>) -> Self {
        let (low, high, told) = (from.take::<u64>(), from.take::<u64>(), from.take());
        let [resource, first, last, told_on] = from.take();
        let [time, deviation] = from.take();
        let days = from.take();
        let [times, within_horizon, within_window] = from.take();
        Self {
            client: ClientKey(u128::from(high) << 64 | u128::from(low)),
            told,
            resource,
            time,
            deviation,
            first,
            last,
            told_on,
            days,
            record: Record { told: times, within_horizon, within_window },
        }
    }

    fn is_used(&self) -> bool {
        self.times() > 0
    }
}
