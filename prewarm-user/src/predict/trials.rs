//! Predictions whose time has not come yet: what was said of a resource, until it is known whether it came true.
//!
//! Comes in: what was said, and accesses. Goes out: each trial with its truth once the horizon has passed. Never here:
//! more trials than set aside; while there is no room new ones are not taken, so none is lost for being slow.

use super::resources::Ref;

/// No trial.
pub(super) const NONE: u32 = u32::MAX;

/// What was said of one resource at one event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial<S> {
    /// When, in seconds.
    pub(super) at: f64,
    /// Of which resource.
    pub(super) resource: Ref,
    /// The trial before this one about the same resource.
    before: u32,
    /// Seconds to the first access after it, if there was one.
    lag: Option<f32>,
    /// What the experts said.
    pub(super) said: S,
}

impl<S> Trial<S> {
    /// Seconds to the first access after it, if there was one.
    pub(super) fn lag(&self) -> Option<f32> {
        self.lag
    }

    /// Whether it was accessed `from` to `to` seconds later.
    pub(super) fn came(&self, from: f32, to: f32) -> bool {
        self.lag.is_some_and(|lag| (from..=to).contains(&lag))
    }
}

/// Trials in the order of their time.
#[derive(Debug)]
pub(super) struct Trials<S> {
    ring: Vec<Trial<S>>,
    capacity: usize,
    /// Numbers of the oldest and of the next; a number's place is its remainder.
    oldest: u32,
    next: u32,
}

impl<S: Copy> Trials<S> {
    pub(super) const BYTES_EACH: usize = size_of::<Trial<S>>();

    pub(super) fn new(capacity: usize) -> Self {
        // A power of two, so that numbers may wrap around.
        let capacity = (capacity.max(64) / 2 + 1).next_power_of_two();
        Self { ring: Vec::with_capacity(capacity), capacity, oldest: 0, next: 0 }
    }

    /// Takes a trial in; returns its number, with which the resource must remember it.
    pub(super) fn push(&mut self, at: f64, resource: Ref, before: u32, said: S) -> Option<u32> {
        if (self.next.wrapping_sub(self.oldest) & (NONE >> 1)) as usize >= self.capacity {
            return None;
        }
        let number = self.next;
        let trial = Trial { at, resource, before, lag: None, said };
        let place = self.place(number);
        if place < self.ring.len() {
            self.ring[place] = trial;
        } else {
            self.ring.push(trial);
        }
        self.next = self.next.wrapping_add(1) & (NONE >> 1);
        Some(number)
    }

    /// The resource was accessed: that is the truth of its trials, from the newest numbered `from` back; `mark` is told
    /// of each.
    pub(super) fn hit(&mut self, from: u32, resource: Ref, now: f64, mut mark: impl FnMut(&mut S)) {
        let mut number = from;
        while number != NONE && self.holds(number) {
            let place = self.place(number);
            let trial = &mut self.ring[place];
            if trial.resource != resource || trial.lag.is_some() {
                break;
            }
            trial.lag = Some((now - trial.at) as f32);
            mark(&mut trial.said);
            number = trial.before;
        }
    }

    /// Something is said of the resource anew: the trials about it that are still open, from the newest numbered `from`
    /// back, as long as `beaten` says so of them, no longer stand before it. Returns the first that does.
    pub(super) fn beat(&mut self, from: u32, resource: Ref, now: f64, mut beaten: impl FnMut(&mut S) -> bool) -> u32 {
        let mut number = from;
        while number != NONE && self.holds(number) {
            let place = self.place(number);
            let trial = &mut self.ring[place];
            if trial.resource != resource || trial.lag.is_some() || trial.at >= now || !beaten(&mut trial.said) {
                break;
            }
            number = trial.before;
        }
        number
    }

    /// Takes out the oldest if it was made before `limit`.
    pub(super) fn pop(&mut self, limit: f64) -> Option<Trial<S>> {
        if self.oldest == self.next {
            return None;
        }
        let trial = self.ring[self.place(self.oldest)];
        if trial.at >= limit {
            return None;
        }
        self.oldest = self.oldest.wrapping_add(1) & (NONE >> 1);
        Some(trial)
    }

    pub(super) fn bytes(&self) -> usize {
        self.ring.capacity() * size_of::<Trial<S>>()
    }

    fn holds(&self, number: u32) -> bool {
        (number.wrapping_sub(self.oldest) & (NONE >> 1)) < (self.next.wrapping_sub(self.oldest) & (NONE >> 1))
    }

    fn place(&self, number: u32) -> usize {
        number as usize & (self.capacity - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_comes_with_the_access() {
        let mut trials = Trials::new(64);
        let first = trials.push(0.0, 1, NONE, ()).unwrap();
        let second = trials.push(0.5, 1, first, ()).unwrap();
        trials.push(0.6, 2, NONE, ()).unwrap();
        trials.hit(second, 1, 0.51, |()| ());
        assert!(trials.pop(0.0).is_none());
        let truths: Vec<_> =
            std::iter::from_fn(|| trials.pop(1.0)).map(|trial| (trial.resource, trial.came(0.02, 10.0))).collect();
        assert_eq!(truths, [(1, true), (1, false), (2, false)], "the second came too late to help");
        for n in 0..1000 {
            trials.push(f64::from(n), 3, NONE, ());
        }
        assert_eq!(std::iter::from_fn(|| trials.pop(f64::INFINITY)).count(), 64);
    }
}
