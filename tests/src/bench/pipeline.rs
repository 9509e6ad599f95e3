//! How many events a second the deciding side takes on one core: history, prediction and policy.
//!
//! Comes in: observations, generated (seeded) or from a channel. Goes out: events a second and intents made. Never
//! here: the kernel or a socket; the ring is measured by whoever feeds [`drive`] from it.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use prewarm_user::{
    config::{HistorySettings, PolicySettings, PredictSettings},
    decide::{Decider, Decisions},
    model::{Direction, Name, Observation, Outcome, ResourceId, Seen, Timestamp, Verdict},
};

use super::Row;

/// What was driven through the deciding side.
#[derive(Clone, Debug, Default)]
pub struct Driven {
    /// Observations taken in.
    pub events: u64,
    /// Intents made.
    pub intents: u64,
    /// Nanoseconds from the time an observation was seen to the time its intents were at hand; only where `now` is the
    /// clock the observations were seen on.
    pub latencies: Vec<u64>,
}

/// Drives observations, each with the time at which it is taken, through a decider; answers every intent so that none
/// stays open. `now` gives the time at which the intents of an observation are at hand.
pub fn drive(
    decider: &mut Decider,
    observations: impl IntoIterator<Item = (Timestamp, Observation)>,
    mut now: impl FnMut(Timestamp) -> Timestamp,
) -> Driven {
    let mut driven = Driven::default();
    let mut decisions = Decisions::default();
    for (at, observation) in observations {
        decider.observe(at, &observation, &mut decisions);
        let done = now(at);
        for intent in &decisions.intents {
            driven.latencies.push(done.since(intent.cause).as_nanos().try_into().unwrap_or(u64::MAX));
            decider.outcome(&Outcome {
                intent: intent.id,
                resource: intent.resource,
                kind: intent.action.kind(),
                at,
                verdict: Verdict::Used { saved: Duration::from_millis(40) },
            });
        }
        driven.events += 1;
        driven.intents += decisions.intents.len() as u64;
        decisions.clear();
        if driven.events.is_multiple_of(256) {
            decider.tick(at, &mut decisions);
            driven.intents += decisions.intents.len() as u64;
            decisions.clear();
        }
    }
    driven
}

/// A seeded stream of visits: clients load pages, each with followers of its own, some shared by all, a few names that
/// never come again; answers follow questions, and programs connect to some.
#[must_use]
pub fn visits(seed: u64, events: usize, gap: Duration) -> Vec<(Timestamp, Observation)> {
    let mut random = Random(seed);
    let mut known = vec![false; 1 << 20];
    let mut pages = vec![(0u32, 0u32); 200];
    let mut out = Vec::with_capacity(events + 2);
    let mut at = Timestamp::from_origin(Duration::from_secs(1));
    let mut fresh = 100_000u32;
    while out.len() < events {
        let client = random.below(pages.len() as u32);
        let (page, step) = &mut pages[client as usize];
        let number = if *step == 0 {
            // The square makes some pages far more popular than others.
            let popular = random.below(1000) as u64;
            *page = (popular * popular / 2000) as u32;
            *page * 16
        } else if random.below(20) == 0 {
            fresh = (fresh + 1) % (1 << 20);
            fresh.max(100_000)
        } else if random.below(4) == 0 {
            90_000 + random.below(50)
        } else {
            *page * 16 + *step
        };
        *step = (*step + 1) % (4 + *page % 8);
        at = at + gap;
        let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + client));
        let resource = ResourceId(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let first = !std::mem::replace(&mut known[number as usize], true);
        let name = first.then(|| format!("h{number}.example").parse::<Name>()).and_then(Result::ok);
        let destination = Ipv4Addr::from(0x0808_0000 + number);
        out.push((
            at,
            Observation {
                at,
                client: address,
                seen: Seen::Question { resource, name, qtype: 1, direction: Direction::Ingress, interface: 2 },
            },
        ));
        if random.below(2) == 0 {
            at = at + gap;
            let seen = Seen::Answer {
                resource,
                name: None,
                qtype: 1,
                rcode: 0,
                ttl: Duration::from_secs(60),
                addresses: vec![destination.into()],
                service_binding: false,
            };
            out.push((at, Observation { at, client: address, seen }));
        }
        if random.below(8) == 0 {
            at = at + gap;
            let seen = Seen::Connect { destination: (destination, 443).into(), leased: false };
            out.push((at, Observation { at, client: address, seen }));
        }
    }
    out
}

/// A decider as the daemon makes it.
#[must_use]
pub fn decider() -> Decider {
    Decider::new(
        &HistorySettings::default(),
        &PredictSettings::default(),
        &PolicySettings::default(),
        &[],
        Timestamp::ZERO,
    )
}

/// Measures: `steady` with 10,000 events a second of the stream's time, `burst` with a million.
#[must_use]
pub fn run() -> Vec<Row> {
    let mut rows = Vec::new();
    for (case, gap) in [("steady", Duration::from_micros(100)), ("burst", Duration::from_micros(1))] {
        let observations = visits(7, 300_000, gap);
        let mut decider = decider();
        let count = observations.len() as f64;
        let before = super::nanos();
        let driven = drive(&mut decider, observations, |at| at);
        let seconds = (super::nanos() - before) as f64 / 1e9;
        rows.push(Row::new(case, "decide-only", "events_per_second", count / seconds, "1/s"));
        rows.push(Row::new(case, "prewarm", "decide_intents", driven.intents as f64, ""));
        rows.push(Row::new(case, "prewarm", "decide_bytes", decider.bytes() as f64, "bytes"));
    }
    rows
}

/// A small generator of pseudo-random numbers (xorshift64*), so that a bench needs no crate for it.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * u64::from(limit)) >> 32) as u32
    }
}
