//! What `prewarm origins` shows of one origin.

use serde::{Deserialize, Serialize};

use crate::{history::OriginUse, lease, model::Timestamp};

/// One origin that connections were seen to, or that leases were opened to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OriginView {
    /// NAME:PORT.
    pub origin: String,
    /// What a handshake takes, in milliseconds, as measured by the kernel; smoothed.
    pub handshake_ms: Option<f64>,
    /// The smoothed round trip of programs' connections that were used, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// For how long an unused connection is kept, in seconds.
    pub idle_seconds: Option<f64>,
    /// Whether that was learnt from the origin, and is less than the setting.
    pub idle_learnt: bool,
    /// Connections that programs got as a lease, since the daemon's start.
    pub leased: u64,
    /// Connections that programs had to open themselves, since the daemon's start.
    pub missed: u64,
    /// Leases in a hundred of both.
    pub hit_rate: Option<f64>,
    /// Leases that programs got and used, kept across restarts.
    pub used: u64,
    /// Leases that nobody got, or that carried nothing; kept across restarts.
    pub wasted: u64,
    /// Milliseconds that used leases saved, kept across restarts.
    pub saved_ms: f64,
    /// Milliseconds that programs waited for handshakes of their own: what leases would have saved.
    pub would_have_saved_ms: f64,
    /// Connections of programs that are over.
    pub closed: u64,
    /// Of those, the ones over which nothing was sent.
    pub unused: u64,
    /// How long connections of programs live, in seconds; smoothed.
    pub lifetime_seconds: Option<f64>,
    /// Bytes that programs sent over connections of their own.
    pub sent_bytes: u64,
    /// Bytes that came back.
    pub received_bytes: u64,
    /// Seconds since anything happened; none before the daemon's start.
    pub last_seen_seconds: Option<f64>,
}

impl OriginView {
    /// What was seen of programs' connections.
    #[must_use]
    pub fn seen(origin: String, known: &OriginUse, now: Timestamp) -> Self {
        let millis = |took: std::time::Duration| took.as_secs_f64() * 1000.0;
        Self {
            origin,
            handshake_ms: known.handshake.map(millis),
            round_trip_ms: known.round_trip.map(millis),
            leased: known.leased,
            missed: known.connected,
            hit_rate: share(known.leased, known.connected),
            would_have_saved_ms: millis(known.waited),
            closed: known.closed,
            unused: known.unused,
            lifetime_seconds: known.lifetime.map(|lifetime| lifetime.as_secs_f64()),
            sent_bytes: known.sent,
            received_bytes: known.received,
            last_seen_seconds: Some(now.since(known.seen).as_secs_f64()),
            ..Self::default()
        }
    }

    /// Adds what the pool of leases knows; of the leases it gave away, `vain` carried nothing, and so did not save
    /// `unsaved_ms`.
    pub fn add(&mut self, pool: lease::OriginView, vain: u64, unsaved_ms: f64) {
        if self.origin.is_empty() {
            (self.leased, self.missed) = (pool.taken, pool.missed);
            self.hit_rate = share(pool.taken, pool.missed);
            self.origin = pool.origin;
        }
        self.handshake_ms = self.handshake_ms.or(pool.round_trip_ms);
        (self.idle_seconds, self.idle_learnt) = (Some(pool.idle_seconds), pool.idle_learnt);
        self.used = pool.taken.saturating_sub(vain);
        self.wasted = pool.wasted + vain;
        self.saved_ms = (pool.saved_ms - unsaved_ms).max(0.0);
        self.last_seen_seconds =
            [self.last_seen_seconds, pool.quiet_seconds].into_iter().flatten().min_by(f64::total_cmp);
    }
}

/// The first in a hundred of both.
fn share(part: u64, rest: u64) -> Option<f64> {
    (part + rest > 0).then(|| part as f64 * 100.0 / (part + rest) as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_share_needs_connections() {
        let now = Timestamp::from_origin(Duration::from_secs(9));
        let none = OriginView::seen("a.example:443".to_owned(), &OriginUse::default(), now);
        assert_eq!((none.hit_rate, none.handshake_ms, none.last_seen_seconds), (None, None, Some(9.0)));
        let known = OriginUse { leased: 3, connected: 1, waited: Duration::from_millis(40), ..OriginUse::default() };
        let view = OriginView::seen("a.example:443".to_owned(), &known, now);
        assert_eq!((view.hit_rate, view.would_have_saved_ms), (Some(75.0), 40.0));
    }

    #[test]
    fn leases_in_vain_are_wasted_and_save_nothing() {
        let mut view = OriginView::default();
        let pool = lease::OriginView {
            origin: "a.example:443".to_owned(),
            round_trip_ms: Some(40.0),
            idle_seconds: 22.0,
            taken: 5,
            missed: 5,
            wasted: 1,
            saved_ms: 200.0,
            ..lease::OriginView::default()
        };
        view.add(pool, 2, 80.0);
        assert_eq!((view.used, view.wasted, view.saved_ms), (3, 3, 120.0));
        assert_eq!((view.origin.as_str(), view.hit_rate), ("a.example:443", Some(50.0)));
    }
}
