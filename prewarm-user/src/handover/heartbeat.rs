//! The beat of the daemon: kernel programs that change anything stop doing so when it stays away.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::kernel::Heartbeat;

/// How often. Programs give up after four that stayed away.
const EVERY: Duration = Duration::from_millis(500);

/// Beats until it is dropped, and then says that it was the last.
pub async fn beat(heartbeat: Heartbeat) {
    let mut heart = Beating(heartbeat);
    let mut ticks = interval(EVERY);
    // After a pause one beat is as good as all that were missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = heart.0.beat() {
            tracing::warn!(%error, "connections are not redirected: the kernel programs can't be told that we live");
        }
    }
}

struct Beating(Heartbeat);

impl Drop for Beating {
    fn drop(&mut self) {
        if let Err(error) = self.0.end() {
            tracing::debug!(%error, "the last beat");
        }
    }
}
