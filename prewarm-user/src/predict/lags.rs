//! How long after one access another follows, as a small histogram.

use std::time::Duration;

pub(super) use crate::model::timing::{BINS, Lags, bin, mass_before};
use crate::model::timing::{ENDS, share_before};

/// The longest lag that counts.
pub(super) const WINDOW: f32 = 60.0;

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
    let mut times = [Duration::from_secs_f32(WINDOW); N];
    let (mut mass, mut start, mut next) = (0.0, 0.0, 0);
    for (&count, &end) in lags.iter().zip(&ENDS) {
        let count = f32::from(count);
        while next < N && count > 0.0 && mass + count >= before + total * quantiles[next] {
            let time = start + (end - start) * ((before + total * quantiles[next] - mass) / count).clamp(0.0, 1.0);
            times[next] = Duration::from_secs_f32((time - elapsed).max(0.0));
            next += 1;
        }
        (mass, start) = (mass + count, end);
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_count_what_is_left() {
        let lags = [4, 0, 0, 0, 0, 7, 0, 0];
        let [early, late] = quantiles(&lags, 3.0, [0.0, 1.0]);
        assert!(early < Duration::from_millis(1) && late == Duration::from_secs(7), "{early:?} {late:?}");
    }
}
