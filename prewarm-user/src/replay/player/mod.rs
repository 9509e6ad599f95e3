//! The replay itself: observations go to the decider, its intents into a simulated world, and what becomes of them back.
//!
//! Comes in: observations in the order of their times. Goes out: a [`Tally`]. The decider sees what the daemon's would:
//! questions, the answers of the world with prewarm, connections, and the outcome of each intent. Every client of a
//! recording counts as one of ours.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{
    leases::{Held, Wanted},
    names::{Found, Names},
    tally::Tally,
};
use crate::{
    config::Config,
    decide::{Decider, Decisions},
    model::{
        Action, ActionKind, Connection, Intent, IntentId, Name, Observation, Outcome, Phase, ResourceId, ResourceMap,
        Seen, Timestamp, Verdict,
    },
    observe::recording::Shows,
    predict::{Mixture, Predictor},
};

/// Types of questions whose answers are connected to: A, CNAME, AAAA, SVCB, HTTPS, ANY.
const HOSTS: [u16; 6] = [1, 5, 28, 64, 65, 255];
/// Response codes (RFC 1035, 4.1.1).
const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;
/// An answer that takes longer is another question's.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection belongs to a question of so long ago at most (as in the history).
const LATELY: Duration = Duration::from_secs(5);
/// Who looks up ahead.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Folded questions and unanswered ones that are remembered.
const MANY: usize = 1 << 16;

/// What is taken for what recordings do not show.
#[derive(Clone, Copy, Debug)]
pub struct Assumed {
    /// What a look-up takes.
    pub look_up: Duration,
    /// What a handshake takes.
    pub round_trip: Duration,
    /// How long an answer is kept.
    pub ttl: Duration,
    /// The port that each client connects to behind its question, in recordings without connections.
    pub port: Option<u16>,
}

/// A replay under way.
#[derive(Debug)]
pub struct Player {
    decider: Decider,
    decisions: Decisions,
    assumed: Assumed,
    fold: Duration,
    names: Names,
    held: Held,
    tally: Tally,
    agenda: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    ticked: Timestamp,
    asked: HashMap<(IpAddr, ResourceId, u16), Timestamp>,
    waiting: HashMap<(IpAddr, ResourceId), Waiting>,
    addresses: ResourceMap<ResourceId, Vec<IpAddr>>,
}

/// An access whose answer is still to come, or came just now.
#[derive(Clone, Debug)]
struct Waiting {
    at: Timestamp,
    name: Name,
    found: (Found, Found),
    settled: bool,
}

/// Something that happens later.
#[derive(Debug)]
struct Entry {
    at: Timestamp,
    number: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The world shows something.
    Shown(Observation),
    /// A client connects to a name's port.
    Connects { client: IpAddr, resource: ResourceId, name: Name, port: u16 },
    /// A connection opened ahead has waited long enough.
    LeaseEnds(IntentId),
    /// Nobody waits for this answer any more.
    Unanswered { client: IpAddr, resource: ResourceId, asked: Timestamp },
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// An access of a name, as it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accessed {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub client: IpAddr,
    /// What.
    pub resource: ResourceId,
}

impl Player {
    /// A replay with the daemon's settings.
    #[must_use]
    pub fn new(config: &Config, assumed: Assumed) -> Self {
        Self::with_predictor(config, assumed, Box::new(Mixture::new(&config.predict)))
    }

    /// The same with another predictor.
    #[must_use]
    pub fn with_predictor(config: &Config, assumed: Assumed, predictor: Box<dyn Predictor>) -> Self {
        let mut policy = config.policy.clone();
        // Whose traffic a recording shows is known to whoever replays it.
        policy.guard.clients = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            .into_iter()
            .filter_map(|all| ipnet::IpNet::new(all, 0).ok())
            .collect();
        policy.assumed_lookup_ms = assumed.look_up.as_secs_f64() * 1000.0;
        policy.assumed_round_trip_ms = assumed.round_trip.as_secs_f64() * 1000.0;
        if let Some(port) = assumed.port
            && !policy.assume_ports.contains(&port)
        {
            policy.assume_ports.push(port);
        }
        let mut decider = Decider::with_predictor(&config.history, predictor, &policy, &[], Timestamp::ZERO);
        // The resolver that is asked ahead is not the one whose traffic was recorded.
        decider.set_echoes(false);
        decider.set_namespaces(vec![0]);
        // Times of recordings count from 1970; in which time zone it was recorded none says.
        decider.set_wall_clock(Duration::ZERO, 0);
        Self {
            decider,
            decisions: Decisions::default(),
            assumed,
            fold: Duration::from_millis(config.capture.fold_ms.into()),
            names: Names::new(assumed.look_up, assumed.ttl),
            held: Held::new(assumed.round_trip),
            tally: Tally::default(),
            agenda: BinaryHeap::new(),
            entries: 0,
            ticked: Timestamp::ZERO,
            asked: HashMap::new(),
            waiting: HashMap::new(),
            addresses: ResourceMap::default(),
        }
    }

    /// Plays an observation, whose recording shows so much; gives the access of a name that it was.
    pub fn play(&mut self, observation: Observation, shows: Shows) -> Option<Accessed> {
        let at = observation.at;
        self.advance(at);
        self.tally.traffic.first.get_or_insert(at);
        self.tally.traffic.last = at;
        self.tally.traffic.client(observation.client);
        let client = observation.client;
        match observation.seen {
            Seen::Question { resource, qtype, .. } => {
                self.tally.traffic.questions += 1;
                self.tally.traffic.name(resource);
                if self.folds(at, client, resource, qtype) {
                    self.tally.traffic.folded += 1;
                    return None;
                }
                self.question(observation, shows)
            }
            Seen::Answer { .. } => {
                self.tally.traffic.answers += 1;
                self.answer(observation, shows);
                None
            }
            Seen::Connection(connection) => {
                self.tally.traffic.connections += 1;
                self.connection(at, client, connection);
                None
            }
            Seen::Named { resource, ref name, port, .. } => {
                self.tally.traffic.named += 1;
                self.tally.traffic.name(resource);
                let name = name.clone();
                self.named(at, client, resource, name, port, shows)
            }
            Seen::Connect { destination, .. } => {
                self.tally.traffic.connections += 1;
                let phase = Phase::Established { round_trip: None, own: false };
                self.connection(at, client, Connection { socket: 0, namespace: 0, destination, phase });
                None
            }
        }
    }

    /// The end: what is under way is let run out.
    #[must_use]
    pub fn finish(mut self) -> Tally {
        self.advance(self.tally.traffic.last + PATIENCE);
        let waiting: Vec<_> = self.waiting.drain().collect();
        for ((_, resource), waiting) in waiting {
            self.settle(resource, &waiting, None);
        }
        self.tally.look_ups = self.names.look_ups;
        self.tally.leases = self.held.leases;
        self.tally
    }

    /// What is decided, and what is known.
    #[must_use]
    pub const fn decider(&self) -> &Decider {
        &self.decider
    }

    /// Lets happen what is due until then.
    fn advance(&mut self, until: Timestamp) {
        loop {
            let entry = self.agenda.peek().map(|entry| entry.0.at).filter(|at| *at <= until);
            let tick = self.decider.next_tick(self.ticked).filter(|at| *at <= until && entry.is_none_or(|e| *at < e));
            if let Some(at) = tick {
                self.tick(at.max(self.ticked + Duration::from_nanos(1)));
                continue;
            }
            let Some(Reverse(entry)) = entry.and_then(|_| self.agenda.pop()) else { break };
            self.happen(entry);
        }
        // Ageing, as the daemon's once a second; a silence needs no tick for each of its seconds.
        if until.since(self.ticked) >= Duration::from_secs(1) {
            self.tick(until);
        }
    }

    fn tick(&mut self, at: Timestamp) {
        self.ticked = self.ticked.max(at);
        self.decider.tick(at, &mut self.decisions);
        self.carry_out(at);
    }

    fn happen(&mut self, Entry { at, what, .. }: Entry) {
        match what {
            What::Shown(observation) => {
                self.observe(&observation);
            }
            What::Connects { client, resource, name, port } => {
                self.tally.traffic.named += 1;
                self.connects_by_name(at, client, resource, &name, port);
            }
            What::LeaseEnds(intent) => {
                if let Some(lease) = self.held.end(intent) {
                    let (resource, verdict) = (lease.resource, Verdict::Wasted);
                    self.decider.outcome(&Outcome { intent, resource, kind: ActionKind::Lease, at, verdict });
                }
            }
            What::Unanswered { client, resource, asked } => {
                if self.waiting.get(&(client, resource)).is_some_and(|waiting| waiting.at == asked)
                    && let Some(waiting) = self.waiting.remove(&(client, resource))
                {
                    self.settle(resource, &waiting, None);
                }
            }
        }
    }

    /// Puts something on the agenda.
    fn later(&mut self, at: Timestamp, what: What) {
        self.entries += 1;
        self.agenda.push(Reverse(Entry { at, number: self.entries, what }));
    }

    /// Shows something to the decider; whether that was an access, and what it decided is carried out behind it.
    fn observe(&mut self, observation: &Observation) -> bool {
        let before = self.decider.counters().accesses;
        self.decider.observe(observation.at, observation, &mut self.decisions);
        let accessed = self.decider.counters().accesses > before;
        if !accessed {
            self.carry_out(observation.at);
        }
        accessed
    }

    /// Whether the question belongs to an event of a moment ago, by the rule of the kernel programs.
    fn folds(&mut self, at: Timestamp, client: IpAddr, resource: ResourceId, qtype: u16) -> bool {
        let group = if matches!(qtype, 1 | 28 | 65) { 0 } else { qtype };
        if self.asked.len() >= MANY {
            self.asked.retain(|_, asked| at.since(*asked) < self.fold);
        }
        let asked = self.asked.entry((client, resource, group)).or_insert(Timestamp::ZERO);
        if *asked > Timestamp::ZERO && at.since(*asked) < self.fold {
            return true;
        }
        *asked = at;
        false
    }

    fn question(&mut self, observation: Observation, shows: Shows) -> Option<Accessed> {
        let (at, client) = (observation.at, observation.client);
        let Seen::Question { resource, name: Some(name), qtype, .. } = &observation.seen else { return None };
        let (resource, name, host) = (*resource, name.clone(), HOSTS.contains(qtype));
        let accessed = self.observe(&observation);
        if !host {
            self.tally.traffic.other_types += 1;
        }
        let found = (accessed && host).then(|| self.access(at, client, resource, &name, shows.answers));
        if let (Some((_, warm)), Some(port), false) = (found, self.assumed.port, shows.connections) {
            let wait = warm.wait(self.names.took(resource));
            self.later(at + wait, What::Connects { client, resource, name, port });
        }
        self.carry_out(at);
        found.map(|_| Accessed { at, client, resource })
    }

    /// Somebody needs a name's answer, which the recording shows or not.
    fn access(
        &mut self,
        at: Timestamp,
        client: IpAddr,
        resource: ResourceId,
        name: &Name,
        awaited: bool,
    ) -> (Found, Found) {
        let found = self.names.access(at, resource);
        self.tally.accesses += 1;
        let missed = [found.0 != Found::Ready, found.1 != Found::Ready];
        self.tally.misses_cold += u64::from(missed[0]);
        self.tally.misses_warm += u64::from(missed[1]);
        let share = self.tally.share(resource, name);
        share.accesses += 1;
        for (count, missed) in share.misses.iter_mut().zip(missed) {
            *count += u64::from(missed);
        }
        let waiting = Waiting { at, name: name.clone(), found, settled: false };
        if !awaited {
            if found.1 == Found::Nothing {
                let ready = at + self.names.took(resource);
                let answer = self.made_up(ready, client, resource, name, self.names.kept_until(resource).since(ready));
                self.later(ready, What::Shown(answer));
            }
            self.settle(resource, &waiting, None);
            return found;
        }
        if self.waiting.len() < MANY {
            let before = self.waiting.insert((client, resource), waiting);
            if let Some(before) = before {
                self.settle(resource, &before, None);
            }
            self.later(at + PATIENCE, What::Unanswered { client, resource, asked: at });
        } else {
            self.settle(resource, &waiting, None);
        }
        found
    }

    /// Counts what an access waited; `took` is what its look-up took in the recording.
    fn settle(&mut self, resource: ResourceId, waiting: &Waiting, took: Option<Duration>) {
        if waiting.settled {
            return;
        }
        let took = took.unwrap_or_else(|| self.names.took(resource));
        let (cold, warm) = (waiting.found.0.wait(took), waiting.found.1.wait(took));
        self.tally.names_waited.add(cold, warm);
        let saved = (cold.as_secs_f64() - warm.as_secs_f64()) * 1000.0;
        self.tally.share(resource, &waiting.name).look_ups_ms += saved;
    }

    /// A recorded answer: the decider sees it as the world with prewarm gives it.
    fn answer(&mut self, mut observation: Observation, shows: Shows) {
        let (at, client) = (observation.at, observation.client);
        let Seen::Answer { resource, ref mut ttl, rcode, ref addresses, .. } = observation.seen else { return };
        if !addresses.is_empty() {
            if self.addresses.len() >= MANY && !self.addresses.contains_key(&resource) {
                self.addresses.clear();
            }
            self.addresses.insert(resource, addresses.clone());
        }
        let key = (client, resource);
        if let Some(mut waiting) = self.waiting.remove(&key) {
            let took = Some(at.since(waiting.at)).filter(|took| !took.is_zero());
            let told = (rcode == NOERROR && !addresses.is_empty() && shows.ttls).then_some(*ttl);
            // The first answer ends the wait; a further one, of the other family, may have the TTL.
            let first = !waiting.settled;
            if first || told.is_some() {
                self.names.answered(at, resource, took.filter(|_| first), told, waiting.found);
            }
            self.settle(resource, &waiting, took);
            waiting.settled = true;
            self.waiting.insert(key, waiting);
        } else if !shows.answers {
            // It tells an address, and nobody waits for it.
            return;
        }
        *ttl = self.names.kept_until(resource).since(at);
        // From a server that failed nothing is learnt, as the kernel programs don't tell of one.
        if matches!(rcode, NOERROR | NXDOMAIN) {
            self.observe(&observation);
        }
    }

    /// An answer that the recording doesn't show.
    fn made_up(&self, at: Timestamp, client: IpAddr, resource: ResourceId, name: &Name, ttl: Duration) -> Observation {
        let known = self.decider.history().get(resource).map(|known| known.addresses.clone());
        let addresses = self.addresses.get(&resource).cloned().or(known).filter(|known| !known.is_empty());
        // An address of its own for each name, among those that anybody may connect to.
        let addresses =
            addresses.unwrap_or_else(|| vec![IpAddr::V6(Ipv6Addr::from_bits(0x2a10 << 112 | u128::from(resource.0)))]);
        let name = Some(name.clone());
        let seen = Seen::Answer { resource, name, qtype: 1, rcode: 0, ttl, addresses, service_binding: false };
        Observation { at, client, seen }
    }

    /// A client connects to an address.
    fn connection(&mut self, at: Timestamp, client: IpAddr, connection: Connection) {
        let destination = SocketAddr::new(connection.destination.ip().to_canonical(), connection.destination.port());
        let Phase::Established { round_trip, .. } = connection.phase else {
            self.observe(&Observation { at, client, seen: Seen::Connection(connection) });
            return;
        };
        let Some(resource) = self.decider.history().name_behind(at, client, destination.ip()) else {
            self.tally.traffic.nameless += 1;
            self.observe(&Observation { at, client, seen: Seen::Connection(connection) });
            return;
        };
        let took = round_trip.unwrap_or_else(|| self.held.round_trip(resource, destination.port()));
        let leased = self.take(at, Wanted::Address(destination), resource, took);
        if let Some(round_trip) = round_trip {
            self.held.measured(resource, destination.port(), round_trip);
        }
        let (shown_at, seen) = if leased {
            (at, Seen::Connect { destination, leased })
        } else {
            (at + took, Seen::Connection(connection))
        };
        self.later(shown_at, What::Shown(Observation { at: shown_at, client, seen }));
    }

    /// Takes a connection opened ahead, if there is one, and counts what that saves; whether there was.
    fn take(&mut self, at: Timestamp, wanted: Wanted, resource: ResourceId, took: Duration) -> bool {
        self.tally.leasable += 1;
        let lease = self.held.take(at, wanted);
        self.tally.connections_waited.add(took, if lease.is_some() { Duration::ZERO } else { took });
        let Some(lease) = lease else { return false };
        let (intent, verdict) = (lease.intent, Verdict::Used { saved: took });
        self.decider.outcome(&Outcome { intent, resource: lease.resource, kind: ActionKind::Lease, at, verdict });
        if let Some(name) = self.decider.history().get(resource).map(|known| known.name.clone()) {
            let share = self.tally.share(resource, &name);
            share.leases_used += 1;
            share.leases_ms += took.as_secs_f64() * 1000.0;
        }
        true
    }

    /// A client names whom it connects to, in a recording that may show the connection by itself.
    fn named(
        &mut self,
        at: Timestamp,
        client: IpAddr,
        resource: ResourceId,
        name: Name,
        port: u16,
        shows: Shows,
    ) -> Option<Accessed> {
        let accessed = if shows.connections {
            let known = self.decider.history().get(resource);
            let seen = known.is_some_and(|known| {
                known.count > 0 && known.last_client == Some(client) && at.since(known.last_asked) <= LATELY
            });
            if seen {
                // Its question or its connection told already.
                return None;
            }
            let seen = Seen::Named { resource, name: name.clone(), port, leased: false };
            self.observe(&Observation { at, client, seen })
        } else {
            self.connects_by_name(at, client, resource, &name, port)
        };
        if accessed {
            // Whatever look-up there was, the recording doesn't show it.
            self.access(at, client, resource, &name, false);
        }
        self.carry_out(at);
        accessed.then_some(Accessed { at, client, resource })
    }

    /// A client connects to a name's port; whether that was an access.
    fn connects_by_name(
        &mut self,
        at: Timestamp,
        client: IpAddr,
        resource: ResourceId,
        name: &Name,
        port: u16,
    ) -> bool {
        let took = self.held.round_trip(resource, port);
        let leased = self.take(at, Wanted::Name(resource, port), resource, took);
        self.observe(&Observation { at, client, seen: Seen::Named { resource, name: name.clone(), port, leased } })
    }

    /// Carries out what was decided.
    fn carry_out(&mut self, at: Timestamp) {
        self.decisions.learned.clear();
        self.decisions.settled.clear();
        for intent in std::mem::take(&mut self.decisions.intents) {
            self.carry_out_one(at, &intent);
        }
    }

    fn carry_out_one(&mut self, at: Timestamp, intent: &Intent) {
        let resource = intent.resource;
        let (ready, expire) = self.names.look_up(at, resource);
        let answer = self.made_up(ready, HERE, resource, intent.action.name(), expire.since(ready));
        self.later(ready, What::Shown(answer));
        if let Action::Lease { origin } = &intent.action {
            let address = self.decider.history().get(resource).and_then(|known| known.addresses.first().copied());
            let Some(address) = address else {
                let outcome =
                    Outcome { intent: intent.id, resource, kind: ActionKind::Lease, at, verdict: Verdict::Failed };
                self.decider.outcome(&outcome);
                return;
            };
            let destination = SocketAddr::new(address.to_canonical(), origin.port);
            self.held.open(at, intent.id, resource, destination, intent.deadline);
            self.later(intent.deadline, What::LeaseEnds(intent.id));
        }
    }
}

#[cfg(test)]
mod tests;
