//! What one way out counts.

use std::sync::atomic::{AtomicU64, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::relay::{Ended, Relayed};

/// Counts of one way out.
#[derive(Debug, Default)]
pub struct Way {
    taken: AtomicU64,
    missed: AtomicU64,
    replayed: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
}

/// The same, as they were at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WayCounters {
    /// Connections that got a lease.
    pub taken: u64,
    /// Connections for which there was none.
    pub missed: u64,
    /// Leases that turned out dead and were replaced before the client saw it.
    pub replayed: u64,
    /// Connections that could not be had at all.
    pub failed: u64,
    /// Clients and requests that are not served.
    pub refused: u64,
    /// Bytes carried, both directions together.
    pub bytes: u64,
}

impl Way {
    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> WayCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WayCounters {
            taken: get(&self.taken),
            missed: get(&self.missed),
            replayed: get(&self.replayed),
            failed: get(&self.failed),
            refused: get(&self.refused),
            bytes: get(&self.bytes),
        }
    }

    /// A connection was found, which is a lease or is not.
    pub fn found(&self, lease: bool) {
        let counter = if lease { &self.taken } else { &self.missed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// No connection could be had.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A client or its request is not served.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Where bytes are counted while they pass.
    pub const fn bytes(&self) -> &AtomicU64 {
        &self.bytes
    }

    /// A relay has ended.
    pub fn ended(&self, relayed: &Relayed) {
        if relayed.replayed {
            self.replayed.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(relayed.ended, Ended::Unreachable(_)) {
            self.failed();
        }
    }
}
