//! The ports that this daemon asked from lately: where a DNS server tells who asked it, that tells our own questions from
//! a program's.
//!
//! Comes in: each socket as it is bound. Goes out: whether a port was one of ours a moment ago. Never here: growth, since
//! there are no more ports than that.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use tokio::time::{Duration, Instant};

/// How long a port is ours after it was bound: a look-up, and the time that a server takes to tell of it.
const OURS_FOR: Duration = Duration::from_secs(10);

/// When each port was bound last. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnPorts {
    start: Instant,
    /// Milliseconds since the start, and one; zero for never.
    bound: Arc<[AtomicU32]>,
}

impl Default for OwnPorts {
    fn default() -> Self {
        let never = || AtomicU32::new(0);
        Self { start: Instant::now(), bound: std::iter::repeat_with(never).take(1 << 16).collect() }
    }
}

impl OwnPorts {
    /// A socket of ours was bound to this port.
    pub fn bind(&self, port: u16) {
        if let Some(bound) = self.bound.get(usize::from(port)) {
            bound.store(self.now(), Relaxed);
        }
    }

    /// Whether a question from this port of this host is, or was a moment ago, one of ours.
    #[must_use]
    pub fn is_ours(&self, port: u16) -> bool {
        let bound = self.bound.get(usize::from(port)).map_or(0, |bound| bound.load(Relaxed));
        // The counter wraps after seven weeks; a port is then ours for ten seconds too long, once.
        bound != 0 && u128::from(self.now().wrapping_sub(bound)) < OURS_FOR.as_millis()
    }

    fn now(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "it may wrap")]
        let millis = self.start.elapsed().as_millis() as u32;
        millis.wrapping_add(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_port_is_ours_for_a_while() {
        let ports = OwnPorts::default();
        assert!(!ports.is_ours(0) && !ports.is_ours(40_000));
        ports.bind(40_000);
        assert!(ports.is_ours(40_000) && !ports.is_ours(40_001));
        tokio::time::advance(OURS_FOR).await;
        assert!(!ports.is_ours(40_000));
        ports.bind(65_535);
        assert!(ports.is_ours(65_535));
    }
}
