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
    resolve::{HostResolver, Lookups, ResolveError, Resolved},
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
#[derive(Clone)]
pub(super) struct Actor {
    pub(super) lookups: Arc<Lookups<HostResolver>>,
    pub(super) pool: Pool,
    pub(super) warming: Arc<super::warm::Warming>,
    pub(super) outcomes: mpsc::Sender<Outcome>,
    pub(super) observations: mpsc::Sender<Observation>,
    pub(super) clock: Clock,
    pub(super) ring_to_dial: Arc<Latency>,
}

impl Actor {
    /// Carries intents out until it is stopped, then gives up what is under way.
    pub(super) async fn run(self, mut errands: mpsc::Receiver<Errand>, mut stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                Some(errand) = errands.recv() => {
                    let actor = self.clone();
                    tasks.spawn(async move { actor.carry_out(errand).await });
                }
                Some(_) = tasks.join_next() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn carry_out(self, Errand { intent, addresses }: Errand) {
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
            Action::Warm { origin, path } => match self.lookups.lookup(&origin.name).await {
                Ok(resolved) => match self.warming.send(origin, path, &resolved.addresses).await {
                    Ok(()) => return,
                    Err(verdict) => verdict,
                },
                Err(error) => verdict_of(&error),
            },
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
