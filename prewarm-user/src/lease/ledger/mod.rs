//! Every lease and what may become of it: the deciding half of the pool.
//!
//! Comes in: orders, dials that ended, connections that died, programs that ask, each with the time. Goes out: dials to
//! start, connections to close, outcomes. Never here: a socket (connections are opaque), a clock, a task.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

mod hand;
mod stock;
mod tally;

pub(crate) use hand::{Heard, Prove};

use self::tally::Tally;
use super::{
    counters::{LeaseCounters, LeaseState, LeaseView, Reason},
    offer::{Offers, Recalled, Token},
    origins::{Origins, Patience},
    pace::Pace,
    stall::{Offer, Stall},
    taker::Local,
};
use crate::{
    config::LeaseSettings,
    model::{ActionKind, IntentId, Name, Origin, Outcome, ResourceId, Timestamp, Verdict},
};

/// The number of a lease, unique while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A wish for one lease.
#[derive(Clone, Debug)]
pub struct LeaseOrder {
    /// Whose outcome this decides.
    pub intent: Option<(IntentId, ResourceId)>,
    /// Why.
    pub reason: Reason,
    /// Where to.
    pub origin: Origin,
    /// The origin's addresses, in the resolver's order.
    pub addresses: Vec<IpAddr>,
    /// Until when it is of use: a lease that ends before is dialled again.
    pub until: Timestamp,
}

/// What a waiting connection died of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The origin closed it.
    Closed,
    /// The origin, or something in between, reset it.
    Reset,
    /// The origin said something that nobody had asked for.
    Spoke,
    /// Nobody answers at the other end any more.
    Unanswered,
}

/// Why no connection came of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The guard allows no address.
    Guarded,
    /// No address answered.
    Unreachable,
    /// This host has no descriptor, port or memory for another.
    Exhausted,
}

/// A dial to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The number of the lease to be.
    pub(crate) id: LeaseId,
    /// Where to try, in this order.
    pub(crate) destinations: Vec<SocketAddr>,
}

/// What a dial brought.
#[derive(Debug)]
pub(crate) struct Established<C> {
    /// The address that answered.
    pub(crate) destination: SocketAddr,
    /// Our end of it.
    pub(crate) local: Local,
    /// What the handshake took.
    pub(crate) rtt: Duration,
    /// The connection.
    pub(crate) connection: C,
}

/// A lease in somebody's hands.
#[derive(Debug)]
pub(crate) struct Given<C> {
    /// Its number, for [`Ledger::settle`].
    pub(crate) id: LeaseId,
    /// The connection.
    pub(crate) connection: C,
    /// Where it leads.
    pub(crate) destination: SocketAddr,
    /// What it saves.
    pub(crate) rtt: Duration,
    /// Whom it was opened for.
    pub(crate) origin: Origin,
    /// For which intent.
    pub(crate) intent: Option<IntentId>,
}

/// What became of a lease that was given out.
#[derive(Debug)]
pub enum Fate<C> {
    /// A program has it.
    Used,
    /// The program could not use it, and here it is again.
    Unfit(C),
    /// It is gone.
    Lost,
}

#[derive(Debug)]
struct Dial {
    order: LeaseOrder,
    destinations: Vec<SocketAddr>,
    since: Timestamp,
    late: bool,
}

#[derive(Debug)]
struct Ready<C> {
    order: LeaseOrder,
    destination: SocketAddr,
    local: Local,
    rtt: Duration,
    since: Timestamp,
    expires: Timestamp,
    offer: Option<Offer>,
    /// Its server spoke first, and that was taken note of.
    greeted: bool,
    connection: C,
}

/// The same, while somebody else has the connection.
type Handed = Ready<()>;

/// A lease that somebody has claimed elsewhere and will fetch with its token.
#[derive(Debug)]
struct Claimed<C> {
    ready: Ready<C>,
    token: Token,
    until: Timestamp,
}

#[derive(Debug)]
struct Standing {
    addresses: Vec<IpAddr>,
    until: Timestamp,
    count: u32,
}

/// How many of what may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    total: usize,
    per_origin: usize,
    per_address: usize,
    per_network: usize,
}

/// A lease that ends this soon is not worth another dial.
const WORTH_RENEWING: Duration = Duration::from_secs(1);
/// How long a claimed lease is kept for whoever claimed it.
pub(crate) const CLAIM: Duration = Duration::from_secs(2);

/// No dial starts for so long after this host had no descriptor, port or memory for one.
const EXHAUSTED: Duration = Duration::from_secs(1);

/// All leases.
#[derive(Debug)]
pub(crate) struct Ledger<C> {
    limits: Limits,
    follow_demand: bool,
    /// Origins whose servers speak first, as the operator says.
    talkers: HashSet<Origin>,
    pace: Pace,
    /// What is learnt.
    pub(crate) origins: Origins,
    not_before: Timestamp,
    dials: BTreeMap<LeaseId, Dial>,
    ready: BTreeMap<LeaseId, Ready<C>>,
    handed: BTreeMap<LeaseId, Handed>,
    claimed: BTreeMap<LeaseId, Claimed<C>>,
    /// All four, counted.
    tally: Tally,
    stall: Stall,
    by_destination: HashMap<SocketAddr, VecDeque<LeaseId>>,
    standing: HashMap<Origin, Standing>,
    next: u64,
    draining: bool,
    /// Outcomes to report, drained by the pool.
    pub(crate) outcomes: Vec<Outcome>,
    /// Where one more (or one less) lease or dial leads to, drained by the pool.
    pub(crate) marks: Vec<(SocketAddr, bool)>,
    /// Dials that other decisions led to; [`Self::replenish`] hands them out.
    starts: Vec<Start>,
    /// Something is due sooner, or missing, than the keeper knows; cleared by the pool.
    pub(crate) stirred: bool,
    /// What happened so far.
    pub(crate) counters: LeaseCounters,
}

impl<C> Ledger<C> {
    /// An empty ledger for no more leases than `room`.
    pub(crate) fn new(settings: &LeaseSettings, room: usize) -> Self {
        let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or_default();
        Self {
            limits: Limits {
                total: room.min(settings.total as usize),
                per_origin: settings.per_origin as usize,
                per_address: settings.per_address as usize,
                per_network: settings.per_network.max(settings.per_address) as usize,
            },
            follow_demand: settings.demand,
            talkers: settings.speaks_first.iter().filter_map(|origin| origin.parse().ok()).collect(),
            pace: Pace::new(settings.dials_per_second, settings.dial_burst),
            origins: Origins::new(Patience {
                backoff: seconds(settings.backoff_seconds),
                ceiling: seconds(settings.backoff_ceiling_seconds),
                breaker: settings.breaker_failures,
                idle: seconds(settings.idle_seconds),
            }),
            not_before: Timestamp::ZERO,
            dials: BTreeMap::new(),
            ready: BTreeMap::new(),
            handed: BTreeMap::new(),
            claimed: BTreeMap::new(),
            tally: Tally::default(),
            stall: Stall::default(),
            by_destination: HashMap::new(),
            standing: HashMap::new(),
            next: 1,
            draining: false,
            outcomes: Vec::new(),
            marks: Vec::new(),
            starts: Vec::new(),
            stirred: false,
            counters: LeaseCounters::default(),
        }
    }

    /// Starts a lease, or refuses and says so. One that waits because of the recent rate, and that nobody predicted, is
    /// what a prediction asks for.
    pub(crate) fn order(&mut self, order: LeaseOrder, now: Timestamp) -> Option<Start> {
        let intent = order.intent;
        if intent.is_some()
            && let Some(waiting) = self.unclaimed(&order)
        {
            waiting.order = order;
            self.counters.adopted += 1;
            return None;
        }
        let start = self.admit(order, now);
        if start.is_none() {
            self.report(intent, Verdict::Refused, now);
        }
        start
    }

    /// A dial succeeded. The connection comes back when nobody waits for it any more.
    pub(crate) fn dialled(&mut self, id: LeaseId, established: Established<C>, now: Timestamp) -> Option<C> {
        let Established { destination, local, rtt, connection } = established;
        let Some(Dial { order, .. }) = self.end_dial(id) else { return Some(connection) };
        self.origins.succeeded(&order.origin, destination, rtt, now);
        self.counters.ready += 1;
        if !order.addresses.contains(&destination.ip()) {
            // The name has got other addresses in the meantime.
            self.origins.wasted(&order.origin, now);
            let start = self.exchange(order, now);
            self.starts.extend(start);
            self.stirred = true;
            return Some(connection);
        }
        let mut expires = (now + self.origins.idle(&order.origin)).min(order.until.max(now + WORTH_RENEWING));
        if self.must_be_fresh(&order.origin, destination) {
            expires = expires.min(now + hand::GREETING);
        }
        let ready =
            Ready { order, destination, local, rtt, since: now, expires, offer: None, greeted: false, connection };
        self.keep(id, ready);
        None
    }

    /// From now on waiting leases are on offer there too.
    pub(crate) fn offer_to(&mut self, outlet: Arc<dyn Offers>, now: Timestamp) {
        let waiting: Vec<LeaseId> = self.ready.keys().copied().collect();
        // Under a new token: the outlets of an offer do not change while it stands.
        let waiting: Vec<LeaseId> =
            waiting.into_iter().filter(|&id| self.withdraw(id, now) == Recalled::Ours).collect();
        if !self.stall.add(outlet) {
            tracing::warn!("leases can't be offered in more places");
        }
        for id in waiting {
            self.show(id);
        }
    }

    /// A dial failed.
    pub(crate) fn failed(&mut self, id: LeaseId, failure: Failure, now: Timestamp) {
        let Some(Dial { order, since, .. }) = self.end_dial(id) else { return };
        // It may have to be tried again.
        self.stirred |= order.intent.is_none();
        let verdict = match failure {
            Failure::Guarded => {
                self.counters.refused += 1;
                self.counters.refused_guard += 1;
                Verdict::Refused
            }
            Failure::Unreachable => {
                self.counters.failed += 1;
                self.origins.failed(&order.origin, since, now);
                Verdict::Failed
            }
            Failure::Exhausted => {
                self.counters.failed += 1;
                self.counters.failed_here += 1;
                self.not_before = now + EXHAUSTED;
                Verdict::Failed
            }
        };
        self.report(order.intent, verdict, now);
    }

    /// A waiting connection died. Nothing happens to one that somebody has just claimed.
    pub(crate) fn died(&mut self, id: LeaseId, death: Death, now: Timestamp) -> Option<C> {
        self.withdraw(id, now);
        let ready = self.remove(id)?;
        Some(self.bury(ready, death, now))
    }

    fn bury(&mut self, ready: Ready<C>, death: Death, now: Timestamp) -> C {
        let (origin, since) = (&ready.order.origin, ready.since);
        self.counters.dead += 1;
        match death {
            Death::Closed => self.counters.dead_closed += 1,
            Death::Reset => self.counters.dead_reset += 1,
            Death::Spoke => self.counters.dead_spoke += 1,
            Death::Unanswered => self.counters.dead_unanswered += 1,
        }
        // Words on a fresh connection are a greeting; later ones stand before a close (Node writes a 408).
        if death != Death::Spoke || now.since(since) >= hand::GREETING {
            self.origins.ended(origin, since, death == Death::Reset, now);
        }
        if ready.greeted && death != Death::Spoke {
            self.origins.places.greeted(ready.destination, false);
        }
        self.origins.wasted(origin, now);
        self.report(ready.order.intent, Verdict::Wasted, now);
        ready.connection
    }

    /// Ends what is due: connections to close, and dials in the place of those that are still expected to be used.
    pub(crate) fn expire(&mut self, now: Timestamp, mut prove: impl Prove<C>) -> (Vec<C>, Vec<Start>) {
        let mut closed = self.take_back(now, &mut prove);
        let mut starts = Vec::new();
        let due: Vec<LeaseId> =
            self.ready.iter().filter(|(_, ready)| ready.expires <= now).map(|(&id, _)| id).collect();
        for id in due {
            if self.withdraw(id, now) == Recalled::Claimed {
                continue;
            }
            let Some(ready) = self.remove(id) else { continue };
            self.origins.outlived(&ready.order.origin, now.since(ready.since), now);
            if !ready.greeted && now.since(ready.since) >= hand::GREETING {
                self.origins.places.greeted(ready.destination, false);
            }
            self.origins.wasted(&ready.order.origin, now);
            closed.push(ready.connection);
            if self.is_kept(&ready.order) {
                self.counters.renewed += 1;
                continue;
            }
            let intent = ready.order.intent;
            // Where a greeting grows old, each renewal would last a second.
            let again =
                ready.order.until > now + WORTH_RENEWING && !self.must_be_fresh(&ready.order.origin, ready.destination);
            match again.then(|| self.admit(ready.order, now)).flatten() {
                Some(start) => {
                    self.counters.renewed += 1;
                    starts.push(start);
                }
                None => {
                    self.counters.expired += 1;
                    self.report(intent, Verdict::Wasted, now);
                }
            }
        }
        (closed, starts)
    }

    /// When something is due next.
    pub(crate) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let ready = self.ready.values().map(|ready| {
            let ahead = ready.expires - self.lead(&ready.order.origin);
            if now < ahead && self.is_kept(&ready.order) { ahead } else { ready.expires }
        });
        ready.chain(self.claimed.values().map(|claimed| claimed.until)).min()
    }

    /// Refuses everything from now on and lets go of all there is.
    pub(crate) fn drain(&mut self, now: Timestamp) -> Vec<C> {
        self.draining = true;
        self.standing.clear();
        let dials: Vec<LeaseId> = self.dials.keys().copied().collect();
        for dial in dials.into_iter().filter_map(|id| self.end_dial(id)).collect::<Vec<_>>() {
            self.counters.drained += 1;
            self.report(dial.order.intent, Verdict::Wasted, now);
        }
        let ready: Vec<LeaseId> = self.ready.keys().copied().collect();
        for &id in &ready {
            self.withdraw(id, now);
        }
        let mut ready: Vec<_> = ready.into_iter().filter_map(|id| self.remove(id)).collect();
        // Nobody will come for these either: what they would be handed over by stops as well.
        for (_, Claimed { ready: claimed, token, .. }) in std::mem::take(&mut self.claimed) {
            self.tally.subtract(&claimed.order.origin, Some(claimed.destination));
            self.stall.forget(token);
            ready.push(claimed);
        }
        let closed = ready.into_iter().map(|ready| {
            self.counters.drained += 1;
            self.report(ready.order.intent, Verdict::Wasted, now);
            ready.connection
        });
        closed.collect()
    }

    /// The leases there are, oldest first.
    /// Where leases wait: of which name, and to which address.
    pub(crate) fn waiting(&self) -> BTreeSet<(Name, IpAddr)> {
        let place = |ready: &Ready<C>| (ready.order.origin.name.clone(), ready.destination.ip());
        self.ready.values().map(place).collect()
    }

    pub(crate) fn view(&self, now: Timestamp) -> Vec<LeaseView> {
        let dials = self.dials.iter().map(|(id, dial)| LeaseView {
            id: id.0,
            origin: dial.order.origin.to_string(),
            destination: None,
            state: LeaseState::Dialling,
            age_seconds: now.since(dial.since).as_secs_f64(),
            expires_in_seconds: None,
            rtt_ms: None,
            reason: dial.order.reason,
        });
        let ready = self.ready.iter().map(|(id, ready)| ready.view(*id, LeaseState::Ready, now));
        let handed = self.handed.iter().map(|(id, handed)| handed.view(*id, LeaseState::Handed, now));
        let claimed = self.claimed.iter().map(|(id, claimed)| claimed.ready.view(*id, LeaseState::Claimed, now));
        let mut rows: Vec<_> = dials.chain(ready).chain(handed).chain(claimed).collect();
        rows.sort_by_key(|row| row.id);
        rows
    }

    fn end_dial(&mut self, id: LeaseId) -> Option<Dial> {
        let dial = self.dials.remove(&id)?;
        self.tally.subtract(&dial.order.origin, dial.destinations.first().copied());
        self.marks.extend(dial.destinations.iter().map(|&destination| (destination, false)));
        Some(dial)
    }

    fn keep(&mut self, id: LeaseId, ready: Ready<C>) {
        self.tally.add(&ready.order.origin, Some(ready.destination));
        self.marks.push((ready.destination, true));
        self.by_destination.entry(ready.destination).or_default().push_back(id);
        self.ready.insert(id, ready);
        self.show(id);
    }

    /// Out of those that wait; it must be off offer.
    fn remove(&mut self, id: LeaseId) -> Option<Ready<C>> {
        let ready = self.ready.remove(&id)?;
        self.tally.subtract(&ready.order.origin, Some(ready.destination));
        self.marks.push((ready.destination, false));
        if let Some(ids) = self.by_destination.get_mut(&ready.destination) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                self.by_destination.remove(&ready.destination);
            }
        }
        Some(ready)
    }

    /// The connection of a lease that waits.
    pub(crate) fn connection(&self, id: LeaseId) -> Option<&C> {
        self.ready.get(&id).map(|ready| &ready.connection)
    }

    fn report(&mut self, intent: Option<(IntentId, ResourceId)>, verdict: Verdict, now: Timestamp) {
        if let Some((intent, resource)) = intent {
            self.outcomes.push(Outcome { intent, resource, kind: ActionKind::Lease, at: now, verdict });
        }
    }
}

impl<C> Ready<C> {
    fn split(self) -> (C, Handed) {
        let Self { order, destination, local, rtt, since, expires, offer, greeted, connection } = self;
        (connection, Ready { order, destination, local, rtt, since, expires, offer, greeted, connection: () })
    }

    fn with<D>(self, connection: D) -> Ready<D> {
        let Self { order, destination, local, rtt, since, expires, offer, greeted, .. } = self;
        Ready { order, destination, local, rtt, since, expires, offer, greeted, connection }
    }

    fn view(&self, id: LeaseId, state: LeaseState, now: Timestamp) -> LeaseView {
        LeaseView {
            id: id.0,
            origin: self.order.origin.to_string(),
            destination: Some(self.destination),
            state,
            age_seconds: now.since(self.since).as_secs_f64(),
            expires_in_seconds: Some(self.expires.since(now).as_secs_f64()),
            rtt_ms: Some(self.rtt.as_secs_f64() * 1000.0),
            reason: self.order.reason,
        }
    }
}

#[cfg(test)]
mod tests;
