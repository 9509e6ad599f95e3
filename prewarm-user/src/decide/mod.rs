//! The deciding parts wired together: history, predictor and policy, from observations to intents.
//!
//! Comes in: observations, outcomes and measurements, each with its time. Goes out: intents to carry out, changes of
//! the known names, and outcomes that only the questions on the wire could tell of. Never here: a clock, a socket, a
//! task, or anything that waits.

use std::{io, net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::{
    config::{HistorySettings, PolicySettings, PredictSettings},
    history::{Access, History, KnownName, Learned, RememberedName},
    model::{Connection, Intent, Name, Observation, Origin, Outcome, Phase, Prediction, ResourceId, Seen, Timestamp},
    policy::{Appraisal, Known, Policy, Refusal},
    predict::{ClientKey, Due, Explanation, Follower, Mixture, Predictor},
};

/// What came of an observation; the buffers are the caller's, to be used again.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// To be carried out now.
    pub intents: Vec<Intent>,
    /// Changes of the known names, in their order, for the kernel's table.
    pub learned: Vec<Learned>,
    /// Outcomes that were found here: of names and warm requests that were asked for or ran out.
    pub settled: Vec<Outcome>,
}

impl Decisions {
    /// Empties all.
    pub fn clear(&mut self) {
        self.intents.clear();
        self.learned.clear();
        self.settled.clear();
    }
}

/// History, predictor and policy.
#[derive(Debug)]
pub struct Decider {
    history: History,
    predictor: Box<dyn Predictor>,
    policy: Policy,
    counters: Counters,
    predictions: Vec<Prediction>,
    due: Vec<Due>,
    ports: Vec<u16>,
    echoes: bool,
}

/// Counters of the wiring, beside those of the parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Questions learnt from.
    pub accesses: u64,
    /// Questions of clients that are not learnt from.
    pub strangers: u64,
    /// Questions that this host passed on for a client.
    pub forwarded: u64,
    /// Questions that a warm-up of ours caused.
    pub echoes: u64,
    /// Predictions by the clock: of polls, and of what comes at its time of the day or the week.
    pub foreseen: u64,
    /// Connections that stand for a question nobody saw, because its answer was at hand.
    pub unasked: u64,
}

/// What an access found ready.
#[derive(Clone, Copy, Debug)]
struct Ready {
    /// Its answer.
    name: bool,
    /// A connection, which it took.
    lease: bool,
}

impl Decider {
    /// A decider with an empty history, for a host with these addresses (each with its prefix length).
    #[must_use]
    pub fn new(
        history: &HistorySettings,
        predict: &PredictSettings,
        policy: &PolicySettings,
        own: &[IpNet],
        now: Timestamp,
    ) -> Self {
        Self::with_predictor(history, Box::new(Mixture::new(predict)), policy, own, now)
    }

    /// The same with another predictor.
    #[must_use]
    pub fn with_predictor(
        history: &HistorySettings,
        predictor: Box<dyn Predictor>,
        policy: &PolicySettings,
        own: &[IpNet],
        now: Timestamp,
    ) -> Self {
        Self {
            history: History::new(history),
            predictor,
            policy: Policy::new(policy, own, now),
            counters: Counters::default(),
            predictions: Vec::new(),
            due: Vec::new(),
            ports: Vec::new(),
            echoes: true,
        }
    }

    /// Takes an observation in and appends what came of it.
    pub fn observe(&mut self, now: Timestamp, observation: &Observation, decisions: &mut Decisions) {
        let client = observation.client;
        // The kernel says which of this host's programs connected; nobody can forge that.
        let certain = matches!(observation.seen, Seen::Connection(_));
        if matches!(&observation.seen, Seen::Connection(seen) if self.policy.guard().is_own(seen.destination.ip())) {
            // From this host to itself, by one of its addresses.
            return;
        }
        if !certain && self.policy.guard().client(client).is_err() {
            // A question from a stranger may be forged; an answer to one tells only what it may have wanted to.
            self.counters.strangers += u64::from(matches!(observation.seen, Seen::Question { .. }));
            return;
        }
        let at = observation.at;
        if let Seen::Question { resource, .. } = &observation.seen
            && self.echoes
            && self.policy.guard().is_own(client)
            && self.policy.caused(at, *resource)
        {
            self.counters.echoes += 1;
            return;
        }
        // An answer may be told before its question, where another source is slower.
        let fresh = |resource| {
            let known = self.history.get(resource);
            known.is_some_and(|known| known.fresh_until > at && known.answered_at.is_none_or(|answered| answered <= at))
        };
        let fresh_before = match &observation.seen {
            Seen::Question { resource, .. } | Seen::Named { resource, .. } => fresh(*resource),
            // Its answer was at hand, or a question would have been seen.
            Seen::Connect { .. } | Seen::Connection(_) => true,
            Seen::Answer { .. } => false,
        };
        let changes = decisions.learned.len();
        let access = self.history.observe(observation, &mut decisions.learned);
        self.forget_with(&decisions.learned[changes..]);
        match access {
            Access::Asked { forwarded: true, .. } => self.counters.forwarded += 1,
            Access::Asked { resource, forwarded: false } => {
                self.asked(now, observation, resource, Ready { name: fresh_before, lease: false }, decisions);
            }
            Access::Answered { resource, after } => {
                let gave = matches!(&observation.seen, Seen::Answer { addresses, .. } if !addresses.is_empty());
                let known = self.history.get(resource).filter(|_| gave);
                self.policy.answered(resource, known.map(|known| known.fresh_until));
                if let Some(after) = after {
                    self.policy.measured(at, resource, 0, after);
                }
            }
            Access::Connected { resource, port, unasked, leased } => {
                if let Some(round_trip) = handshake(observation) {
                    self.policy.measured(at, resource, port, round_trip);
                }
                if unasked {
                    // A name that was ready is answered nearby, and no question shows that it was used: the connection
                    // does.
                    self.counters.unasked += 1;
                    self.asked(now, observation, resource, Ready { name: fresh_before, lease: leased }, decisions);
                }
            }
            Access::Dialled { resource, port } => {
                if let Some(round_trip) = handshake(observation) {
                    self.policy.measured(at, resource, port, round_trip);
                }
            }
            Access::Nameless | Access::Nothing => (),
        }
        self.policy.due(now, &mut decisions.intents);
    }

    /// Takes in what became of an intent.
    pub fn outcome(&mut self, outcome: &Outcome) {
        self.policy.outcome(outcome);
    }

    /// Names the network namespaces whose programs' connections are learnt from.
    pub fn set_namespaces(&mut self, namespaces: Vec<u64>) {
        self.history.set_namespaces(namespaces);
    }

    /// A round trip to a port of a name's host was measured.
    pub fn measured(&mut self, now: Timestamp, resource: ResourceId, port: u16, round_trip: Duration) {
        self.policy.measured(now, resource, port, round_trip);
    }

    /// Writes what the predictor learnt.
    ///
    /// # Errors
    /// When `to` does not take it.
    pub fn save_predictor(&self, to: &mut dyn io::Write) -> io::Result<()> {
        self.predictor.save(to)
    }

    /// Takes in the names that were known `away` ago, before a restart; `identify` gives a name its ID.
    pub fn recollect(
        &mut self,
        now: Timestamp,
        away: Duration,
        names: Vec<RememberedName>,
        identify: impl Fn(&Name) -> ResourceId,
        decisions: &mut Decisions,
    ) {
        self.history.recollect(now, away, names, identify, &mut decisions.learned);
    }

    /// Lets time pass: what is due goes out, what is too old goes away.
    pub fn tick(&mut self, now: Timestamp, decisions: &mut Decisions) {
        let changes = decisions.learned.len();
        self.history.tick(now, &mut decisions.learned);
        self.forget_with(&decisions.learned[changes..]);
        self.policy.tick(now, &mut decisions.settled);
        self.foresee(now);
        self.policy.due(now, &mut decisions.intents);
    }

    /// Tells the time on the wall, for habits of the day and the week: see [`Predictor::set_wall_clock`].
    pub fn set_wall_clock(&mut self, since_1970: Duration, utc_offset_seconds: i32) {
        self.predictor.set_wall_clock(since_1970, utc_offset_seconds);
    }

    /// Takes up what is due by the clock, though no access announces it.
    fn foresee(&mut self, now: Timestamp) {
        let mut due = std::mem::take(&mut self.due);
        self.predictor.due(now, &mut due);
        for due in &due {
            self.counters.foreseen += 1;
            self.weigh(now, now, due.client.address(), &due.prediction);
        }
        self.due = due;
    }

    /// Hands a prediction to the policy, with what is known of its name.
    fn weigh(&mut self, now: Timestamp, cause: Timestamp, client: IpAddr, prediction: &Prediction) {
        if !self.policy.is_worth_a_look(prediction.worth) {
            self.policy.pass_over(Refusal::Worthless);
            return;
        }
        self.ports.clear();
        let known = self.history.get(prediction.resource).map(|known| {
            self.ports.extend(known.ports.iter().map(|known| known.port));
            view(known, &self.ports)
        });
        self.policy.propose(now, cause, client, prediction, known);
    }

    /// When [`Self::tick`] is wanted next if nothing is observed before.
    #[must_use]
    pub fn next_tick(&self, now: Timestamp) -> Option<Timestamp> {
        [self.policy.next_due(now), self.predictor.next_due(now)].into_iter().flatten().min()
    }

    /// Why what is said of `client` is said; see [`Predictor::explain`].
    pub fn explain(
        &mut self,
        now: Timestamp,
        client: IpAddr,
        last: Option<usize>,
        resource: Option<ResourceId>,
    ) -> Explanation {
        self.predictor.explain(now, ClientKey::from(client), last, resource)
    }

    /// What followed a resource so far.
    #[must_use]
    pub fn followers(&self, resource: ResourceId) -> Vec<Follower> {
        self.predictor.followers(resource)
    }

    /// What each action for a prediction would come to; empty where nothing is known of the name.
    #[must_use]
    pub fn appraise(&self, now: Timestamp, prediction: &Prediction) -> Vec<Appraisal> {
        let Some(known) = self.history.get(prediction.resource) else { return Vec::new() };
        let ports: Vec<u16> = known.ports.iter().map(|known| known.port).collect();
        self.policy.appraise(now, prediction, view(known, &ports))
    }

    /// Whether a question of this host's own may be the doing of one of our look-ups: it is where the resolver that we
    /// ask runs on this host, and asks others in turn. Our own questions are marked, and never seen here.
    pub const fn set_echoes(&mut self, echoes: bool) {
        self.echoes = echoes;
    }

    /// Takes the requests to send ahead.
    pub fn set_warm(&mut self, requests: impl IntoIterator<Item = (Origin, String)>) {
        self.policy.set_warm(requests);
    }

    /// Takes other settings of the policy from now on; what was learnt stays.
    pub fn set_policy(&mut self, now: Timestamp, settings: &PolicySettings, own: &[IpNet]) {
        self.policy.set(now, settings, own);
    }

    /// What was seen.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// What is decided.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Counters of the wiring.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes taken by all parts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.history.bytes() + self.predictor.bytes() + self.policy.bytes()
    }

    /// A client asked for a resource.
    fn asked(
        &mut self,
        now: Timestamp,
        observation: &Observation,
        resource: ResourceId,
        ready: Ready,
        decisions: &mut Decisions,
    ) {
        let (at, client) = (observation.at, observation.client);
        self.counters.accesses += 1;
        let leasable = !ready.lease
            && self
                .history
                .get(resource)
                .is_some_and(|known| known.is_reachable() && (!known.ports.is_empty() || self.policy.assumes_ports()));
        self.policy.accessed(at, resource, ready.name, leasable, &mut decisions.settled);
        let key = ClientKey::from(client);
        self.predictor.learn(at, key, resource);
        self.predictor.predict(at, key, &mut self.predictions);
        // A client's budget goes to what is worth most.
        self.predictions.sort_by(|a, b| b.worth.total_cmp(&a.worth));
        let predictions = std::mem::take(&mut self.predictions);
        for prediction in &predictions {
            self.weigh(now, at, client, prediction);
        }
        self.predictions = predictions;
    }

    /// A name that nobody remembers is nothing to predict.
    fn forget_with(&mut self, changes: &[Learned]) {
        for change in changes {
            if let Learned::Forgotten(resource) = change {
                self.predictor.forget(*resource);
            }
        }
    }
}

/// What the policy wants to know of a name.
fn view<'a>(known: &'a KnownName, ports: &'a [u16]) -> Known<'a> {
    Known {
        name: &known.name,
        addresses: &known.addresses,
        fresh_until: known.fresh_until,
        ttl: known.answered_at.map(|at| known.fresh_until.since(at)),
        rcode: known.rcode,
        ports,
    }
}

/// What a handshake took, where the kernel tells of one.
fn handshake(observation: &Observation) -> Option<Duration> {
    match observation.seen {
        Seen::Connection(Connection { phase: Phase::Established { round_trip, .. }, .. }) => round_trip,
        _ => None,
    }
}
