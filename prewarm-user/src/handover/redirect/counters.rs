//! What became of redirected connections.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Serialize;

use crate::{
    handover::{Way, WayCounters},
    kernel::RedirectCounters,
};

/// What happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RedirectStats {
    /// As every way out counts. Missed are those whose lease somebody else was quicker to claim, who went direct, and
    /// those whose lease had gone when they arrived; refused are strangers.
    pub way: WayCounters,
    /// Connections whose lease had gone when they arrived, and which got a fresh one.
    pub late: u64,
    /// Connections now.
    pub open: u64,
    /// What the kernel programs counted, of connections to destinations with leases.
    pub kernel: BTreeMap<&'static str, u64>,
}

/// The counting end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) way: Way,
    pub(super) open: AtomicU64,
}

/// The reading end.
#[derive(Clone)]
pub struct RedirectGauge {
    tally: Arc<Tally>,
    kernel: Arc<RedirectCounters>,
}

impl RedirectGauge {
    pub(super) fn new(kernel: RedirectCounters) -> Self {
        Self { tally: Arc::default(), kernel: Arc::new(kernel) }
    }

    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> RedirectStats {
        let kernel: BTreeMap<_, _> = match self.kernel.read() {
            Ok(counts) => counts.into_iter().map(|(counter, count)| (counter.name(), count)).collect(),
            Err(error) => {
                tracing::debug!(%error, "the redirect's counters in the kernel");
                BTreeMap::new()
            }
        };
        let mut way = self.tally.way.counters();
        let late = way.missed;
        way.missed += kernel.get("missed").copied().unwrap_or(0);
        RedirectStats { way, late, open: self.tally.open.load(Relaxed), kernel }
    }
}
