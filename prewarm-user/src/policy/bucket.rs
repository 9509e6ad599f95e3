//! A token bucket that is told the time.

use crate::model::Timestamp;

/// So many tokens a second, up to a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Timestamp,
}

impl Bucket {
    /// A full bucket.
    pub(super) const fn new(rate: f64, burst: f64, now: Timestamp) -> Self {
        Self { rate, burst, tokens: burst, at: now }
    }

    /// Whether `amount` could be taken now. What exceeds the burst may go when the bucket is full.
    pub(super) fn has(&mut self, now: Timestamp, amount: f64) -> bool {
        self.fill(now);
        self.tokens >= amount.min(self.burst)
    }

    /// Takes `amount`; what exceeds the tokens is owed.
    pub(super) fn take(&mut self, now: Timestamp, amount: f64) {
        self.fill(now);
        self.tokens -= amount;
    }

    /// Whether nothing was taken lately.
    pub(super) fn is_full(&mut self, now: Timestamp) -> bool {
        self.fill(now);
        self.tokens >= self.burst
    }

    fn fill(&mut self, now: Timestamp) {
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * self.rate).min(self.burst);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lets_the_rate_through() {
        let mut bucket = Bucket::new(10.0, 10.0, Timestamp::ZERO);
        let mut taken = 0;
        for ms in 0..10_000 {
            let now = Timestamp::from_origin(Duration::from_millis(ms));
            if bucket.has(now, 1.0) {
                bucket.take(now, 1.0);
                taken += 1;
            }
        }
        assert!((108..=110).contains(&taken), "{taken}: the burst and ten seconds");
        assert!(!bucket.has(Timestamp::ZERO, 10.0), "time that runs backwards gives nothing");
    }
}
