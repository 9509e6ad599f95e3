//! What is known of each origin from dealing with it: its round trip, and its breaker.
//!
//! Comes in: measurements and outcomes of our own actions, which budgets bound. Goes out: what a connection saves, and
//! whether the origin is to be left alone. Never here: more origins than set; the one not dealt with for longest goes.

use std::{collections::HashMap, time::Duration};

use super::breaker::Breaker;
use crate::model::{ResourceId, Timestamp};

/// An origin: the name's ID and the port; port 0 stands for looking the name up.
pub(super) type OriginKey = (ResourceId, u16);

/// One origin's state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OriginState {
    /// Smoothed, in milliseconds.
    pub(super) round_trip_ms: Option<f64>,
    pub(super) breaker: Breaker,
    touched: Timestamp,
}

/// All origins.
#[derive(Debug)]
pub(super) struct Origins {
    capacity: usize,
    states: HashMap<OriginKey, OriginState>,
}

/// Weight of a new measurement (RFC 6298, 2.3: an eighth).
const WEIGHT: f64 = 0.125;

impl Origins {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, states: HashMap::new() }
    }

    pub(super) fn get(&self, origin: OriginKey) -> Option<&OriginState> {
        self.states.get(&origin)
    }

    /// The origin's state, made if there is none; call it only for what this host did itself.
    pub(super) fn touch(&mut self, now: Timestamp, origin: OriginKey) -> &mut OriginState {
        if self.states.len() >= self.capacity && !self.states.contains_key(&origin) {
            self.make_room();
        }
        let state = self.states.entry(origin).or_default();
        state.touched = state.touched.max(now);
        state
    }

    pub(super) fn measured(&mut self, now: Timestamp, origin: OriginKey, round_trip: Duration) {
        let sample = round_trip.as_secs_f64() * 1000.0;
        let state = self.touch(now, origin);
        state.round_trip_ms = Some(state.round_trip_ms.map_or(sample, |old| old + WEIGHT * (sample - old)));
    }

    /// How many breakers are not closed.
    pub(super) fn tripped(&self) -> usize {
        self.states.values().filter(|state| state.breaker.is_tripped()).count()
    }

    pub(super) fn bytes(&self) -> usize {
        self.states.capacity() * (size_of::<(OriginKey, OriginState)>() + 1) * 8 / 7
    }

    /// Drops the eighth not dealt with for longest, so that the cost of finding it is spread over many newcomers.
    fn make_room(&mut self) {
        let mut times: Vec<_> = self.states.values().map(|state| state.touched).collect();
        let eighth = times.len() / 8;
        let (_, &mut limit, _) = times.select_nth_unstable(eighth);
        self.states.retain(|_, state| state.touched > limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smooths_and_stays_within_its_bound() {
        let mut origins = Origins::new(64);
        let key = (ResourceId(1), 443);
        origins.measured(Timestamp::ZERO, key, Duration::from_millis(80));
        origins.measured(Timestamp::ZERO, key, Duration::from_millis(40));
        assert_eq!(origins.get(key).unwrap().round_trip_ms, Some(75.0));
        for n in 0..1000 {
            origins.touch(Timestamp::from_nanos(n), (ResourceId(n), 443));
            assert!(origins.states.len() <= 64);
        }
        assert!(origins.get((ResourceId(999), 443)).is_some() && origins.get(key).is_none());
    }
}
