//! What became of redirected connections.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use serde::Serialize;

use crate::kernel::RedirectCounters;

/// What happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RedirectStats {
    /// Connections that got a lease.
    pub taken: u64,
    /// Connections to a destination with leases that went direct, because others were quicker.
    pub missed: u64,
    /// Of those with a lease, connections whose lease was dead, and which got a fresh one.
    pub replayed: u64,
    /// Connections that were accepted and could not be made good.
    pub failed: u64,
    /// Bytes passed on, both ways.
    pub bytes: u64,
    /// Connections now.
    pub open: u64,
    /// Connections whose lease was no longer there when they arrived, and which got a fresh one.
    pub late: u64,
    /// Connections of whoever had claimed nothing; refused.
    pub strangers: u64,
    /// What the kernel programs counted, of connections to destinations with leases.
    pub kernel: BTreeMap<&'static str, u64>,
}

/// The counting end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) taken: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) strangers: AtomicU64,
}

impl Tally {
    pub(super) fn stats(&self, counters: &RedirectCounters) -> RedirectStats {
        let kernel: BTreeMap<_, _> = match counters.read() {
            Ok(counts) => counts.into_iter().map(|(counter, count)| (counter.name(), count)).collect(),
            Err(error) => {
                tracing::debug!(%error, "the redirect's counters in the kernel");
                BTreeMap::new()
            }
        };
        RedirectStats {
            taken: self.taken.load(Relaxed),
            missed: kernel.get("missed").copied().unwrap_or(0),
            replayed: self.replayed.load(Relaxed),
            failed: self.failed.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            open: self.open.load(Relaxed),
            late: self.late.load(Relaxed),
            strangers: self.strangers.load(Relaxed),
            kernel,
        }
    }
}

pub(super) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
