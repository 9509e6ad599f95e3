//! Carrying intents out: one small task each, their number bounded by the policy's budgets.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::core::HERE;
use crate::{
    lease::{LeaseOrder, Pool, Reason},
    model::{Action, Intent, Observation, Origin, Outcome, Seen, Timestamp, Verdict},
    resolve::{HostResolver, Lookups, ResolveError, Resolved, Resolver, answers},
    telemetry::{Clock, Latency},
};

/// An intent on its way to be carried out.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) intent: Intent,
    /// The addresses that the last answer gave, which may no longer be true.
    pub(super) addresses: Vec<IpAddr>,
}

/// What tasks need.
pub(super) struct Actor<R = HostResolver> {
    pub(super) lookups: Arc<Lookups<R>>,
    pub(super) pool: Pool,
    pub(super) warming: Arc<super::warm::Warming>,
    pub(super) outcomes: mpsc::Sender<Outcome>,
    pub(super) observations: mpsc::Sender<Observation>,
    pub(super) clock: Clock,
    pub(super) ring_to_dial: Arc<Latency>,
    /// Told which names are expected, where the kernel answers in the place of a server.
    pub(super) answers: Option<answers::Handle>,
}

impl<R: Resolver> Actor<R> {
    /// Carries intents out until it is stopped, then gives up what is under way.
    pub(super) async fn run(self, mut errands: mpsc::Receiver<Errand>, mut stop: watch::Receiver<bool>) {
        let actor = Arc::new(self);
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                Some(errand) = errands.recv() => {
                    let actor = Arc::clone(&actor);
                    tasks.spawn(async move { actor.carry_out(errand).await });
                }
                Some(_) = tasks.join_next() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn carry_out(&self, Errand { intent, addresses }: Errand) {
        let verdict = match &intent.action {
            Action::Resolve { name } => match self.lookups.lookup(name).await {
                // Its end is decided by whether somebody asks for the name.
                Ok(resolved) => return self.learn(&intent, &resolved).await,
                Err(error) => verdict_of(&error),
            },
            Action::Lease { origin } if !addresses.is_empty() && !self.pool.moves(origin) => {
                return self.lease_at_once(&intent, origin.clone(), addresses).await;
            }
            Action::Lease { origin } => match self.lookups.lookup(&origin.name).await {
                Ok(resolved) if resolved.addresses.is_empty() => Verdict::Failed,
                // Its end is decided by the pool.
                Ok(resolved) => {
                    if !addresses.is_empty() {
                        self.pool.looked_up(origin, same(&addresses, &resolved));
                    }
                    return self.lease(&intent, origin.clone(), resolved).await;
                }
                Err(error) => verdict_of(&error),
            },
            Action::Warm { origin, path } => {
                let addresses = || async {
                    let resolved = self.lookups.lookup(&origin.name).await;
                    resolved.map(|resolved| resolved.addresses).map_err(|error| verdict_of(&error))
                };
                match self.warming.send(origin, path, addresses).await {
                    Ok(()) => return,
                    Err(verdict) => verdict,
                }
            }
        };
        self.report(&intent, verdict).await;
    }

    async fn lease(&self, intent: &Intent, origin: Origin, resolved: Resolved) {
        self.learn(intent, &resolved).await;
        self.dial(intent, origin, resolved.addresses);
    }

    /// Dials the addresses that are known while their name is looked up again, instead of waiting a round trip for what
    /// is most often the same; what is not the same is put right. Its end is decided by the pool.
    async fn lease_at_once(&self, intent: &Intent, origin: Origin, addresses: Vec<IpAddr>) {
        self.dial(intent, origin.clone(), addresses.clone());
        match self.lookups.lookup(&origin.name).await {
            Ok(resolved) => {
                self.learn(intent, &resolved).await;
                self.pool.looked_up(&origin, same(&addresses, &resolved));
                if resolved.addresses.is_empty() {
                    self.pool.cancel(intent.id);
                } else {
                    self.pool.correct(intent.id, &resolved.addresses);
                }
            }
            Err(ResolveError::NoSuchName) => self.pool.cancel(intent.id),
            // Nothing says that the addresses are wrong, and programs may still have them.
            Err(ResolveError::Busy | ResolveError::Timeout(_) | ResolveError::Failed(_)) => {}
        }
    }

    fn dial(&self, intent: &Intent, origin: Origin, addresses: Vec<IpAddr>) {
        // An intent that waited for its time is measured from there.
        let begin: Timestamp = intent.cause.max(intent.start);
        self.ring_to_dial.record(self.clock.now().since(begin));
        self.pool.lease(LeaseOrder {
            intent: Some((intent.id, intent.resource)),
            reason: Reason::predicted(intent.id, intent.probability),
            origin,
            addresses,
            until: intent.deadline,
        });
    }

    /// Tells the history what the look-up gave: its answer may come from a cache on this host, where no program of ours
    /// sees it.
    async fn learn(&self, intent: &Intent, resolved: &Resolved) {
        if let Some(answers) = &self.answers {
            answers.expect(intent.action.name());
        }
        let seen = Seen::Answer {
            resource: intent.resource,
            name: Some(intent.action.name().clone()),
            qtype: A,
            rcode: 0,
            ttl: resolved.ttl.min(LONGEST),
            addresses: resolved.addresses.clone(),
            service_binding: false,
        };
        let observation = Observation { at: self.clock.now(), client: HERE, seen };
        // The channel closes when the daemon stops.
        drop(self.observations.send(observation).await);
    }

    async fn report(&self, intent: &Intent, verdict: Verdict) {
        let outcome = Outcome {
            intent: intent.id,
            resource: intent.resource,
            kind: intent.action.kind(),
            at: self.clock.now(),
            verdict,
        };
        drop(self.outcomes.send(outcome).await);
    }
}

/// The type of the answer that a look-up stands for; it gives both families.
pub(super) const A: u16 = 1;
/// No answer is believed for longer (RFC 8767 names a week; a day is enough to warm by).
pub(super) const LONGEST: Duration = Duration::from_secs(86_400);

/// Whether an answer has an address of the one before.
fn same(before: &[IpAddr], resolved: &Resolved) -> bool {
    resolved.addresses.iter().any(|address| before.contains(address))
}

const fn verdict_of(error: &ResolveError) -> Verdict {
    match error {
        ResolveError::Busy => Verdict::Refused,
        ResolveError::NoSuchName | ResolveError::Timeout(_) | ResolveError::Failed(_) => Verdict::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::SocketAddr, sync::Mutex};

    use super::*;
    use crate::{
        app::warm::Warming,
        config::{Config, LeaseSettings},
        lease::{Dialer, Dialled, Dialling, Guard, LeaseState},
        model::{IntentId, Name, ResourceId},
    };

    /// How long a look-up takes, and a dial.
    const LOOKUP: Duration = Duration::from_millis(80);
    const DIAL: Duration = Duration::from_millis(40);

    /// Knows some names.
    struct Script(HashMap<Name, Vec<IpAddr>>);

    impl Resolver for Script {
        async fn lookup(&self, name: &Name) -> Result<Resolved, ResolveError> {
            tokio::time::sleep(LOOKUP).await;
            let addresses = self.0.get(name).cloned().ok_or(ResolveError::NoSuchName)?;
            Ok(Resolved { addresses, ttl: Duration::from_secs(30), took: LOOKUP })
        }
    }

    /// Everything can be reached, and stays.
    #[derive(Default)]
    struct Reach(Arc<Mutex<Vec<std::os::unix::net::UnixStream>>>);

    impl Dialer for Reach {
        fn dial(&self, _destination: SocketAddr) -> Dialling<'_> {
            let peers = Arc::clone(&self.0);
            Box::pin(async move {
                tokio::time::sleep(DIAL).await;
                let (socket, peer) = std::os::unix::net::UnixStream::pair()?;
                peers.lock().unwrap().push(peer);
                Ok(Dialled { socket: socket.into(), rtt: DIAL })
            })
        }
    }

    struct Stage {
        actor: Arc<Actor<Script>>,
        outcomes: mpsc::Receiver<Outcome>,
        observations: mpsc::Receiver<Observation>,
        intents: u64,
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    impl Stage {
        fn new(names: &[(&str, &[u8])]) -> Self {
            let names = names.iter().map(|(name, lasts)| {
                (name.parse().unwrap(), lasts.iter().map(|&last| address(last)).collect::<Vec<_>>())
            });
            let (outcomes, outcomes_in) = mpsc::channel(64);
            let (observations, observations_in) = mpsc::channel(64);
            let (clock, guard): (_, Guard) = (Clock::new(), Arc::new(|_, _| Ok(())));
            let settings = LeaseSettings { demand: false, ..LeaseSettings::default() };
            let dialer: Arc<dyn Dialer> = Arc::new(Reach::default());
            let warming = Warming::new(&Config::default(), Arc::clone(&dialer), Arc::clone(&guard), clock).unwrap();
            let pool = Pool::start(&settings, dialer, guard, outcomes.clone(), clock.now()).unwrap();
            let actor = Actor {
                lookups: Arc::new(Lookups::new(Script(names.collect()), 8)),
                pool,
                warming: Arc::new(warming),
                outcomes,
                observations,
                clock,
                ring_to_dial: Arc::new(Latency::new()),
                answers: None,
            };
            Self { actor: Arc::new(actor), outcomes: outcomes_in, observations: observations_in, intents: 0 }
        }

        /// Begins an intent to lease, with the address of an earlier answer.
        fn begin(&mut self, name: &str, known: Option<u8>) -> tokio::task::JoinHandle<()> {
            self.intents += 1;
            let now = self.actor.clock.now();
            let intent = Intent {
                id: IntentId(self.intents),
                resource: ResourceId(self.intents),
                action: Action::Lease { origin: format!("{name}:443").parse().unwrap() },
                probability: 0.9,
                value: 1.0,
                start: now,
                deadline: now + Duration::from_secs(20),
                cause: now,
            };
            let errand = Errand { intent, addresses: known.map(address).into_iter().collect() };
            let actor = Arc::clone(&self.actor);
            tokio::spawn(async move { actor.carry_out(errand).await })
        }

        fn ready(&self) -> Vec<IpAddr> {
            let leases = self.actor.pool.leases().into_iter().filter(|lease| lease.state == LeaseState::Ready);
            leases.filter_map(|lease| Some(lease.destination?.ip())).collect()
        }
    }

    async fn pass(ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_dialled_while_it_is_looked_up() {
        let mut stage = Stage::new(&[("a.example", &[1, 2]), ("b.example", &[3])]);
        let (a, b) = (stage.begin("a.example", Some(1)), stage.begin("b.example", None));
        pass(45).await;
        assert_eq!(stage.ready(), [address(1)], "a dial later, and before the look-up's end");
        assert!(!a.is_finished() && !b.is_finished());
        pass(40).await;
        assert!(a.is_finished() && b.is_finished());
        assert_eq!(stage.ready(), [address(1)]);
        pass(40).await;
        assert_eq!(stage.ready(), [address(1), address(3)], "a look-up and a dial later");
        assert_eq!(stage.actor.pool.counters().readdressed, 0);
        // What the look-ups gave is learnt.
        assert!(stage.observations.recv().await.is_some() && stage.observations.recv().await.is_some());
        assert!(stage.outcomes.try_recv().is_err(), "both are decided by their use");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_out_of_date_is_put_right() {
        let mut stage = Stage::new(&[("a.example", &[2])]);
        stage.begin("a.example", Some(1));
        pass(45).await;
        assert_eq!(stage.ready(), [address(1)]);
        pass(80).await;
        assert_eq!(stage.ready(), [address(2)]);
        // A name that is gone.
        stage.begin("gone.example", Some(9));
        pass(45).await;
        assert_eq!(stage.ready(), [address(2), address(9)]);
        pass(80).await;
        assert_eq!(stage.ready(), [address(2)]);
        let outcome = stage.outcomes.recv().await.unwrap();
        assert_eq!((outcome.intent, outcome.verdict), (IntentId(2), Verdict::Failed));
        assert!(stage.outcomes.try_recv().is_err(), "one outcome for each, and the first is still open");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_take_turns_are_looked_up_first() {
        let mut stage = Stage::new(&[("a.example", &[7])]);
        for (known, dialled) in [(1, 2), (2, 4), (3, 5), (7, 6), (7, 7)] {
            stage.begin("a.example", Some(known));
            pass(200).await;
            assert_eq!(stage.actor.pool.counters().opened, dialled, "with {known} known");
            let taken = stage.actor.pool.leases();
            assert!(taken.iter().all(|lease| lease.destination.is_some_and(|to| to.ip() == address(7))));
            // Room for the next.
            stage.actor.pool.cancel(IntentId(stage.intents));
        }
    }
}
