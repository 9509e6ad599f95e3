//! How many dials may start: a token bucket.
//!
//! Comes in: the time. Goes out: yes or no. Never here: waiting.

use crate::model::Timestamp;

/// Tokens that come at a rate and are kept up to a burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Timestamp,
}

impl Pace {
    /// A full bucket.
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        let burst = f64::from(burst);
        Self { per_second: per_second.max(0.0), burst, tokens: burst, at: Timestamp::ZERO }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Timestamp) -> bool {
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * self.per_second).min(self.burst);
        self.at = self.at.max(now);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut pace = Pace::new(10.0, 3);
        let now = Timestamp::from_origin(Duration::from_secs(1));
        assert_eq!((0..5).filter(|_| pace.take(now)).count(), 3);
        assert!(!pace.take(now + Duration::from_millis(99)));
        assert!(pace.take(now + Duration::from_millis(100)));
        assert!(!pace.take(now), "time that runs backwards gives nothing");
        assert_eq!((0..50).filter(|_| pace.take(now + Duration::from_secs(60))).count(), 3);
    }
}
