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
pub(super) fn bin(lag: f32) -> usize {
    ENDS.iter().position(|end| lag <= *end).unwrap_or(BINS - 1)
}

/// What share of bin `index` lies before `time`.
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

/// For each bin, the share of it that lies between `from` and `to`.
pub(super) fn shares_between(from: f32, to: f32) -> [f32; BINS] {
    std::array::from_fn(|index| share_before(index, to) - share_before(index, from))
}

/// The mass of a histogram under such shares.
pub(super) fn mass(lags: &Lags, shares: &[f32; BINS]) -> f32 {
    let mut mass = 0.0;
    for (&count, &share) in lags.iter().zip(shares) {
        mass += f32::from(count) * share;
    }
    mass
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
        let [early, late] = quantiles(&lags, 3.0, [0.0, 1.0]);
        assert!(early < Duration::from_millis(1) && late == Duration::from_secs(7), "{early:?} {late:?}");
    }
}
