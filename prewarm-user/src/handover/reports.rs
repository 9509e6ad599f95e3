//! What all ways out count, in one place: each way that is switched on leaves word here how its numbers are read.
//!
//! Comes in: one reader of numbers for each way. Goes out: the numbers of all ways, those that are off as zeros. Never
//! here: counting.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::WayCounters;

/// The ways out. Descriptors that are passed over the control socket count as one, those of `prewarm exec` among them.
pub const WAYS: [&str; 5] = ["fd", "redirect", "socks", "connect", "tproxy"];

type Report = Box<dyn Fn() -> WayCounters + Send + Sync>;

/// The readers of all ways' numbers. Cheap to clone.
#[derive(Clone, Default)]
pub struct Reports(Arc<Mutex<BTreeMap<&'static str, Report>>>);

impl Reports {
    /// From now on the numbers of this way, one of [`WAYS`], come from there; the reader must not block.
    pub fn add(&self, way: &'static str, report: impl Fn() -> WayCounters + Send + Sync + 'static) {
        debug_assert!(WAYS.contains(&way), "{way} is no way out");
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reports.insert(way, Box::new(report));
    }

    /// The numbers of all ways.
    #[must_use]
    pub fn read(&self) -> BTreeMap<String, WayCounters> {
        let reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |way: &&str| reports.get(*way).map(|report| report()).unwrap_or_default();
        WAYS.iter().map(|way| ((*way).to_owned(), read(way))).collect()
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.read()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_its_row() {
        let reports = Reports::default();
        reports.add("socks", || WayCounters { taken: 3, ..WayCounters::default() });
        let read = reports.read();
        assert_eq!(read.keys().map(String::as_str).collect::<Vec<_>>(), {
            let mut ways = WAYS;
            ways.sort_unstable();
            ways
        });
        assert_eq!((read["socks"].taken, read["redirect"]), (3, WayCounters::default()));
    }
}
