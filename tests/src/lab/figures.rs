//! From samples to rows: pure.
//!
//! **When a connection was leased** is decided by physics, not by what prewarm says of itself: a handshake takes a
//! round trip, so a `connect()` (or a CONNECT reply) that took less than half of one found a connection that stood
//! already. The daemon's own count of taken leases is compared with that and printed when it differs. In the same way a
//! name that was answered in less than half a round trip came from the cache of the resolver. Leases that nobody used
//! are counted by the origin: connections that ended without a request.
//!
//! **Connecting** is timed by the plain client, which does nothing else; what curl says of it has curl's loop in it and
//! is reported beside (`curl_connect_ms`). **The first byte**, and with it what a lease saves, is curl's wherever curl
//! can go.

use std::time::Duration;

use super::play::Sample;
use crate::report::Row;
use crate::scenario::Scheme;
use crate::visit::{Fetch, Hand};

/// Names of the two halves.
pub const COLD: &str = "cold";
/// See [`COLD`].
pub const PREWARM: &str = "prewarm";

/// What was seen in one half of a scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Half {
    /// All fetches.
    pub samples: Vec<Sample>,
    /// Connections the origin saw end unused, by [`Scheme::ALL`].
    pub unused: [u64; 2],
}

/// The rows of one scheme, and of its followers alone unless said otherwise.
pub(super) fn rows(case: &str, scheme: Scheme, round_trip: Duration, cold: &Half, warm: Option<&Half>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (subject, half) in [(COLD, Some(cold)), (PREWARM, warm)] {
        let Some(half) = half else { continue };
        let mut row = |metric: &str, value: Option<f64>, unit: &str| {
            if let Some(value) = value {
                rows.push(Row {
                    case: case.to_owned(),
                    subject: subject.to_owned(),
                    metric: metric.to_owned(),
                    value: (value * 1000.0).round() / 1000.0,
                    unit: unit.to_owned(),
                });
            }
        };
        let fetches = followers(half, scheme);
        let names: Vec<_> = fetches.iter().filter_map(|fetch| fetch.name_ms).collect();
        let connects = |hand| by(&fetches, hand).map(|fetch| fetch.connect_ms).collect();
        let parts = [
            ("name", names.clone()),
            ("connect", connects(Hand::Plain)),
            ("curl_connect", connects(Hand::Curl)),
            ("ttfb", first_bytes(&fetches, |_| true)),
        ];
        for (part, times) in parts {
            row(&format!("{part}_ms_p50"), percentile(&times, 0.5), "ms");
            row(&format!("{part}_ms_p90"), percentile(&times, 0.9), "ms");
        }
        row("name_cached", share(&names, |name_ms| *name_ms < half_of(round_trip)), "%");
        let behind: Vec<_> = fetches.iter().filter(|fetch| fetch.far_cache.is_some()).copied().collect();
        row("far_cache_hit", share(&behind, |fetch| fetch.far_cache.as_deref() == Some("HIT")), "%");
        // Pages count here as well: nothing may fail.
        let of_scheme = half.samples.iter().filter(|sample| sample.scheme == scheme);
        row("requests", Some(of_scheme.clone().count() as f64), "");
        row("failed", Some(of_scheme.filter(|sample| sample.fetch.is_err()).count() as f64), "");
        if subject == COLD {
            continue;
        }
        row("lease_share", share(&fetches, |fetch| is_leased(fetch, round_trip)), "%");
        row("saved_rtt", saved_round_trips(&followers(cold, scheme), &fetches, round_trip), "RTT");
        row("leases_wasted", Some(half.unused[usize::from(scheme == Scheme::Tls)] as f64), "");
    }
    rows
}

/// How many fetches of any kind rode on a lease, for the comparison with the daemon's own count.
pub(super) fn leased(half: &Half, round_trip: Duration) -> u64 {
    let fetches = half.samples.iter().filter_map(|sample| sample.fetch.as_ref().ok());
    fetches.filter(|fetch| is_leased(fetch, round_trip)).count() as u64
}

fn by<'a>(fetches: &'a [&Fetch], hand: Hand) -> impl Iterator<Item = &'a Fetch> {
    fetches.iter().copied().filter(move |fetch| fetch.hand == hand)
}

/// curl's times to the first byte, or, where it can't go, the plain client's.
fn first_bytes(fetches: &[&Fetch], is: impl Fn(&Fetch) -> bool) -> Vec<f64> {
    let hand = if by(fetches, Hand::Curl).next().is_some() { Hand::Curl } else { Hand::Plain };
    by(fetches, hand).filter(|fetch| is(fetch)).map(|fetch| fetch.ttfb_ms).collect()
}

fn followers(half: &Half, scheme: Scheme) -> Vec<&Fetch> {
    let of_scheme = half.samples.iter().filter(|sample| sample.follower && sample.scheme == scheme);
    of_scheme.filter_map(|sample| sample.fetch.as_ref().ok()).collect()
}

fn half_of(round_trip: Duration) -> f64 {
    round_trip.as_secs_f64() * 1e3 / 2.0
}

fn is_leased(fetch: &Fetch, round_trip: Duration) -> bool {
    fetch.connect_ms < half_of(round_trip)
}

/// What a lease saved until the first byte, against the median of cold, in round trips; the mean over leases.
fn saved_round_trips(cold: &[&Fetch], fetches: &[&Fetch], round_trip: Duration) -> Option<f64> {
    let cold = percentile(&first_bytes(cold, |_| true), 0.5)?;
    let leased = first_bytes(fetches, |fetch| is_leased(fetch, round_trip));
    if leased.is_empty() {
        return None;
    }
    let saved: f64 = leased.iter().map(|warm| cold - warm).sum();
    Some(saved / leased.len() as f64 / (round_trip.as_secs_f64() * 1e3))
}

fn share<T>(values: &[T], is: impl Fn(&T) -> bool) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    Some(100.0 * values.iter().filter(|value| is(value)).count() as f64 / values.len() as f64)
}

/// The value below or at which this part of the values lies.
fn percentile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{COLD, Half, PREWARM, percentile, rows};
    use crate::lab::play::Sample;
    use crate::scenario::Scheme;
    use crate::visit::{Fetch, Hand};

    fn sample(follower: bool, connect_ms: f64, far_cache: Option<&str>) -> Sample {
        let fetch = Fetch {
            hand: Hand::Plain,
            name_ms: Some(connect_ms),
            connect_ms,
            ttfb_ms: connect_ms + 40.0,
            far_cache: far_cache.map(str::to_owned),
        };
        Sample { scheme: Scheme::Http, follower, name: String::new(), fetch: Ok(fetch) }
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[3.0], 0.9), Some(3.0));
        assert_eq!(percentile(&[4.0, 1.0, 3.0, 2.0], 0.5), Some(2.0));
        assert_eq!(percentile(&[4.0, 1.0, 3.0, 2.0], 0.9), Some(4.0));
    }

    #[test]
    fn a_connect_faster_than_light_is_a_lease() {
        let cold = Half { samples: vec![sample(true, 40.0, Some("MISS")), sample(false, 40.0, None)], unused: [0, 0] };
        let mut warm = Half {
            samples: vec![sample(true, 0.0, Some("HIT")), sample(true, 40.0, None), sample(false, 0.0, None)],
            unused: [5, 7],
        };
        warm.samples.push(Sample { fetch: Err("reset".into()), ..sample(false, 0.0, None) });
        let rows = rows("exec/40/http", Scheme::Http, Duration::from_millis(40), &cold, Some(&warm));
        let value = |subject: &str, metric: &str| {
            rows.iter().find(|row| row.subject == subject && row.metric == metric).map(|row| row.value)
        };
        assert_eq!(value(PREWARM, "lease_share"), Some(50.0));
        assert_eq!(value(PREWARM, "saved_rtt"), Some(1.0));
        assert_eq!(value(PREWARM, "leases_wasted"), Some(5.0));
        assert_eq!(value(PREWARM, "failed"), Some(1.0));
        assert_eq!(value(PREWARM, "requests"), Some(4.0));
        assert_eq!(value(PREWARM, "far_cache_hit"), Some(100.0));
        assert_eq!(value(COLD, "far_cache_hit"), Some(0.0));
        assert_eq!(value(COLD, "connect_ms_p50"), Some(40.0));
        assert_eq!(value(COLD, "lease_share"), None);
    }
}
