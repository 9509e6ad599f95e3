//! One look-up a name at a time, however many want it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, Semaphore};

use super::{ResolveError, Resolved, Resolver};
use crate::{model::Name, telemetry::Latency};

type Shared = Arc<OnceCell<Result<Resolved, ResolveError>>>;

/// Look-ups in flight: a second wish for the same name joins the first, and their number is bounded.
#[derive(Debug)]
pub struct Lookups<R> {
    resolver: R,
    in_flight: Mutex<HashMap<Name, Shared>>,
    places: Semaphore,
    sent: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    took: Latency,
}

/// How many look-ups there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupCounters {
    /// Sent to the resolver.
    pub sent: u64,
    /// Without a usable answer; names that do not exist are not counted.
    pub failed: u64,
    /// Not sent, since too many were under way.
    pub refused: u64,
}

impl<R: Resolver> Lookups<R> {
    /// Look-ups through `resolver`, at most `concurrent` at once.
    pub fn new(resolver: R, concurrent: usize) -> Self {
        Self {
            resolver,
            in_flight: Mutex::default(),
            places: Semaphore::new(concurrent),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            took: Latency::new(),
        }
    }

    /// Looks `name` up, or waits for the look-up that is already under way.
    ///
    /// # Errors
    /// When there is no usable answer, or all places are taken.
    pub async fn lookup(&self, name: &Name) -> Result<Resolved, ResolveError> {
        let shared = Arc::clone(self.names().entry(name.clone()).or_default());
        let result = shared.get_or_init(|| self.ask(name)).await.clone();
        // Whoever comes first removes it; those who joined hold it themselves.
        let mut names = self.names();
        if names.get(name).is_some_and(|current| Arc::ptr_eq(current, &shared)) {
            names.remove(name);
        }
        result
    }

    /// How many there were.
    pub fn counters(&self) -> LookupCounters {
        LookupCounters {
            sent: self.sent.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// How long they took.
    pub const fn took(&self) -> &Latency {
        &self.took
    }

    async fn ask(&self, name: &Name) -> Result<Resolved, ResolveError> {
        let Ok(_place) = self.places.try_acquire() else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(ResolveError::Busy);
        };
        self.sent.fetch_add(1, Ordering::Relaxed);
        let result = self.resolver.lookup(name).await;
        match &result {
            Ok(resolved) => self.took.record(resolved.took),
            Err(ResolveError::NoSuchName) => {}
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }

    fn names(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Shared>> {
        // The map is only ever added to or removed from; a panic leaves it whole.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Answers after a second with as many addresses as there were questions.
    #[derive(Debug, Default)]
    struct Slow(AtomicU64);

    impl Resolver for Slow {
        async fn lookup(&self, _: &Name) -> Result<Resolved, ResolveError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Resolved { addresses: Vec::new(), ttl: Duration::from_secs(60), took: Duration::from_secs(1) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wishes_for_one_name_share_a_question() {
        let lookups = Lookups::new(Slow::default(), 8);
        let name: Name = "a.example".parse().unwrap();
        let (first, second) = tokio::join!(lookups.lookup(&name), lookups.lookup(&name));
        assert_eq!(first, second);
        assert_eq!(lookups.resolver.0.load(Ordering::Relaxed), 1);
        lookups.lookup(&name).await.unwrap();
        assert_eq!(lookups.counters().sent, 2, "a later wish asks again");
        assert!(lookups.names().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_house_refuses() {
        let lookups = Lookups::new(Slow::default(), 1);
        let names: Vec<Name> = ["a.example", "b.example"].iter().map(|name| name.parse().unwrap()).collect();
        let (first, second) = tokio::join!(lookups.lookup(&names[0]), lookups.lookup(&names[1]));
        assert!(first.is_ok());
        assert_eq!(second, Err(ResolveError::Busy));
        assert_eq!(lookups.counters(), LookupCounters { sent: 1, failed: 0, refused: 1 });
    }
}
