//! When something comes, if it comes: a small histogram of lags, and what it says of when to make it ready.

use std::time::Duration;

/// Bins of a histogram of lags.
pub(crate) const BINS: usize = 8;
/// The bins' upper ends, in seconds; what comes later is not remembered.
pub(crate) const ENDS: [f32; BINS] = [0.02, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0];
/// Counts by lag.
pub(crate) type Lags = [u8; BINS];

/// Time constant in seconds for what no context has a time for.
const UNTIMED: f32 = 20.0;
/// Copies that last for less are made when most accesses find them, others at once: measured by `bench predict --timing`.
const SHORT: Duration = Duration::from_secs(5);

/// When something comes, if it comes within a minute: what the context that speaks best for it counted by lag.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    lags: Lags,
    elapsed: f32,
}

/// The bin of a lag.
#[inline]
pub(crate) fn bin(lag: f32) -> usize {
    ENDS.iter().position(|end| lag <= *end).unwrap_or(BINS - 1)
}

/// What share of bin `index` lies before `time`.
#[inline]
pub(crate) fn share_before(index: usize, time: f32) -> f32 {
    let start = if index == 0 { 0.0 } else { ENDS[index - 1] };
    ((time - start) / (ENDS[index] - start)).clamp(0.0, 1.0)
}

/// How much lies up to `time`; a bin that `time` cuts counts by its share.
pub(crate) fn mass_before(lags: &Lags, time: f32) -> f32 {
    let mut mass = 0.0;
    for (index, &count) in lags.iter().enumerate() {
        if index > 0 && ENDS[index - 1] >= time {
            break;
        }
        mass += f32::from(count) * share_before(index, time);
    }
    mass
}

impl Timing {
    /// Of a context that began `elapsed` seconds ago.
    pub(crate) const fn new(lags: &Lags, elapsed: f32) -> Self {
        Self { lags: *lags, elapsed }
    }

    /// Of what is expected in so many seconds.
    #[must_use]
    pub fn at(expected_in: f32) -> Self {
        let mut lags = [0; BINS];
        lags[bin(expected_in)] = 1;
        Self { lags, elapsed: 0.0 }
    }

    /// The share of accesses that come between `from` and `to` from now, of those that come within a minute.
    #[must_use]
    pub fn share(&self, from: Duration, to: Duration) -> f32 {
        let (from, to) = (from.as_secs_f32(), to.as_secs_f32().max(from.as_secs_f32()));
        let before = mass_before(&self.lags, self.elapsed);
        let left = self.lags.iter().map(|&count| f32::from(count)).sum::<f32>() - before;
        if left < 0.5 {
            return (-from / UNTIMED).exp() - (-to / UNTIMED).exp();
        }
        let until = |time: f32| mass_before(&self.lags, self.elapsed + time);
        ((until(to) - until(from)) / left).clamp(0.0, 1.0)
    }

    /// How to make something ready that takes `lead` and lasts for `hold`: how long to wait, and by how much its worth
    /// shrinks.
    #[must_use]
    pub fn plan(&self, lead: Duration, hold: Duration) -> (Duration, f32) {
        if hold >= SHORT { (Duration::ZERO, 1.0) } else { self.best_start(lead, hold) }
    }

    /// When to make something ready that takes `lead` and lasts for `hold`, so that most accesses find it: how long
    /// from now on, and which share of the accesses does.
    #[must_use]
    pub fn best_start(&self, lead: Duration, hold: Duration) -> (Duration, f32) {
        let share = |start: Duration| self.share(start + lead, start + lead + hold);
        let mut best = (Duration::ZERO, share(Duration::ZERO));
        // The share bends only where a window begins or ends with a bin.
        for end in ENDS {
            let end = Duration::from_secs_f32((end - self.elapsed).max(0.0));
            for start in [end.checked_sub(lead), end.checked_sub(lead + hold)].into_iter().flatten() {
                let here = share(start);
                // Later only if it is clearly better: what comes by chance comes at any time.
                if here > best.1 + 0.02 {
                    best = (start, here);
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_plans() {
        assert_eq!((bin(0.0), bin(0.02), bin(0.05), bin(59.0), bin(1e9)), (0, 0, 1, 7, 7));
        let lags = [4, 0, 0, 0, 0, 7, 0, 0];
        assert_eq!(mass_before(&lags, 0.02), 4.0);
        assert_eq!(mass_before(&lags, 3.0), 4.0);
        assert_eq!(mass_before(&lags, 6.5), 7.5);
        assert_eq!(mass_before(&lags, 60.0), 11.0);
        let timing = Timing::new(&lags, 0.5);
        let second = Duration::from_secs(1);
        assert_eq!(timing.share(Duration::ZERO, 60 * second), 1.0);
        assert_eq!(timing.share(Duration::ZERO, 6 * second), 0.5);
        let (start, share) = timing.best_start(second / 10, 7 * second);
        assert!((2.3..2.5).contains(&start.as_secs_f32()) && share > 0.99, "{start:?} {share}");
        assert_eq!(timing.plan(second / 10, 7 * second), (Duration::ZERO, 1.0), "what lasts is made at once");
        let (start, share) = timing.plan(second / 10, 2 * second);
        assert!(start > 2 * second && (0.28..0.29).contains(&share), "{start:?} {share}");
    }
}
