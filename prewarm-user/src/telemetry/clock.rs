//! Now, on the kernel's monotonic clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::model::Timestamp;

/// Tells the time on `CLOCK_MONOTONIC` through tokio's clock, so that a test that pauses tokio's time pauses this too.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    at_origin: Timestamp,
}

impl Clock {
    /// A clock that agrees with the kernel's from now on.
    #[must_use]
    pub fn new() -> Self {
        // The call fails only for a clock that does not exist.
        let kernel = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Self { origin: Instant::now(), at_origin: Timestamp::from_origin(kernel) }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at_origin + self.origin.elapsed()
    }

    /// What a clock on the wall shows at the zero of this one: how long after the beginning of 1970 (UTC), and by how many
    /// seconds local time is ahead of UTC now. Changes when somebody sets the clock, and twice a year.
    #[must_use]
    pub fn wall(&self) -> (Duration, i32) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset = TimeZone::system().to_offset(jiff::Timestamp::now());
        (since_1970.saturating_sub(self.now().since(Timestamp::ZERO)), offset.seconds())
    }

    /// `at` as an instant that tokio can wait for; the clock's origin for what lies before it.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.origin + at.since(self.at_origin)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_stands_still_when_time_is_paused() {
        let clock = Clock::new();
        let before = clock.now();
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(clock.now().since(before), Duration::from_millis(20));
        assert_eq!(clock.instant(clock.now()), Instant::now());
    }

    #[test]
    fn the_wall_shows_today() {
        let clock = Clock::new();
        let (zero, offset) = clock.wall();
        let shown = zero + clock.now().since(Timestamp::ZERO);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now.abs_diff(shown) < Duration::from_secs(1), "{shown:?}");
        assert!(offset.abs() <= 15 * 3600 && offset % 60 == 0, "{offset}");
    }
}
