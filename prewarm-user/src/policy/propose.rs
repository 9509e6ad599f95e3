//! From a prediction to intents: which actions it calls for, what each is worth, and when to begin.

use std::{net::IpAddr, time::Duration};

use super::{Bucket, Key, MAX_CLIENTS, Policy, Refusal};
use crate::model::{ActionKind, Intent, Name, Prediction, ResourceId, Timestamp};

/// What is known of a predicted resource's name.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The name.
    pub name: &'a Name,
    /// The addresses of its last answer.
    pub addresses: &'a [IpAddr],
    /// Until when that answer may be kept.
    pub fresh_until: Timestamp,
    /// How long it could be kept when it came; none where none came.
    pub ttl: Option<Duration>,
    /// The response code of the last answer.
    pub rcode: u8,
    /// Ports that programs connected to, most used first.
    pub ports: &'a [u16],
}

/// An action as it would be queued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft {
    /// The probability of its use.
    pub(super) worth: f64,
    /// What it is worth, in milliseconds.
    pub(super) value: f64,
    pub(super) start: Timestamp,
    pub(super) deadline: Timestamp,
}

/// How long a name's answer is taken to be kept until one was seen.
const TTL: Duration = Duration::from_secs(60);
/// Caches count whole seconds: one that is asked earlier still answers from what it has, and renews nothing.
const EXPIRY_SLACK: Duration = Duration::from_secs(1);
/// How long a warm request is taken to last: what a far cache keeps is not ours to know, and what was asked ahead in vain
/// may be asked again soon.
const WARM_HOLD: Duration = Duration::from_secs(2);

impl Policy {
    /// Whether a prediction could be worth anything, so that the caller need not look up its name.
    #[must_use]
    pub fn is_worth_a_look(&self, worth: f64) -> bool {
        worth > 0.0 && worth >= self.settings.probability_floor
    }

    /// Whether connections are made ready for names no port was learnt for.
    #[must_use]
    pub fn assumes_ports(&self) -> bool {
        self.settings.lease && !self.settings.assume_ports.is_empty()
    }

    /// Counts a prediction that the caller passed over.
    pub fn pass_over(&mut self, refusal: Refusal) {
        self.counters.predictions += 1;
        self.counters.refusals.add(refusal);
    }

    /// Takes up a prediction made at `cause` for something that `client` will ask for.
    pub fn propose(
        &mut self,
        now: Timestamp,
        cause: Timestamp,
        client: IpAddr,
        prediction: &Prediction,
        known: Option<Known<'_>>,
    ) {
        self.counters.predictions += 1;
        if !self.is_worth_a_look(prediction.worth) {
            self.counters.refusals.add(Refusal::Worthless);
            return;
        }
        let Some(known) = known else {
            self.counters.refusals.add(Refusal::UnknownName);
            return;
        };
        if let Err(refusal) = self.guard.client(client) {
            self.counters.refusals.add(refusal);
            return;
        }
        let (keys, no_port) = self.keys(prediction.resource, known);
        if no_port {
            self.counters.refusals.add(Refusal::NoPort);
        }
        for key in keys {
            self.consider(now, cause, client, prediction, known, key);
        }
    }

    /// All that could be done for a resource, and whether a connection is not among it for want of a port.
    pub(super) fn keys(&self, resource: ResourceId, known: Known<'_>) -> (Vec<Key>, bool) {
        let key = |kind, port, path| Key { resource, kind, port, path };
        let ports = if known.ports.is_empty() { &self.settings.assume_ports } else { known.ports };
        let mut keys = Vec::with_capacity(1 + ports.len());
        keys.push(key(ActionKind::Resolve, 0, 0));
        keys.extend(ports.iter().map(|&port| key(ActionKind::Lease, port, 0)));
        if !self.warm_names.is_empty()
            && let Some(paths) = self.warm_names.get(known.name)
        {
            keys.extend(
                paths.iter().map(|&path| key(ActionKind::Warm, self.warm_paths[usize::from(path)].0.port, path)),
            );
        }
        (keys, ports.is_empty() && self.settings.lease)
    }

    fn consider(
        &mut self,
        now: Timestamp,
        cause: Timestamp,
        client: IpAddr,
        prediction: &Prediction,
        known: Known<'_>,
        key: Key,
    ) {
        if let Err(refusal) = self.try_queue(now, cause, client, prediction, known, key) {
            self.counters.refusals.add(refusal);
        }
    }

    fn try_queue(
        &mut self,
        now: Timestamp,
        cause: Timestamp,
        client: IpAddr,
        prediction: &Prediction,
        known: Known<'_>,
        key: Key,
    ) -> Result<(), Refusal> {
        let Draft { worth: p, value, start, deadline } = self.draft(now, cause, prediction, known, key)?;
        if let Some(waiting) = self.queue.find(key) {
            // The latest word counts where it changes something; moving what waits costs more than looking at it.
            let same = value <= 1.25 * waiting.value
                && start >= waiting.start
                && deadline.since(waiting.deadline) < Duration::from_secs(5);
            if !same {
                let mut intent = waiting.clone();
                (intent.probability, intent.value, intent.cause) = (p, value, cause);
                (intent.start, intent.deadline) = (intent.start.min(start), intent.deadline.max(deadline));
                self.push(key, intent);
            }
            return Err(Refusal::Duplicate);
        }
        self.permit(now, cause, prediction, known, key, start)?;
        self.charge(now, client)?;
        let intent = Intent {
            id: self.next_id(),
            resource: key.resource,
            action: self.action(key, known.name),
            probability: p,
            value,
            start,
            deadline,
            cause,
        };
        self.counters.kind_mut(key.kind).queued += 1;
        self.push(key, intent);
        Ok(())
    }

    /// What an action would be worth, and when it would be done; an error where it is worth nothing, or under way.
    pub(super) fn draft(
        &self,
        now: Timestamp,
        cause: Timestamp,
        prediction: &Prediction,
        known: Known<'_>,
        key: Key,
    ) -> Result<Draft, Refusal> {
        let on = match key.kind {
            ActionKind::Resolve => self.settings.resolve,
            ActionKind::Lease => self.settings.lease,
            ActionKind::Warm => true,
        };
        if !on {
            return Err(Refusal::Off);
        }
        let (start, worth, deadline) = self.times(now, cause, prediction, known, key);
        let value = self.value_ms(worth, key);
        if value.is_nan() || value <= 0.0 {
            return Err(Refusal::Worthless);
        }
        if self.open.end(key).is_some_and(|end| end > start) {
            return Err(Refusal::Duplicate);
        }
        Ok(Draft { worth, value, start, deadline })
    }

    /// What an action is worth in milliseconds: what it saves where it is used, less what it costs where it is not.
    pub(super) fn value_ms(&self, worth: f64, key: Key) -> f64 {
        let p = worth.clamp(0.0, 1.0);
        p * self.saved_ms(key) - (1.0 - p) * self.priced_ms(key.kind)
    }

    /// What an unused action costs now, in milliseconds.
    pub(super) fn priced_ms(&self, kind: ActionKind) -> f64 {
        self.cost_ms(kind) * self.prices[kind as usize].factor()
    }

    /// Whether nothing speaks against an action that begins at `start`.
    pub(super) fn permit(
        &self,
        now: Timestamp,
        cause: Timestamp,
        prediction: &Prediction,
        known: Known<'_>,
        key: Key,
        start: Timestamp,
    ) -> Result<(), Refusal> {
        if key.kind == ActionKind::Resolve {
            if known.rcode != 0 {
                return Err(Refusal::Unreachable);
            }
            if start > cause + prediction.latest_in.max(Duration::from_secs(1)) {
                return Err(Refusal::Fresh);
            }
        }
        if self.origins.get((key.resource, key.port)).is_some_and(|state| !state.breaker.allows(now)) {
            return Err(Refusal::Breaker);
        }
        self.guard.name(known.name)?;
        if key.kind != ActionKind::Resolve {
            self.guard.port(key.port)?;
            // Nothing is opened because of a question alone: an answer must have given an address, and one that passes.
            if known.rcode != 0 || known.addresses.is_empty() {
                return Err(Refusal::Unreachable);
            }
            let mut judged = known.addresses.iter().map(|&address| self.guard.address(address));
            if let Some(Err(refusal)) = judged.clone().next()
                && judged.all(|verdict| verdict.is_err())
            {
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn push(&mut self, key: Key, intent: Intent) {
        for dropped in self.queue.push(key, intent) {
            self.counters.refusals.add(Refusal::Outbid);
            self.counters.kind_mut(dropped.action.kind()).dropped += 1;
        }
    }

    /// When to begin, the worth of that, and until when it is of use. What lasts is begun at once: waiting costs more
    /// uses than it saves time (`docs/prediction.md`); what lasts a moment waits for its moment. And a name that a cache
    /// still holds is not looked up before it lets go of it, because that would renew nothing.
    pub(super) fn times(
        &self,
        now: Timestamp,
        cause: Timestamp,
        prediction: &Prediction,
        known: Known<'_>,
        key: Key,
    ) -> (Timestamp, f64, Timestamp) {
        // Twice what it takes: measured round trips vary, and being late loses all of it.
        let lead = Duration::from_secs_f64((2.0 * self.saved_ms(key) / 1000.0).clamp(0.05, 5.0));
        let hold = match key.kind {
            ActionKind::Resolve => known.ttl.filter(|ttl| !ttl.is_zero()).unwrap_or(TTL),
            ActionKind::Lease => Duration::from_secs_f64(self.settings.hold_seconds),
            ActionKind::Warm => WARM_HOLD,
        };
        let (wait, share) = prediction.timing.plan(lead, hold);
        let mut start = now.max(cause + wait);
        if key.kind == ActionKind::Resolve && known.fresh_until > start {
            start = known.fresh_until + EXPIRY_SLACK;
        }
        (start, prediction.worth.clamp(0.0, 1.0) * f64::from(share), start + lead + hold)
    }

    /// Takes one from the client's budget.
    fn charge(&mut self, now: Timestamp, client: IpAddr) -> Result<(), Refusal> {
        let rate = self.settings.intents_per_client_per_second;
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&client) {
            self.clients.retain(|_, bucket| !bucket.is_full(now));
            if self.clients.len() >= MAX_CLIENTS {
                return Err(Refusal::ClientBudget);
            }
        }
        let bucket = self.clients.entry(client).or_insert_with(|| Bucket::new(rate, rate.max(1.0), now));
        if !bucket.has(now, 1.0) {
            return Err(Refusal::ClientBudget);
        }
        bucket.take(now, 1.0);
        Ok(())
    }
}
