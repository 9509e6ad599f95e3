//! Which predictions are worth acting on, when, and what is never done.
//!
//! Comes in: predictions with what is known of their names, accesses, and outcomes, each with its time. Goes out:
//! intents whose time has come, within all budgets, and the outcome of those that only the questions on the wire can
//! tell of. Never here: a clock, a socket, an intent without end (each has exactly one outcome), or anything that a
//! stranger's question alone can cause.
//!
//! The rule: `p × saved − (1 − p) × cost × price > 0`, with `saved` from measured round trips, and `price` held by a
//! controller so that unused warm-ups keep to their budget for each access that found nothing ready.

mod appraise;
mod breaker;
mod bucket;
mod counters;
mod guard;
mod open;
mod origins;
mod price;
mod propose;
mod queue;
mod refusal;

use std::{collections::HashMap, net::IpAddr, time::Duration};

use ipnet::IpNet;

pub use appraise::{Appraisal, Verdict as AppraisalVerdict};
pub use counters::{Counters, KindCounters};
pub use guard::Guard;
pub use propose::Known;
pub use refusal::{Refusal, Refusals};

use self::{
    breaker::Limits,
    bucket::Bucket,
    open::Open,
    origins::Origins,
    price::Price,
    queue::{Key, Queue},
};
use crate::{
    config::PolicySettings,
    model::{Action, ActionKind, Intent, IntentId, Name, Origin, Outcome, ResourceId, Timestamp, Verdict},
};

/// One intent as `prewarm predictions` shows it.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The intent.
    pub intent: Intent,
    /// Whether it was handed out already.
    pub started: bool,
}

/// What decides whether to act.
#[derive(Debug)]
pub struct Policy {
    settings: PolicySettings,
    guard: Guard,
    limits: Limits,
    /// The configured paths, and which of them each name has.
    warm_paths: Vec<(Origin, String)>,
    warm_names: HashMap<Name, Vec<u16>>,
    queue: Queue,
    open: Open,
    origins: Origins,
    prices: [Price; 3],
    rates: [Bucket; 3],
    clients: HashMap<IpAddr, Bucket>,
    lookup_ms: f64,
    next_id: u64,
    counters: Counters,
}

/// All kinds, in the order of the arrays.
const KINDS: [ActionKind; 3] = [ActionKind::Resolve, ActionKind::Lease, ActionKind::Warm];
/// Clients whose budget is kept; a full bucket need not be.
const MAX_CLIENTS: usize = 4096;

impl Policy {
    /// A policy for a host with these addresses (each with its prefix length).
    #[must_use]
    pub fn new(settings: &PolicySettings, own: &[IpNet], now: Timestamp) -> Self {
        let bucket = |rate: f64| Bucket::new(rate, rate.max(1.0), now);
        Self {
            guard: Guard::new(&settings.guard, own),
            limits: Limits::new(settings),
            warm_paths: Vec::new(),
            warm_names: HashMap::new(),
            queue: Queue::new(settings.queue as usize),
            open: Open::default(),
            origins: Origins::new(settings.origins as usize),
            prices: [Price::new(settings.waste_budget); 3],
            rates: [
                bucket(settings.resolves_per_second),
                bucket(settings.dials_per_second),
                Bucket::new(settings.warm_bytes_per_second, settings.warm_bytes_per_second * 10.0, now),
            ],
            clients: HashMap::new(),
            lookup_ms: settings.assumed_lookup_ms,
            next_id: 1,
            counters: Counters::default(),
            settings: settings.clone(),
        }
    }

    /// Takes the requests to send ahead, each when its origin's name is expected: at most 65,536, the rest are left out.
    pub fn set_warm(&mut self, requests: impl IntoIterator<Item = (Origin, String)>) {
        self.warm_paths.clear();
        self.warm_names.clear();
        for (origin, path) in requests {
            let Ok(number) = u16::try_from(self.warm_paths.len()) else { break };
            self.warm_names.entry(origin.name.clone()).or_default().push(number);
            self.warm_paths.push((origin, path));
        }
    }

    /// Takes other settings from now on. What waits and what is under way stays, and so do the measured round trips and
    /// the breakers.
    pub fn set(&mut self, now: Timestamp, settings: &PolicySettings, own: &[IpNet]) {
        let fresh = Self::new(settings, own, now);
        self.guard = fresh.guard;
        self.limits = fresh.limits;
        self.prices.iter_mut().for_each(|price| price.set_budget(settings.waste_budget));
        self.rates = fresh.rates;
        self.settings = fresh.settings;
    }

    /// The guard rails, for whoever connects.
    #[must_use]
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Appends the intents to carry out now. Each must be answered by one [`Outcome`], except names and warm requests,
    /// which end by themselves when they are asked for or their deadline passes.
    pub fn due(&mut self, now: Timestamp, intents: &mut Vec<Intent>) {
        for expired in self.queue.expire(now) {
            self.counters.refusals.add(Refusal::Expired);
            self.counters.kind_mut(expired.action.kind()).dropped += 1;
        }
        self.queue.ripen(now);
        for kind in KINDS {
            while let Some(key) = self.queue.peek(kind) {
                let (limit, price) = match kind {
                    ActionKind::Resolve => (self.settings.max_resolves, 1.0),
                    ActionKind::Lease => (self.settings.max_leases, 1.0),
                    ActionKind::Warm => (self.settings.max_warms, self.settings.warm_bytes),
                };
                let under_way =
                    if kind == ActionKind::Lease { self.open.count(kind) } else { self.open.busy(kind, now) };
                if under_way >= limit as usize || !self.rates[kind as usize].has(now, price) {
                    self.counters.kind_mut(kind).held_back += 1;
                    break;
                }
                let Some(intent) = self.queue.remove(key) else { break };
                let origin = (key.resource, key.port);
                if self.origins.get(origin).is_some_and(|state| !state.breaker.allows(now)) {
                    self.counters.refusals.add(Refusal::Breaker);
                    self.counters.kind_mut(kind).dropped += 1;
                    continue;
                }
                self.rates[kind as usize].take(now, price);
                if let Some(state) = self.origins.get(origin)
                    && state.breaker.is_tripped()
                {
                    self.origins.touch(now, origin).breaker.started();
                }
                self.counters.kind_mut(kind).started += 1;
                // One of the same kind whose time ended just now and that no tick has found yet.
                if let Some(ended) = self.open.by_key(key).map(|entry| entry.id) {
                    let (resource, verdict) = (key.resource, Verdict::Wasted);
                    self.outcome(&Outcome { intent: ended, resource, kind, at: now, verdict });
                }
                self.open.insert(now, key, &intent);
                intents.push(intent);
            }
        }
    }

    /// When to call [`Self::due`] again, if nothing else happens before.
    #[must_use]
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        // What a budget holds back is looked at again when a few tokens may have come.
        let held = self.queue.has_ready().then(|| now + Duration::from_millis(20));
        [held, self.queue.next_start(), self.open.next_end()].into_iter().flatten().min()
    }

    /// A client asked for a resource: settles what was made ready for that, and counts what was not.
    ///
    /// `fresh` says whether the last answer still held; `leasable` whether a connection could have been made ready.
    pub fn accessed(
        &mut self,
        now: Timestamp,
        resource: ResourceId,
        fresh: bool,
        leasable: bool,
        settled: &mut Vec<Outcome>,
    ) {
        let mut ready = [fresh, !leasable, true];
        for key in self.open.of(resource) {
            ready[key.kind as usize] = true;
            if key.kind == ActionKind::Lease {
                continue;
            }
            let Some(entry) = self.open.by_key(key) else { continue };
            let (saved_ms, id) = (self.saved_ms(key), entry.id);
            let verdict = if now.since(entry.started) < Duration::from_secs_f64(saved_ms / 1000.0) {
                Verdict::Late
            } else {
                Verdict::Used { saved: Duration::from_secs_f64(saved_ms / 1000.0) }
            };
            let outcome = Outcome { intent: id, resource, kind: key.kind, at: now, verdict };
            self.outcome(&outcome);
            settled.push(outcome);
        }
        for kind in [ActionKind::Resolve, ActionKind::Lease] {
            if !ready[kind as usize] {
                self.prices[kind as usize].wanted();
                self.counters.kind_mut(kind).missed += 1;
            }
        }
        let key = Key { resource, kind: ActionKind::Resolve, port: 0, path: 0 };
        if self.queue.remove(key).is_some() {
            self.counters.refusals.add(Refusal::Overtaken);
            self.counters.kind_mut(ActionKind::Resolve).dropped += 1;
        }
    }

    /// What became of an intent. An unknown number, or one that was told of before, is counted and changes nothing.
    pub fn outcome(&mut self, outcome: &Outcome) {
        let Some((key, entry)) = self.open.remove(outcome.intent) else {
            self.counters.unknown_outcomes += 1;
            return;
        };
        let counters = self.counters.kind_mut(key.kind);
        match &outcome.verdict {
            Verdict::Used { saved } => {
                counters.used += 1;
                counters.saved += *saved;
                self.prices[key.kind as usize].wanted();
                if key.kind == ActionKind::Lease {
                    // What a lease saves is the round trip that its dial took.
                    self.origins.measured(outcome.at, (key.resource, key.port), *saved);
                }
            }
            Verdict::Wasted => {
                counters.wasted += 1;
                self.prices[key.kind as usize].wasted();
            }
            Verdict::Late => {
                counters.late += 1;
                self.prices[key.kind as usize].wanted();
            }
            Verdict::Failed | Verdict::PushedBack { .. } => counters.failed += 1,
            Verdict::Refused => counters.refused += 1,
        }
        // An unused look-up burdens nobody but the resolver, which the price sees to.
        let blameless = key.kind == ActionKind::Resolve && outcome.verdict == Verdict::Wasted;
        let limits = self.limits;
        if !blameless {
            let state = self.origins.touch(outcome.at, (key.resource, key.port));
            if state.breaker.outcome(outcome.at, &outcome.verdict, entry.probability(), &limits) {
                self.counters.breakers_opened += 1;
            }
        }
    }

    /// Ends what nobody told the end of: names and warm requests nobody asked for are wasted, leases without an
    /// outcome long after their deadline are given up.
    pub fn tick(&mut self, now: Timestamp, settled: &mut Vec<Outcome>) {
        while let Some((key, id)) = self.open.ended(now) {
            if key.kind == ActionKind::Lease {
                self.open.remove(id);
                self.counters.lost += 1;
                continue;
            }
            let outcome =
                Outcome { intent: id, resource: key.resource, kind: key.kind, at: now, verdict: Verdict::Wasted };
            self.outcome(&outcome);
            settled.push(outcome);
        }
    }

    /// A round trip to an origin was measured; port 0 stands for a look-up of the name.
    pub fn measured(&mut self, now: Timestamp, resource: ResourceId, port: u16, round_trip: Duration) {
        if port == 0 {
            let sample = round_trip.as_secs_f64() * 1000.0;
            // Answers from a cache nearby say nothing about what a cold name costs, and what came seconds later was
            // another question's.
            if (1.0..2000.0).contains(&sample) {
                self.lookup_ms += 0.02 * (sample - self.lookup_ms);
            }
        } else {
            self.origins.measured(now, (resource, port), round_trip);
        }
    }

    /// Whether a question for this resource that this host sends now is one that a warm-up just caused. True once for
    /// each warm-up.
    pub fn caused(&mut self, now: Timestamp, resource: ResourceId) -> bool {
        self.open.echo(now, resource)
    }

    /// An answer for this resource was seen: the next question for it is somebody's. Where it gave addresses that may be
    /// kept until `fresh_until`, a look-up that led to it is of no use beyond that; one without addresses says nothing of
    /// the other family's.
    pub fn answered(&mut self, resource: ResourceId, fresh_until: Option<Timestamp>) {
        self.open.answered(resource);
        if let Some(fresh_until) = fresh_until {
            self.open.shorten(Key { resource, kind: ActionKind::Resolve, port: 0, path: 0 }, fresh_until);
        }
    }

    /// What waits and what is under way, best first.
    #[must_use]
    pub fn pending(&self) -> Vec<Pending> {
        let waiting = self.queue.iter().map(|intent| Pending { intent: intent.clone(), started: false });
        let mut all: Vec<_> =
            self.open.intents().map(|intent| Pending { intent, started: true }).chain(waiting).collect();
        all.sort_by(|a, b| b.intent.value.total_cmp(&a.intent.value).then(a.intent.deadline.cmp(&b.intent.deadline)));
        all
    }

    /// What was decided so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The price factor of a kind of action.
    #[must_use]
    pub fn price(&self, kind: ActionKind) -> f64 {
        self.prices[kind as usize].factor()
    }

    /// Intents waiting in the queue.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Origins whose breaker is not closed.
    #[must_use]
    pub fn breakers_tripped(&self) -> usize {
        self.origins.tripped()
    }

    /// Bytes taken by all tables.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.queue.bytes()
            + self.open.bytes()
            + self.origins.bytes()
            + self.clients.capacity() * (size_of::<(IpAddr, Bucket)>() + 1) * 8 / 7
    }

    /// What a warm-up would save, in milliseconds.
    fn saved_ms(&self, key: Key) -> f64 {
        let round_trip = || {
            self.origins
                .get((key.resource, key.port))
                .and_then(|state| state.round_trip_ms)
                .unwrap_or(self.settings.assumed_round_trip_ms)
        };
        match key.kind {
            ActionKind::Resolve => self.lookup_ms,
            ActionKind::Lease => round_trip(),
            ActionKind::Warm => self.settings.assumed_warm_ms,
        }
    }

    fn cost_ms(&self, kind: ActionKind) -> f64 {
        let cost = &self.settings.cost;
        match kind {
            ActionKind::Resolve => cost.resolve_ms,
            ActionKind::Lease => cost.lease_ms,
            ActionKind::Warm => cost.warm_ms,
        }
    }

    fn next_id(&mut self) -> IntentId {
        let id = IntentId(self.next_id);
        self.next_id += 1;
        id
    }

    /// The action behind a key.
    fn action(&self, key: Key, name: &Name) -> Action {
        let origin = || Origin { name: name.clone(), port: key.port };
        match key.kind {
            ActionKind::Resolve => Action::Resolve { name: name.clone() },
            ActionKind::Lease => Action::Lease { origin: origin() },
            ActionKind::Warm => Action::Warm {
                origin: origin(),
                path: self.warm_paths.get(usize::from(key.path)).map_or_else(String::new, |(_, path)| path.clone()),
            },
        }
    }
}

#[cfg(test)]
mod tests;
