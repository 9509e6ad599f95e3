//! How long after one access another follows, as a small histogram.

use std::time::Duration;

/// Bins of an arc's histogram.
pub(super) const BINS: usize = 8;
/// The bins' upper ends, in seconds; what comes later is not remembered.
const ENDS: [f32; BINS] = [0.02, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0];
/// The longest lag that counts.
pub(super) const WINDOW: f32 = 60.0;

/// Counts by lag.
pub(super) type Lags = [u8; BINS];

/// The bin of a lag.
#[inline]
pub(super) fn bin(lag: f32) -> usize {
    ENDS.iter().position(|end| lag <= *end).unwrap_or(BINS - 1)
}

/// What share of bin `index` lies before `time`.
#[inline]
fn share_before(index: usize, time: f32) -> f32 {
    let start = if index == 0 { 0.0 } else { ENDS[index - 1] };
    ((time - start) / (ENDS[index] - start)).clamp(0.0, 1.0)
}

/// How much lies up to `time`; a bin that `time` cuts counts by its share.
pub(super) fn mass_before(lags: &Lags, time: f32) -> f32 {
    let mut mass = 0.0;
    for (index, &count) in lags.iter().enumerate() {
        if index > 0 && ENDS[index - 1] >= time {
            break;
        }
        mass += f32::from(count) * share_before(index, time);
    }
    mass
}

/// What the counts of each bin are weighed with, for a context that began some time ago: what would have come by now,
/// what is worth a copy made now, what comes within ten seconds. Four numbers a bin, so that one step takes all.
pub(super) type Shares = [[f32; 4]; BINS];

/// The shares `elapsed` seconds after the context began. An access that comes sooner than `lead` is worth no copy, and
/// one is worth less the later it comes, with the time constant `patience`.
#[inline]
pub(super) fn shares(elapsed: f32, lead: f32, patience: f32) -> Shares {
    let mut shares = [[0.0; 4]; BINS];
    let mut start = 0.0f32;
    for (index, share) in shares.iter_mut().enumerate() {
        let before = share_before(index, elapsed);
        share[0] = before;
        let left = 1.0 - share_before(index, elapsed + lead);
        if left > 0.0 {
            let middle = (start.max(elapsed + lead) + ENDS[index]) / 2.0 - elapsed;
            share[1] = left * (-middle / patience).exp();
        }
        share[2] = share_before(index, elapsed + 10.0) - before;
        start = ENDS[index];
    }
    shares
}

/// The masses of a histogram under the shares.
#[inline]
pub(super) fn masses(lags: &Lags, shares: &Shares) -> [f32; 3] {
    let mut masses = [0.0f32; 4];
    for (&count, share) in lags.iter().zip(shares) {
        let count = f32::from(count);
        for (mass, share) in masses.iter_mut().zip(share) {
            *mass += count * share;
        }
    }
    [masses[0], masses[1], masses[2]]
}

/// When the shares `quantiles` (ascending) of the mass after `elapsed` have come, counted from `elapsed`.
pub(super) fn quantiles<const N: usize>(lags: &Lags, elapsed: f32, quantiles: [f32; N]) -> [Duration; N] {
    let before = mass_before(lags, elapsed);
    let total = lags.iter().map(|&count| f32::from(count)).sum::<f32>() - before;
    quantiles.map(|quantile| {
        let wanted = before + total * quantile;
        let mut mass = 0.0;
        for (index, &count) in lags.iter().enumerate() {
            let count = f32::from(count);
            if count > 0.0 && mass + count >= wanted {
                let start = if index == 0 { 0.0 } else { ENDS[index - 1] };
                let time = start + (ENDS[index] - start) * ((wanted - mass) / count).clamp(0.0, 1.0);
                return Duration::from_secs_f32((time - elapsed).max(0.0));
            }
            mass += count;
        }
        Duration::from_secs_f32(WINDOW)
    })
}

/// When something comes, if it comes within a minute: what the context that speaks best for it counted by lag.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    lags: Lags,
    elapsed: f32,
}

/// Time constant in seconds for what no context has a time for.
const UNTIMED: f32 = 20.0;

impl Timing {
    /// Of a context that began `elapsed` seconds ago.
    pub(super) const fn new(lags: &Lags, elapsed: f32) -> Self {
        Self { lags: *lags, elapsed }
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
    fn bins_and_masses() {
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
        let [early, late] = quantiles(&lags, 3.0, [0.0, 1.0]);
        assert!(early < Duration::from_millis(1) && late == Duration::from_secs(7), "{early:?} {late:?}");
    }
}
