//! The task that owns what decides: it reads the ring, hands intents on, and answers what is asked of its tables.
//!
//! It waits for nobody: what cannot be handed on at once is refused and counted.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};

use super::{
    act::Errand,
    memory::{Names, State},
    sources::{Batch, SourceCounters},
    uses::Uses,
    why,
};
use crate::{
    config::Config,
    control::{AttachmentView, ExplainRequest, ExplanationView, NameView, OriginView, PredictionView},
    decide::{self, Decider, Decisions},
    history::{self, History, Learned},
    kernel::{Counters, Counts, EventSource, KernelError, Key, Known, Programs, RingSource},
    model::{Action, ActionKind, Observation, Outcome, Phase, Seen, Timestamp, Verdict},
    observe::{Around, Merge, MergeCounters, Teller},
    policy,
    resolve::answers,
    telemetry::{Clock, Latency},
};

/// The pause between looks at what has aged, when nothing else is due.
const AGEING: Duration = Duration::from_secs(1);

/// What is asked of the task.
#[derive(Debug)]
pub(super) enum Question {
    /// The numbers it keeps.
    Numbers(oneshot::Sender<Numbers>),
    /// The names it knows, the most recently asked first, at most so many.
    Names(usize, oneshot::Sender<Vec<NameView>>),
    /// The origins that it saw programs connect to.
    Origins(oneshot::Sender<Vec<OriginView>>),
    /// What it expects, at most so many.
    Predictions(usize, oneshot::Sender<Vec<PredictionView>>),
    /// Attach to an interface; the answer is a line for a person either way.
    Attach(String, oneshot::Sender<Result<String, String>>),
    /// Detach from one.
    Detach(String, oneshot::Sender<Result<String, String>>),
    /// Why something is expected; an error is for a person.
    Explain(ExplainRequest, oneshot::Sender<Result<ExplanationView, String>>),
    /// What was learnt, to be written down.
    State(oneshot::Sender<State>),
    /// Take these settings.
    Settings(Box<Config>),
}

/// The numbers that only this task has.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    pub(super) ingress: Counts,
    pub(super) egress: Counts,
    pub(super) sockops: Counts,
    pub(super) history: history::Counters,
    pub(super) attachments: Vec<AttachmentView>,
    pub(super) policy: policy::Counters,
    pub(super) known: u64,
    pub(super) pending: u64,
    pub(super) bytes: u64,
    pub(super) overflow: u64,
    pub(super) garbled: u64,
    pub(super) decider: decide::Counters,
    pub(super) merge: MergeCounters,
}

/// How often the clock on the wall is looked at: somebody may set it.
const WALL: Duration = Duration::from_secs(60);

/// Why the task woke.
enum Wake {
    Ring(Result<usize, KernelError>),
    Outcome(Outcome),
    Observation(Observation),
    Batch(Batch),
    Question(Question),
    Time,
    Stop,
}

/// What the task is made of.
pub(super) struct Core {
    pub(super) source: RingSource,
    pub(super) programs: Programs,
    pub(super) known: Known,
    pub(super) counters: Counters,
    pub(super) decider: Decider,
    pub(super) clock: Clock,
    pub(super) intents: mpsc::Sender<Errand>,
    pub(super) outcomes: mpsc::Receiver<Outcome>,
    pub(super) observations: mpsc::Receiver<Observation>,
    pub(super) batches: mpsc::Receiver<Batch>,
    /// Makes one of what several sources tell; none where there is but one.
    pub(super) merge: Option<Merge>,
    pub(super) sources: SourceCounters,
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) own: Vec<IpNet>,
    pub(super) key: Key,
    /// The names of the last life.
    pub(super) remembered: Names,
    pub(super) guard: Arc<RwLock<policy::Guard>>,
    pub(super) ring_to_intent: Arc<Latency>,
    pub(super) saved: Arc<Latency>,
    pub(super) uses: Arc<Uses>,
    /// Told of what servers answer, where the kernel answers in their place.
    pub(super) answers: Option<answers::Handle>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Core {
    /// Runs until it is stopped or the ring is gone, then detaches everything.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(1024);
        let mut decisions = Decisions::default();
        let mut overflow = 0;
        let mut aged = self.clock.now();
        let mut walled = aged;
        self.look_at_the_wall();
        let Names { names, away } = std::mem::take(&mut self.remembered);
        self.decider.recollect(aged, away, names, |name| self.key.resource_id(name), &mut decisions);
        self.hand_on(&mut decisions, &mut overflow);
        let result = loop {
            let now = self.clock.now();
            let ageing = aged + AGEING;
            let held = self.merge.as_ref().and_then(Merge::next_release);
            let due = [self.decider.next_tick(now), held].into_iter().flatten().fold(ageing, Timestamp::min).max(now);
            // Only the source and the receivers are borrowed while it waits.
            let wake = tokio::select! {
                read = self.source.fill(&mut batch) => Wake::Ring(read),
                Some(outcome) = self.outcomes.recv() => Wake::Outcome(outcome),
                Some(observation) = self.observations.recv() => Wake::Observation(observation),
                Some(batch) = self.batches.recv() => Wake::Batch(batch),
                Some(question) = self.questions.recv() => Wake::Question(question),
                () = sleep_until(self.clock.instant(due)) => Wake::Time,
                _ = self.stop.wait_for(|stop| *stop) => Wake::Stop,
            };
            match wake {
                Wake::Ring(Ok(0)) => break Err(anyhow::anyhow!("the ring has ended")),
                Wake::Ring(Ok(_)) => {
                    if let Some(answers) = &self.answers {
                        batch.iter().for_each(|observation| answers.told(observation));
                    }
                    self.take_in(Teller::Wire, &mut batch, &mut decisions);
                }
                Wake::Ring(Err(error)) => break Err(anyhow::Error::new(error).context("the ring")),
                Wake::Outcome(outcome) => {
                    if let Some(outcome) = self.uses.outcome(outcome) {
                        self.settle(&outcome);
                    }
                }
                Wake::Observation(observation) => {
                    batch.push(observation);
                    self.take_in(Teller::Wire, &mut batch, &mut decisions);
                }
                Wake::Batch(Batch { teller, mut observations, own }) => {
                    if let Some(merge) = &mut self.merge {
                        own.into_iter().for_each(|(resource, at)| merge.passed_on(resource, at));
                    }
                    self.take_in(teller, &mut observations, &mut decisions);
                }
                Wake::Question(question) => self.answer(question, overflow),
                Wake::Time => {
                    aged = self.clock.now();
                    if aged.since(walled) >= WALL {
                        walled = aged;
                        self.look_at_the_wall();
                    }
                    self.release(aged, &mut batch, &mut decisions);
                    self.decider.tick(aged, &mut decisions);
                    for outcome in self.uses.expire(aged) {
                        self.settle(&outcome);
                    }
                }
                Wake::Stop => break Ok(()),
            }
            self.hand_on(&mut decisions, &mut overflow);
        };
        self.programs.detach_all().map_err(anyhow::Error::new).and(result)
    }

    /// Takes in what a source tells.
    fn take_in(&mut self, teller: Teller, batch: &mut Vec<Observation>, decisions: &mut Decisions) {
        if self.merge.is_none() {
            return self.learn(teller, batch, decisions);
        }
        let mut merged = Vec::new();
        for observation in batch.drain(..) {
            // One by one: what an answer says must be known when the connection behind it is looked at.
            let around = Here { resolver: self.sources.is_resolver_here(), history: self.decider.history() };
            if let Some(merge) = &mut self.merge {
                merge.take(teller, observation, &around, &mut merged);
            }
            self.learn(teller, &mut merged, decisions);
        }
    }

    /// Takes in what was held back until another source had its say.
    fn release(&mut self, now: Timestamp, batch: &mut Vec<Observation>, decisions: &mut Decisions) {
        if let Some(merge) = &mut self.merge {
            merge.release(now, batch);
            // They waited on purpose, so that how long says nothing.
            self.learn(Teller::Server, batch, decisions);
        }
    }

    fn learn(&mut self, teller: Teller, batch: &mut Vec<Observation>, decisions: &mut Decisions) {
        for observation in batch.drain(..) {
            let now = self.clock.now();
            if let Seen::Connection(connection) = &observation.seen
                && let Some(outcome) = self.uses.observe(observation.at, connection)
            {
                self.settle(&outcome);
            }
            self.decider.observe(now, &observation, decisions);
            // Nobody waits for the end of a connection, and its record wakes nobody.
            let ending =
                matches!(&observation.seen, Seen::Connection(seen) if !matches!(seen.phase, Phase::Established { .. }));
            // Only the kernel tells at once.
            if teller == Teller::Wire && !ending {
                self.ring_to_intent.record(self.clock.now().since(observation.at));
            }
        }
    }

    fn look_at_the_wall(&mut self) {
        let (since_1970, utc_offset_seconds) = self.clock.wall();
        self.decider.set_wall_clock(since_1970, utc_offset_seconds);
    }

    fn hand_on(&mut self, decisions: &mut Decisions, overflow: &mut u64) {
        for change in decisions.learned.drain(..) {
            let written = match change {
                Learned::New(resource) => self.known.insert(resource),
                Learned::Forgotten(resource) => self.known.remove(resource),
            };
            if let Err(error) = written {
                // The name only travels once more than it had to.
                tracing::debug!(%error, "the table of known names");
            }
        }
        decisions.settled.clear();
        for intent in decisions.intents.drain(..) {
            let known = self.decider.history().get(intent.resource);
            let addresses = known.map(|known| known.addresses.to_vec()).unwrap_or_default();
            if let Err(refused) = self.intents.try_send(Errand { intent, addresses }) {
                *overflow += 1;
                let intent = refused.into_inner().intent;
                let outcome = Outcome {
                    intent: intent.id,
                    resource: intent.resource,
                    kind: intent.action.kind(),
                    at: self.clock.now(),
                    verdict: Verdict::Refused,
                };
                self.decider.outcome(&outcome);
            }
        }
    }

    fn settle(&mut self, outcome: &Outcome) {
        if let (ActionKind::Lease, Verdict::Used { saved }) = (outcome.kind, &outcome.verdict) {
            self.saved.record(*saved);
        }
        self.decider.outcome(outcome);
    }

    fn answer(&mut self, question: Question, overflow: u64) {
        // Whoever asked may have gone; then nobody misses the answer.
        match question {
            Question::Numbers(to) => drop(to.send(self.numbers(overflow))),
            Question::Names(limit, to) => drop(to.send(self.names(limit))),
            Question::Origins(to) => drop(to.send(self.origins())),
            Question::Predictions(limit, to) => drop(to.send(self.predictions(limit))),
            Question::Attach(interface, to) => drop(to.send(self.attach(&interface))),
            Question::Detach(interface, to) => drop(to.send(self.detach(&interface))),
            Question::Explain(request, to) => {
                drop(to.send(why::explain(&mut self.decider, &self.key, self.clock.now(), &request)));
            }
            Question::State(to) => drop(to.send(self.state())),
            Question::Settings(config) => self.set(&config),
        }
    }

    fn set(&mut self, config: &Config) {
        self.decider.set_policy(self.clock.now(), &config.policy, &self.own);
        self.decider.set_warm(config.warm_targets());
        let guard = policy::Guard::new(&config.policy.guard, &self.own);
        *self.guard.write().unwrap_or_else(PoisonError::into_inner) = guard;
        for interface in &config.capture.interfaces {
            if self.programs.attachments().any(|attachment| attachment.interface == *interface) {
                continue;
            }
            match self.attach(interface) {
                Ok(done) => tracing::info!("{done}"),
                Err(error) => tracing::error!("{error}"),
            }
        }
    }

    fn numbers(&self, overflow: u64) -> Numbers {
        Numbers {
            ingress: self.counters.ingress().unwrap_or_default(),
            egress: self.counters.egress().unwrap_or_default(),
            sockops: self.counters.sockops().unwrap_or_default(),
            history: self.decider.history().counters(),
            attachments: self.programs.attachments().map(AttachmentView::from).collect(),
            policy: self.decider.policy().counters().clone(),
            known: self.decider.history().len() as u64,
            pending: self.decider.policy().waiting() as u64,
            bytes: self.decider.bytes() as u64,
            overflow,
            garbled: self.source.garbled(),
            decider: self.decider.counters(),
            merge: self.merge.as_ref().map(Merge::counters).unwrap_or_default(),
        }
    }

    /// What was learnt. The tables are copied here, which takes some milliseconds, and written elsewhere.
    fn state(&self) -> State {
        let mut predictor = Vec::new();
        if let Err(error) = self.decider.save_predictor(&mut predictor) {
            tracing::warn!(%error, "what the predictor learnt is not written");
            predictor.clear();
        }
        State { predictor, names: self.decider.history().remember(self.clock.now()) }
    }

    fn names(&self, limit: usize) -> Vec<NameView> {
        let now = self.clock.now();
        let mut names: Vec<_> = self.decider.history().iter().collect();
        names.sort_by_key(|known| std::cmp::Reverse(known.last_asked));
        let view = |known: &&crate::history::KnownName| NameView {
            name: known.name.to_string(),
            resource: known.resource.to_string(),
            addresses: known.addresses.to_vec(),
            ttl_seconds: known.fresh_until.since(now).as_secs_f64(),
            ports: known.ports.iter().map(|port| port.port).collect(),
            asked: known.count,
            idle_seconds: now.since(known.last_asked).as_secs_f64(),
        };
        names.iter().take(limit).map(view).collect()
    }

    fn origins(&self) -> Vec<OriginView> {
        let now = self.clock.now();
        let origins = self.decider.history().origins();
        origins.map(|(known, port, origin)| OriginView::seen(format!("{}:{port}", known.name), origin, now)).collect()
    }

    fn predictions(&self, limit: usize) -> Vec<PredictionView> {
        let now = self.clock.now();
        let signed = |at: Timestamp| at.since(now).as_secs_f64() * 1000.0 - now.since(at).as_secs_f64() * 1000.0;
        let view = |pending: &policy::Pending| {
            let intent = &pending.intent;
            let (action, target) = match &intent.action {
                Action::Resolve { name } => ("resolve", name.to_string()),
                Action::Lease { origin } => ("lease", origin.to_string()),
                Action::Warm { origin, path } => ("warm", format!("{origin}{path}")),
            };
            PredictionView {
                action: action.to_owned(),
                target,
                probability: intent.probability,
                value_ms: intent.value,
                starts_in_ms: signed(intent.start),
                deadline_in_ms: signed(intent.deadline),
                started: pending.started,
            }
        };
        self.decider.policy().pending().iter().take(limit).map(view).collect()
    }

    fn attach(&mut self, interface: &str) -> Result<String, String> {
        let attachment = self.programs.attach(interface).map_err(|error| chain(&error))?;
        Ok(format!("attached to {interface}: {}", AttachmentView::from(&attachment).shown()))
    }

    fn detach(&mut self, interface: &str) -> Result<String, String> {
        self.programs.detach(interface).map_err(|error| chain(&error))?;
        Ok(format!("detached from {interface}"))
    }
}

/// What the sources' merging has to know of the rest.
struct Here<'a> {
    resolver: bool,
    history: &'a History,
}

impl Around for Here<'_> {
    fn is_resolver_here(&self) -> bool {
        self.resolver
    }

    fn is_named(&self, now: Timestamp, client: IpAddr, address: IpAddr) -> bool {
        self.history.name_behind(now, client, address).is_some()
    }
}

/// The client that stands for this host itself, where no packet tells one.
pub(super) const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
