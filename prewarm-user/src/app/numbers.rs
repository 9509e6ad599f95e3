//! All numbers on one page.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
};

use prewarm_ebpf::Counter;

use super::{core::Numbers, sources::SourceCounters, uses::Uses, warm::Warming};
use crate::{
    control::{
        ConnectCounts, EncryptedCounts, LeaseCounts, NameCounts, OriginView, PacketCounts, PredictionCounts,
        STATS_SCHEMA, Stats, WarmCounts,
    },
    handover::Reports,
    lease::{LeaseState, Pool},
    model::{ActionKind, Timestamp},
    resolve::{HostResolver, Lookups, answers},
    telemetry::{Clock, Latency},
};

/// What is counted outside the deciding task.
pub(super) struct Gauges {
    pub(super) clock: Clock,
    pub(super) started: Timestamp,
    pub(super) pool: Pool,
    pub(super) lookups: Arc<Lookups<HostResolver>>,
    pub(super) saved: Arc<Latency>,
    pub(super) ring_to_dial: Arc<Latency>,
    pub(super) ring_to_intent: Arc<Latency>,
    pub(super) warming: Arc<Warming>,
    pub(super) uses: Arc<Uses>,
    pub(super) reports: Reports,
    pub(super) sources: SourceCounters,
    /// Why the connections of programs are not watched.
    pub(super) unwatched: Option<String>,
    /// Where answers are given by the kernel.
    pub(super) answers: Option<answers::Handle>,
}

impl Gauges {
    /// The page.
    pub(super) fn stats(&self, numbers: &Numbers) -> Stats {
        let both = |counter| numbers.ingress.get(counter) + numbers.egress.get(counter);
        let kinds = [ActionKind::Resolve, ActionKind::Lease, ActionKind::Warm].map(|kind| *numbers.policy.kind(kind));
        let [resolves, leases, warms] = kinds;
        let sum = |read: fn(&crate::policy::KindCounters) -> u64| kinds.iter().map(read).sum();
        let micros = std::time::Duration::from_micros(1);
        let millis = std::time::Duration::from_millis(1);
        let held = self.pool.leases();
        let pool = self.pool.counters();
        let uses = self.uses.counters();
        let travelled = self.warming.counters();
        let in_state = |state| held.iter().filter(|lease| lease.state == state).count() as u64;
        let reasons = Counter::ALL.iter().filter(|counter| counter.is_reason() || **counter == Counter::RingLost);
        let mut drops: BTreeMap<_, _> = reasons.map(|&counter| (counter.name().to_owned(), both(counter))).collect();
        drops.insert("garbled_record".to_owned(), numbers.garbled);
        drops.insert("intent_overflow".to_owned(), numbers.overflow);
        drops.insert("stranger".to_owned(), numbers.decider.strangers);
        drops.insert("passed_on".to_owned(), numbers.decider.forwarded + numbers.merge.passed_on);
        drops.insert("told_before".to_owned(), numbers.merge.folded);
        drops.insert("own_echo".to_owned(), numbers.decider.echoes);
        Stats {
            schema: STATS_SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.clock.now().since(self.started).as_secs_f64(),
            packets: PacketCounts { ingress: numbers.ingress.packets, egress: numbers.egress.packets },
            questions: both(Counter::Questions),
            answers: both(Counter::Answers),
            events: both(Counter::Events),
            drops,
            predictions: PredictionCounts {
                made: sum(|kind| kind.started),
                used: sum(|kind| kind.used),
                wasted: sum(|kind| kind.wasted),
                late: sum(|kind| kind.late),
                failed: sum(|kind| kind.failed),
                refused: sum(|kind| kind.refused),
                pending: numbers.pending,
            },
            names: NameCounts {
                known: numbers.known,
                warmed: resolves.started.saturating_sub(resolves.failed + resolves.refused),
                used: resolves.used,
                failed: self.lookups.counters().failed,
            },
            connects: ConnectCounts {
                watched: self.unwatched.is_none(),
                reason: self.unwatched.clone(),
                named: numbers.history.named_connects,
                blind: numbers.history.blind_connects,
                elsewhere: numbers.history.elsewhere_connects,
                own: numbers.sockops.dialled,
                lost: numbers.sockops.ring_lost,
            },
            sources: self.sources.read(),
            encrypted: EncryptedCounts {
                connections: numbers.history.encrypted_connects,
                ingress_connections: numbers.ingress.encrypted_tcp,
                egress_connections: numbers.egress.encrypted_tcp,
                ingress_packets: numbers.ingress.encrypted_udp,
                egress_packets: numbers.egress.encrypted_udp,
            },
            blind_share: percent(numbers.history.blind_connects, numbers.history.named_connects),
            leases: LeaseCounts {
                opened: pool.opened,
                dialling: in_state(LeaseState::Dialling),
                ready: in_state(LeaseState::Ready),
                taken: pool.taken,
                expired: pool.expired,
                dead: pool.dead,
                failed: pool.failed,
                refused: pool.refused,
                carried: uses.carried,
                empty: uses.empty,
                missed: leases.missed,
            },
            handover: self.reports.read(),
            warms: WarmCounts {
                sent: self.warming.sent.load(Ordering::Relaxed),
                used: warms.used,
                failed: self.warming.failed.load(Ordering::Relaxed),
                opened: travelled.opened,
                resumed: travelled.resumed,
                reused: travelled.reused,
                retried: travelled.retried,
                held: travelled.held,
            },
            saved_ms: self.saved.quantiles(millis).into(),
            ring_to_dial_us: self.ring_to_dial.quantiles(micros).into(),
            ring_to_intent_us: self.ring_to_intent.quantiles(micros).into(),
            memory_bytes: numbers.bytes,
            attachments: numbers.attachments.clone(),
            given: self.answers.as_ref().map(answers::Handle::numbers),
            health: health(numbers, &self.sources),
        }
    }
}

impl Gauges {
    /// The origins that programs were seen to connect to, with what the pool knows of these and others; those that
    /// something happened to last come first.
    pub(super) fn origins(&self, seen: Vec<OriginView>, limit: usize) -> Vec<OriginView> {
        let mut views: HashMap<String, OriginView> = seen.into_iter().map(|view| (view.origin.clone(), view)).collect();
        for pool in self.pool.origins() {
            let vain = pool.origin.parse().map(|origin| self.uses.vain(&origin)).unwrap_or_default();
            let view = views.entry(pool.origin.clone()).or_default();
            view.add(pool, vain.leases, vain.unsaved.as_secs_f64() * 1000.0);
        }
        let mut views: Vec<_> = views.into_values().collect();
        let age = |view: &OriginView| view.last_seen_seconds.unwrap_or(f64::INFINITY);
        views.sort_by(|one, other| age(one).total_cmp(&age(other)).then_with(|| one.origin.cmp(&other.origin)));
        views.truncate(limit);
        views
    }
}

/// The first in a hundred of both.
fn percent(part: u64, rest: u64) -> f64 {
    if part == 0 { 0.0 } else { part as f64 * 100.0 / (part + rest) as f64 }
}

/// What is not as it should be.
fn health(numbers: &Numbers, sources: &SourceCounters) -> Vec<String> {
    let mut complaints = Vec::new();
    let sources = sources.read();
    if numbers.attachments.is_empty() && sources.is_empty() {
        complaints.push("attached to no interface; `prewarm attach IF` attaches".to_owned());
    }
    let events = numbers.ingress.events + numbers.egress.events;
    let lost = numbers.ingress.ring_lost + numbers.egress.ring_lost;
    for (source, counts) in &sources {
        if counts.dropped * 100 > counts.questions + counts.answers {
            complaints.push(format!("{} of what {source} told were dropped for want of room", counts.dropped));
        }
    }
    // A burst may overrun the ring now and then; one event in a hundred is a reader that cannot keep up.
    if lost * 100 > events {
        complaints.push(format!("{lost} events were lost because the ring was full"));
    }
    complaints
}
