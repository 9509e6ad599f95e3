//! What `prewarm origins` shows of one origin.

use serde::{Deserialize, Serialize};

use crate::{history::OriginUse, model::Timestamp};

/// One origin that connections were seen to, or that leases were opened to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OriginView {
    /// NAME:PORT.
    pub origin: String,
    /// What a handshake takes, in milliseconds, as measured by the kernel; smoothed.
    pub handshake_ms: Option<f64>,
    /// The smoothed round trip of connections that were used, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// How long the origin keeps an unused connection, in seconds, as far as that was learnt.
    pub idle_seconds: Option<f64>,
    /// Connections that programs got as a lease.
    pub leased: u64,
    /// Connections that programs opened themselves.
    pub missed: u64,
    /// Leases in a hundred connections of programs.
    pub hit_rate: Option<f64>,
    /// Leases over which something was sent.
    pub used: u64,
    /// Leases that ended without a byte, or unused.
    pub wasted: u64,
    /// Milliseconds that used leases saved.
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
    /// Seconds since anything was seen of it.
    pub last_seen_seconds: f64,
}

impl OriginView {
    /// The view of an origin as it was seen.
    #[must_use]
    pub fn new(origin: String, known: &OriginUse, now: Timestamp) -> Self {
        let millis = |took: std::time::Duration| took.as_secs_f64() * 1000.0;
        let asked = known.leased + known.connected;
        Self {
            origin,
            handshake_ms: known.handshake.map(millis),
            round_trip_ms: known.round_trip.map(millis),
            idle_seconds: None,
            leased: known.leased,
            missed: known.connected,
            hit_rate: (asked > 0).then(|| known.leased as f64 * 100.0 / asked as f64),
            used: known.used,
            wasted: known.wasted,
            saved_ms: millis(known.saved),
            would_have_saved_ms: millis(known.waited),
            closed: known.closed,
            unused: known.unused,
            lifetime_seconds: known.lifetime.map(|lifetime| lifetime.as_secs_f64()),
            sent_bytes: known.sent,
            received_bytes: known.received,
            last_seen_seconds: now.since(known.seen).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_share_needs_connections() {
        let now = Timestamp::from_origin(Duration::from_secs(9));
        let none = OriginView::new("a.example:443".to_owned(), &OriginUse::default(), now);
        assert_eq!((none.hit_rate, none.handshake_ms, none.last_seen_seconds), (None, None, 9.0));
        let known = OriginUse { leased: 3, connected: 1, saved: Duration::from_millis(120), ..OriginUse::default() };
        let view = OriginView::new("a.example:443".to_owned(), &known, now);
        assert_eq!((view.hit_rate, view.saved_ms), (Some(75.0), 120.0));
    }
}
