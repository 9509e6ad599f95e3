//! What became of leases after they were handed out: an outcome says "used" only when bytes were sent.
//!
//! Comes in: leases as they are taken, outcomes of the pool, what the kernel sees of the daemon's own connections. Goes
//! out: outcomes. Never here: a lease whose connection the kernel programs do not watch (to this host itself); its
//! outcome goes on as it came.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::model::{Connection, IntentId, Origin, Outcome, Phase, Timestamp, Verdict};

/// Sockets followed at the same time; the outcomes of others go on as they come.
const MAX_SOCKETS: usize = 16_384;
/// Origins whose leases in vain are counted apart.
const MAX_ORIGINS: usize = 4096;
/// A lease that carried nothing for so long was taken in vain.
const PATIENCE: Duration = Duration::from_secs(600);

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Leases over which something was sent after they were handed out.
    pub(super) carried: u64,
    /// Leases that ended, or idled for ten minutes, without a byte.
    pub(super) empty: u64,
}

/// The leases that are out.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sockets: HashMap<u64, Lease>,
    intents: HashMap<IntentId, u64>,
    counters: Counters,
    vain: HashMap<Origin, Vain>,
}

/// The leases to one origin that carried nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vain {
    /// How many.
    pub(super) leases: u64,
    /// What they would have saved.
    pub(super) unsaved: Duration,
}

/// One that was handed out.
#[derive(Debug)]
struct Lease {
    since: Timestamp,
    origin: Origin,
    /// What its handshake took.
    round_trip: Duration,
    intent: Option<IntentId>,
    /// What the pool says, until it is known to be true.
    outcome: Option<Outcome>,
    /// Whether anything was sent, once that is known.
    carried: Option<bool>,
}

impl Uses {
    /// A lease that the kernel watches is handed out.
    pub(super) fn handed(
        &self,
        now: Timestamp,
        socket: u64,
        (origin, round_trip): (&Origin, Duration),
        intent: Option<IntentId>,
    ) {
        let mut inner = self.lock();
        if inner.sockets.len() >= MAX_SOCKETS {
            return;
        }
        if let Some(intent) = intent {
            inner.intents.insert(intent, socket);
        }
        // One that came back and goes out again has not been used so far.
        let origin = origin.clone();
        inner.sockets.insert(socket, Lease { since: now, origin, round_trip, intent, outcome: None, carried: None });
    }

    /// What the pool says of an intent; `None` when that has to wait until the lease was used.
    pub(super) fn outcome(&self, outcome: Outcome) -> Option<Outcome> {
        let mut inner = self.lock();
        let Some(&socket) = inner.intents.get(&outcome.intent) else { return Some(outcome) };
        if !matches!(outcome.verdict, Verdict::Used { .. }) {
            inner.intents.remove(&outcome.intent);
            inner.sockets.remove(&socket);
            return Some(outcome);
        }
        let lease = inner.sockets.get_mut(&socket)?;
        lease.outcome = Some(outcome);
        match lease.carried {
            Some(carried) => inner.end(socket, carried),
            None => None,
        }
    }

    /// What the kernel sees of a connection; gives the outcome that waited for it.
    pub(super) fn observe(&self, at: Timestamp, connection: &Connection) -> Option<Outcome> {
        let carried = match connection.phase {
            Phase::Established { .. } => return None,
            Phase::Carried => true,
            Phase::Closed { carried, .. } => carried,
        };
        let mut inner = self.lock();
        let lease = inner.sockets.get_mut(&connection.socket)?;
        // Once used is used, however it ends.
        let first = lease.carried.is_none();
        lease.carried = Some(carried || lease.carried == Some(true));
        let (waits, told) = (lease.intent.is_some() && lease.outcome.is_none(), lease.carried);
        if first {
            inner.count(connection.socket, carried);
        }
        // The pool has yet to say what it thinks of it.
        if waits {
            return None;
        }
        let outcome = inner.end(connection.socket, told == Some(true))?;
        Some(Outcome { at, ..outcome })
    }

    /// The outcomes of leases that carried nothing for long.
    pub(super) fn expire(&self, now: Timestamp) -> Vec<Outcome> {
        let mut inner = self.lock();
        let old = inner.sockets.iter().filter(|(_, lease)| now.since(lease.since) > PATIENCE);
        let old: Vec<u64> = old.map(|(&socket, _)| socket).collect();
        old.into_iter()
            .filter_map(|socket| {
                if inner.sockets.get(&socket)?.carried.is_none() {
                    inner.count(socket, false);
                }
                let outcome = inner.end(socket, false)?;
                Some(Outcome { at: now, ..outcome })
            })
            .collect()
    }

    /// The leases to an origin that carried nothing.
    pub(super) fn vain(&self, origin: &Origin) -> Vain {
        self.lock().vain.get(origin).copied().unwrap_or_default()
    }

    pub(super) fn counters(&self) -> Counters {
        self.lock().counters
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count(&mut self, socket: u64, carried: bool) {
        if carried {
            self.counters.carried += 1;
            return;
        }
        self.counters.empty += 1;
        let Some(lease) = self.sockets.get(&socket) else { return };
        if self.vain.len() < MAX_ORIGINS || self.vain.contains_key(&lease.origin) {
            let vain = self.vain.entry(lease.origin.clone()).or_default();
            vain.leases += 1;
            vain.unsaved += lease.round_trip;
        }
    }

    fn end(&mut self, socket: u64, carried: bool) -> Option<Outcome> {
        let lease = self.sockets.remove(&socket)?;
        if let Some(intent) = lease.intent {
            self.intents.remove(&intent);
        }
        let mut outcome = lease.outcome?;
        if !carried {
            outcome.verdict = Verdict::Wasted;
        }
        Some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ActionKind, ResourceId};

    const SAVED: Verdict = Verdict::Used { saved: Duration::from_millis(40) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    fn hand(uses: &Uses, seconds: u64, socket: u64, intent: Option<IntentId>) {
        let origin = "a.example:443".parse().unwrap();
        uses.handed(at(seconds), socket, (&origin, Duration::from_millis(40)), intent);
    }

    fn outcome(intent: u64, verdict: Verdict) -> Outcome {
        Outcome { intent: IntentId(intent), resource: ResourceId(1), kind: ActionKind::Lease, at: at(1), verdict }
    }

    fn seen(socket: u64, phase: Phase) -> Connection {
        Connection { socket, namespace: 1, destination: "192.0.2.1:443".parse().unwrap(), phase }
    }

    fn closed(carried: bool) -> Phase {
        Phase::Closed { round_trip: Duration::ZERO, carried, sent: 0, received: 0 }
    }

    #[test]
    fn a_lease_is_used_when_it_carried_bytes() {
        let uses = Uses::default();
        hand(&uses, 0, 7, Some(IntentId(1)));
        assert_eq!(uses.outcome(outcome(1, SAVED)), None, "not known yet");
        let used = uses.observe(at(2), &seen(7, Phase::Carried)).unwrap();
        assert_eq!((used.verdict, used.at), (SAVED, at(2)));
        assert_eq!(uses.observe(at(3), &seen(7, closed(true))), None, "once");
        assert_eq!(uses.counters(), Counters { carried: 1, empty: 0 });
    }

    #[test]
    fn a_lease_that_ends_without_a_byte_was_wasted() {
        let uses = Uses::default();
        hand(&uses, 0, 7, Some(IntentId(1)));
        assert_eq!(uses.outcome(outcome(1, SAVED)), None);
        assert_eq!(uses.observe(at(2), &seen(7, closed(false))).unwrap().verdict, Verdict::Wasted);
        hand(&uses, 0, 8, Some(IntentId(2)));
        assert_eq!(uses.outcome(outcome(2, SAVED)), None);
        assert_eq!(uses.expire(at(600)), []);
        let expired = uses.expire(at(601));
        assert_eq!((expired.len(), &expired[0].verdict), (1, &Verdict::Wasted));
        assert_eq!(uses.counters(), Counters { carried: 0, empty: 2 });
        let vain = Vain { leases: 2, unsaved: Duration::from_millis(80) };
        assert_eq!(uses.vain(&"a.example:443".parse().unwrap()), vain);
    }

    #[test]
    fn the_kernel_may_be_faster_than_the_pool() {
        let uses = Uses::default();
        hand(&uses, 0, 7, Some(IntentId(1)));
        assert_eq!(uses.observe(at(1), &seen(7, Phase::Carried)), None);
        assert_eq!(uses.observe(at(1), &seen(7, closed(true))), None);
        assert_eq!(uses.outcome(outcome(1, SAVED)).unwrap().verdict, SAVED);
        assert_eq!(uses.counters().carried, 1);
    }

    #[test]
    fn what_is_not_followed_passes() {
        let uses = Uses::default();
        assert!(uses.outcome(outcome(1, SAVED)).is_some(), "the kernel does not watch it");
        hand(&uses, 0, 7, Some(IntentId(2)));
        assert!(uses.outcome(outcome(2, Verdict::Failed)).is_some());
        assert_eq!(uses.observe(at(1), &seen(7, closed(false))), None);
        hand(&uses, 0, 8, None);
        assert_eq!(uses.observe(at(1), &seen(8, Phase::Carried)), None, "no intent, no outcome");
        assert_eq!(uses.counters().carried, 1);
    }
}
