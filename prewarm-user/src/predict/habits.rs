//! What each client is used to: for a client and a resource, how often and when last, and in which rhythm.
//!
//! Comes in: accesses. Goes out: counts and ages. Never here: more pairs than set aside, 24 bytes each; in a full set
//! the one that came least, and of those the oldest, is forgotten.

use super::{
    features::{fast_log2, follow},
    resources::Ref,
    snapshot::{Bytes, Record, Source},
};

const WAYS: usize = 4;

/// One client's use of one resource.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habit {
    client: u32,
    resource: Ref,
    /// When last, in eighths of a second; wraps after 17 years.
    last: u32,
    /// How often, up to 65535; 0 marks an empty place.
    pub(super) count: u16,
    /// How often within a minute of the time before.
    pub(super) soon: u16,
    /// Mean logarithm (base 2) of the gaps in seconds, and its mean deviation.
    pub(super) pace: f32,
    pub(super) spread: f32,
}

impl Habit {
    /// Seconds since the last time.
    #[inline]
    pub(super) fn age(&self, now: f64) -> f32 {
        eighths(now).saturating_sub(self.last) as f32 / 8.0
    }
}

impl Record for Habit {
    fn put(&self, to: &mut Bytes<'_>) {
        to.put(&[self.client, self.resource, self.last]).put(&[self.count, self.soon]).put(&[self.pace, self.spread]);
    }

    fn take(from: &mut Source<'_>) -> Self {
        let ([client, resource, last], [count, soon], [pace, spread]) = (from.take(), from.take(), from.take());
        Self { client, resource, last, count, soon, pace, spread }
    }

    fn is_used(&self) -> bool {
        self.count > 0
    }
}

/// All pairs.
#[derive(Debug)]
pub(super) struct Habits {
    pub(super) places: Vec<Habit>,
}

impl Habits {
    pub(super) const BYTES_EACH: usize = size_of::<Habit>();

    /// Room for about `count` pairs.
    pub(super) fn new(count: usize) -> Self {
        // Not all zeroes: so the memory is there from the start.
        let empty = Habit { resource: Ref::MAX, ..Habit::default() };
        Self { places: vec![empty; count.max(WAYS) / WAYS * WAYS] }
    }

    #[inline]
    pub(super) fn get(&self, client: u32, resource: Ref) -> Option<&Habit> {
        let first = self.set(client, resource);
        self.places[first..first + WAYS]
            .iter()
            .find(|habit| habit.count > 0 && habit.client == client && habit.resource == resource)
    }

    /// The client accessed the resource once more; returns the gap since the last time in seconds.
    pub(super) fn accessed(&mut self, client: u32, resource: Ref, now: f64) -> Option<f32> {
        let first = self.set(client, resource);
        let set = &mut self.places[first..first + WAYS];
        let known =
            set.iter().position(|habit| habit.count > 0 && habit.client == client && habit.resource == resource);
        let Some(known) = known else {
            let weakest = (0..WAYS).min_by_key(|&at| (set[at].count, set[at].last)).unwrap_or(0);
            set[weakest] = Habit { client, resource, last: eighths(now), count: 1, ..Habit::default() };
            return None;
        };
        let habit = &mut set[known];
        let age = habit.age(now);
        habit.soon = habit.soon.saturating_add(u16::from(age <= 60.0));
        follow(&mut habit.pace, &mut habit.spread, fast_log2(age.max(0.06)), habit.count - 1);
        if habit.count == u16::MAX {
            (habit.count, habit.soon) = (habit.count / 2, habit.soon / 2);
        }
        habit.count += 1;
        habit.last = eighths(now);
        Some(age)
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Habit>()
    }

    #[inline]
    fn set(&self, client: u32, resource: Ref) -> usize {
        let sets = (self.places.len() / WAYS) as u64;
        let hash = (u64::from(client) << 32 | u64::from(resource)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ hash >> 29).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (((hash >> 32) * sets) >> 32) as usize * WAYS
    }
}

#[inline]
fn eighths(now: f64) -> u32 {
    (now * 8.0) as u64 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rhythm_is_learnt_and_survives_strangers() {
        let mut habits = Habits::new(1024);
        let bytes = habits.bytes();
        for n in 0..20 {
            let gap = habits.accessed(1, 7, f64::from(n) * 64.0);
            assert_eq!(gap, (n > 0).then_some(64.0));
        }
        for n in 0..100_000 {
            habits.accessed(2, n, 1300.0);
        }
        let habit = habits.get(1, 7).expect("what came often stays");
        assert_eq!((habit.count, habit.age(1300.0)), (20, 84.0));
        assert!((habit.pace - 6.0).abs() < 0.1 && habit.spread < 0.1, "{habit:?}");
        assert!(habits.get(3, 7).is_none());
        assert_eq!(habits.bytes(), bytes);
    }
}
