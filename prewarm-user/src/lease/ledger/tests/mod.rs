//! The ledger under scripted time: limits, renewal, back-off, who gets which lease, one outcome each.

use super::*;
use crate::lease::taker::Taker;

mod claims;
mod stock;
mod words;

const RTT: Duration = Duration::from_millis(40);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_origin(Duration::from_millis(ms))
}

fn ledger(change: impl FnOnce(&mut LeaseSettings)) -> Ledger<u32> {
    let mut settings = LeaseSettings::default();
    change(&mut settings);
    Ledger::new(&settings, usize::MAX)
}

fn order(name: &str, intent: u64, until: Timestamp) -> LeaseOrder {
    LeaseOrder {
        intent: Some((IntentId(intent), ResourceId(intent))),
        reason: Reason::predicted(IntentId(intent), 0.9),
        origin: format!("{name}:80").parse().unwrap(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        until,
    }
}

fn here() -> SocketAddr {
    "192.0.2.1:80".parse().unwrap()
}

fn to(destination: SocketAddr, connection: u32) -> Established<u32> {
    let local = Local { netns: 7, source: [192, 0, 2, 200].into(), mark: 0 };
    Established { destination, local, rtt: RTT, connection }
}

fn from(netns: Option<u64>) -> Taker {
    Taker { netns, ..Taker::default() }
}

fn verdicts(ledger: &mut Ledger<u32>) -> Vec<(u64, Verdict)> {
    std::mem::take(&mut ledger.outcomes).into_iter().map(|outcome| (outcome.intent.0, outcome.verdict)).collect()
}

/// Orders a lease and lets its dial succeed.
fn ready(ledger: &mut Ledger<u32>, name: &str, intent: u64, now: Timestamp, until: Timestamp) -> LeaseId {
    let start = ledger.order(order(name, intent, until), now).unwrap();
    assert_eq!(ledger.dialled(start.id, to(start.destinations[0], intent as u32), now), None);
    start.id
}

#[test]
fn a_lease_that_is_used() {
    let mut ledger = ledger(|_| {});
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    let given = ledger.take(here(), &from(Some(7)), at(100), |_| Ok(Heard::Silence)).unwrap();
    assert_eq!((given.connection, given.rtt, given.intent), (1, RTT, Some(IntentId(1))));
    assert_eq!(verdicts(&mut ledger), [], "nothing is decided before the program has it");
    ledger.settle(given.id, Fate::Used, at(101));
    ledger.settle(given.id, Fate::Used, at(102));
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Used { saved: RTT })]);
    assert!(ledger.take(here(), &from(Some(7)), at(103), |_| Ok(Heard::Silence)).is_none());
    assert_eq!(ledger.counters.taken, 1);
}

#[test]
fn a_lease_of_another_namespace_is_none() {
    let mut ledger = ledger(|_| {});
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    assert!(ledger.take(here(), &from(Some(8)), at(1), |_| Ok(Heard::Silence)).is_none());
    assert!(ledger.take(here(), &from(None), at(1), |_| Ok(Heard::Silence)).is_some());
}

#[test]
fn the_oldest_goes_first_and_the_dead_are_buried() {
    let mut ledger = ledger(|_| {});
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    ready(&mut ledger, "a.example", 2, at(1), at(9000));
    let given = ledger
        .take(
            here(),
            &from(None),
            at(5000),
            |&connection| if connection == 1 { Err(Death::Closed) } else { Ok(Heard::Silence) },
        )
        .unwrap();
    assert_eq!(given.connection, 2);
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Wasted)]);
    assert_eq!((ledger.counters.dead, ledger.counters.dead_closed), (1, 1));
    // What it was closed after is learnt.
    ready(&mut ledger, "a.example", 3, at(6000), at(99_000));
    assert_eq!(ledger.next_due(at(0)), Some(at(6000 + 2500)));
}

#[test]
fn late_is_decided_once() {
    let mut ledger = ledger(|_| {});
    let start = ledger.order(order("a.example", 1, at(9000)), at(0)).unwrap();
    assert!(ledger.is_late(here(), at(10)));
    assert!(ledger.is_late(here(), at(11)));
    assert!(!ledger.is_late("192.0.2.1:443".parse().unwrap(), at(11)));
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Late)]);
    ledger.dialled(start.id, to(here(), 1), at(40));
    let (closed, _) = ledger.expire(at(60_000), |_| Ok(Heard::Silence));
    assert_eq!(closed, [1]);
    assert_eq!(verdicts(&mut ledger), []);
}

#[test]
fn limits_refuse() {
    let mut ledger = ledger(|settings| {
        settings.total = 3;
        settings.per_origin = 1;
        settings.per_address = 2;
    });
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    assert_eq!(ledger.order(order("a.example", 2, at(9000)), at(0)), None, "one to an origin");
    ready(&mut ledger, "b.example", 3, at(0), at(9000));
    assert_eq!(ledger.order(order("c.example", 4, at(9000)), at(0)), None, "two to an address");
    let mut elsewhere = order("c.example", 5, at(9000));
    elsewhere.addresses.push("192.0.2.2".parse().unwrap());
    let start = ledger.order(elsewhere, at(0)).unwrap();
    assert_eq!(start.destinations, ["192.0.2.2:80".parse().unwrap()], "the address with room");
    let mut fourth = order("d.example", 6, at(9000));
    fourth.addresses = vec!["192.0.2.9".parse().unwrap()];
    assert_eq!(ledger.order(fourth, at(0)), None, "three in all");
    assert_eq!(verdicts(&mut ledger).iter().filter(|(_, verdict)| *verdict == Verdict::Refused).count(), 3);
    assert_eq!((ledger.counters.refused, ledger.counters.refused_limit), (3, 3));
}

#[test]
fn dials_are_paced() {
    let mut ledger = ledger(|settings| {
        settings.dial_burst = 2;
        settings.dials_per_second = 1.0;
        settings.per_address = 99;
    });
    let started = (0..5)
        .filter(|&number| ledger.order(order(&format!("a{number}.example"), number, at(9000)), at(1000)).is_some());
    assert_eq!(started.count(), 2);
    assert_eq!(ledger.counters.refused_pace, 3);
}

#[test]
fn failures_pause_an_origin_and_one_trial_follows() {
    let mut ledger = ledger(|_| {});
    let start = ledger.order(order("a.example", 1, at(9000)), at(0)).unwrap();
    ledger.failed(start.id, Failure::Unreachable, at(10));
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Failed)]);
    assert_eq!(ledger.order(order("a.example", 2, at(9000)), at(1009)), None);
    assert!(ledger.order(order("b.example", 3, at(9000)), at(1009)).is_some(), "others are not paused");
    let trial = ledger.order(order("a.example", 4, at(9000)), at(1010)).unwrap();
    assert_eq!(ledger.order(order("a.example", 5, at(9000)), at(1011)), None, "one at a time");
    assert_eq!(ledger.counters.refused_backoff, 2);
    ledger.dialled(trial.id, to(here(), 4), at(1050));
    assert!(ledger.order(order("a.example", 6, at(9000)), at(1051)).is_some());
}

#[test]
fn an_unused_lease_expires_or_is_renewed() {
    let mut ledger = ledger(|_| {});
    ready(&mut ledger, "a.example", 1, at(0), at(5000));
    assert_eq!(ledger.next_due(at(0)), Some(at(5000)), "its use ends before its idle time");
    assert_eq!(ledger.expire(at(4999), |_| Ok(Heard::Silence)), (vec![], vec![]));
    assert_eq!(ledger.expire(at(5000), |_| Ok(Heard::Silence)), (vec![1], vec![]));
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Wasted)]);

    ready(&mut ledger, "a.example", 2, at(6000), at(60_000));
    let (closed, starts) = ledger.expire(at(28_000), |_| Ok(Heard::Silence));
    assert_eq!((closed, starts.len()), (vec![2], 1), "still expected: dialled again");
    assert_eq!(verdicts(&mut ledger), []);
    ledger.dialled(starts[0].id, to(here(), 22), at(28_040));
    let given = ledger.take(here(), &from(None), at(30_000), |_| Ok(Heard::Silence)).unwrap();
    assert_eq!(given.intent, Some(IntentId(2)));
    assert_eq!((ledger.counters.expired, ledger.counters.renewed), (1, 1));
}

#[test]
fn what_is_wanted_is_replaced() {
    let mut ledger = ledger(|_| {});
    let origin: Origin = "a.example:80".parse().unwrap();
    ledger.want(origin.clone(), vec!["192.0.2.1".parse().unwrap()], at(60_000), 2, at(0));
    assert!(ledger.is_short(at(60_000)));
    let starts = ledger.replenish(at(0));
    assert_eq!(starts.len(), 2);
    assert_eq!(ledger.replenish(at(0)), []);
    for start in &starts {
        ledger.dialled(start.id, to(here(), 1), at(40));
    }
    let given = ledger.take(here(), &from(None), at(50), |_| Ok(Heard::Silence)).unwrap();
    ledger.settle(given.id, Fate::Used, at(50));
    assert_eq!(ledger.replenish(at(51)).len(), 1);
    assert_eq!(ledger.replenish(at(60_000)), [], "the deadline has passed");
    ledger.want(origin, vec![], at(90_000), 0, at(60_000));
    assert!(!ledger.is_short(at(60_000)));
}

#[test]
fn unfit_leases_come_back_and_lost_ones_are_wasted() {
    let mut ledger = ledger(|_| {});
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    let given = ledger.take(here(), &from(None), at(1), |_| Ok(Heard::Silence)).unwrap();
    ledger.settle(given.id, Fate::Unfit(given.connection), at(2));
    let again = ledger.take(here(), &from(None), at(3), |_| Ok(Heard::Silence)).unwrap();
    assert_eq!(again.connection, 1);
    assert_eq!(verdicts(&mut ledger), []);
    ledger.settle(again.id, Fate::Lost, at(4));
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Wasted)]);
    assert_eq!((ledger.counters.given_back, ledger.counters.lost, ledger.counters.taken), (1, 1, 0));
}

#[test]
fn draining_lets_everything_go() {
    let mut ledger = ledger(|_| {});
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    let dial = ledger.order(order("a.example", 2, at(9000)), at(0)).unwrap();
    assert_eq!(ledger.drain(at(1)), [1]);
    assert_eq!(verdicts(&mut ledger).len(), 2);
    assert_eq!(ledger.order(order("b.example", 3, at(9000)), at(2)), None);
    assert_eq!(ledger.dialled(dial.id, to(here(), 9), at(3)), Some(9), "comes back to be closed");
    assert_eq!((ledger.counters.drained, ledger.counters.refused_draining), (2, 1));
    assert_eq!(ledger.view(at(4)), []);
}

#[test]
fn a_guard_refuses_and_a_reset_pauses() {
    let mut ledger = ledger(|_| {});
    let start = ledger.order(order("a.example", 1, at(9000)), at(0)).unwrap();
    ledger.failed(start.id, Failure::Guarded, at(1));
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Refused)]);
    let id = ready(&mut ledger, "a.example", 2, at(2), at(9000));
    assert_eq!(ledger.died(id, Death::Reset, at(3)), Some(2));
    assert_eq!(ledger.order(order("a.example", 3, at(9000)), at(4)), None, "it does not want idle connections");
}

#[test]
fn marks_say_where_leases_lead_and_nothing_else() {
    let mut ledger = ledger(|_| {});
    let mut count = 0;
    let mut there = |ledger: &mut Ledger<u32>| {
        for (destination, more) in std::mem::take(&mut ledger.marks) {
            assert_eq!(destination, here());
            count += if more { 1 } else { -1 };
        }
        count
    };
    let first = ledger.order(order("a.example", 1, at(9000)), at(0)).unwrap();
    let second = ledger.order(order("a.example", 2, at(9000)), at(0)).unwrap();
    assert_eq!(there(&mut ledger), 2, "dials count");
    ledger.dialled(first.id, to(here(), 1), at(1));
    assert_eq!(there(&mut ledger), 2);
    ledger.failed(second.id, Failure::Unreachable, at(1));
    assert_eq!(there(&mut ledger), 1);
    let given = ledger.take(here(), &from(None), at(2), |_| Ok(Heard::Silence)).unwrap();
    assert_eq!(there(&mut ledger), 0);
    ledger.settle(given.id, Fate::Unfit(1), at(3));
    assert_eq!(there(&mut ledger), 1);
    ledger.drain(at(4));
    assert_eq!(there(&mut ledger), 0);
}

mod properties {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    /// What may happen to a pool, in any order.
    #[derive(Clone, Debug)]
    enum Step {
        Order { origin: u8, address: u8, lives: u64 },
        Want { origin: u8, count: u32 },
        Dialled(usize),
        Failed(usize, bool),
        Take { address: u8, dead: bool },
        Settle(usize, u8),
        Died(usize, u8),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_u8, 0..3_u8, 0..60_000_u64)
                .prop_map(|(origin, address, lives)| Step::Order { origin, address, lives }),
            1 => (0..4_u8, 0..3_u32).prop_map(|(origin, count)| Step::Want { origin, count }),
            4 => any::<usize>().prop_map(Step::Dialled),
            1 => (any::<usize>(), any::<bool>()).prop_map(|(which, guarded)| Step::Failed(which, guarded)),
            3 => (0..3_u8, any::<bool>()).prop_map(|(address, dead)| Step::Take { address, dead }),
            2 => (any::<usize>(), 0..3_u8).prop_map(|(which, how)| Step::Settle(which, how)),
            1 => (any::<usize>(), 0..4_u8).prop_map(|(which, how)| Step::Died(which, how)),
            2 => (0..30_000_u64).prop_map(Step::Pass),
        ]
    }

    fn origin(number: u8) -> Origin {
        format!("o{number}.example:80").parse().unwrap()
    }

    fn pick<T: Clone>(from: &[T], which: usize) -> Option<T> {
        from.get(which % from.len().max(1)).cloned()
    }

    proptest! {
        #[test]
        fn every_intent_has_one_outcome_and_no_limit_is_passed(steps in prop::collection::vec(step(), 1..200)) {
            let (total, per_origin) = (5, 2);
            let mut ledger = ledger(|settings| {
                settings.total = total;
                settings.per_origin = per_origin;
                settings.dial_burst = 1000;
            });
            let mut now = at(1);
            let (mut intents, mut connections) = (0_u64, 0_u32);
            let mut dials: Vec<Start> = Vec::new();
            let mut given: Vec<(LeaseId, u32)> = Vec::new();
            let mut outcomes: HashMap<u64, u32> = HashMap::new();
            let mut marks: HashMap<SocketAddr, i64> = HashMap::new();
            let mut open: HashSet<u32> = HashSet::new();
            for step in steps {
                match step {
                    Step::Order { origin: number, address, lives } => {
                        intents += 1;
                        let order = LeaseOrder {
                            origin: origin(number),
                            addresses: vec![[192, 0, 2, address].into()],
                            ..order("x.example", intents, now + Duration::from_millis(lives))
                        };
                        dials.extend(ledger.order(order, now));
                    }
                    Step::Want { origin: number, count } => {
                        let until = now + Duration::from_secs(30);
                        ledger.want(origin(number), vec![[192, 0, 2, 9].into()], until, count, now);
                        dials.extend(ledger.replenish(now));
                    }
                    Step::Dialled(which) => if let Some(start) = pick(&dials, which) {
                        dials.retain(|other| other.id != start.id);
                        connections += 1;
                        open.insert(connections);
                        let refused = ledger.dialled(start.id, to(start.destinations[0], connections), now);
                        prop_assert_eq!(refused, None);
                    },
                    Step::Failed(which, guarded) => if let Some(start) = pick(&dials, which) {
                        dials.retain(|other| other.id != start.id);
                        let failure = if guarded { Failure::Guarded } else { Failure::Unreachable };
                        ledger.failed(start.id, failure, now);
                    },
                    Step::Take { address, dead } => {
                        let destination = SocketAddr::new([192, 0, 2, address].into(), 80);
                        let mut buried = Vec::new();
                        let taken = ledger.take(destination, &from(Some(7)), now, |&connection| {
                            if dead { buried.push(connection); Err(Death::Spoke) } else { Ok(Heard::Silence) }
                        });
                        for connection in buried { prop_assert!(open.remove(&connection)); }
                        match taken {
                            Some(taken) => given.push((taken.id, taken.connection)),
                            None => drop(ledger.is_late(destination, now)),
                        }
                    }
                    Step::Settle(which, how) => if let Some((id, connection)) = pick(&given, which) {
                        given.retain(|(other, _)| *other != id);
                        let fate = match how {
                            0 => Fate::Used,
                            1 => Fate::Unfit(connection),
                            _ => Fate::Lost,
                        };
                        if how != 1 { open.remove(&connection); }
                        ledger.settle(id, fate, now);
                    },
                    Step::Died(which, how) => {
                        let ids: Vec<LeaseId> = ledger.ready.keys().copied().collect();
                        if let Some(id) = pick(&ids, which) {
                            let deaths = [Death::Closed, Death::Reset, Death::Spoke, Death::Unanswered];
                            let connection = ledger.died(id, deaths[usize::from(how)], now).unwrap();
                            prop_assert!(open.remove(&connection));
                        }
                    }
                    Step::Pass(ms) => {
                        now = now + Duration::from_millis(ms);
                        let (closed, starts) = ledger.expire(now, |_| Ok(Heard::Silence));
                        for connection in closed { prop_assert!(open.remove(&connection), "closed once"); }
                        dials.extend(starts);
                        dials.extend(ledger.replenish(now));
                    }
                }
                prop_assert!(ledger.dials.len() + ledger.ready.len() + ledger.handed.len() <= total as usize);
                let mut counted = Tally::default();
                for dial in ledger.dials.values() { counted.add(&dial.order.origin, dial.destinations.first().copied()); }
                for ready in ledger.ready.values() { counted.add(&ready.order.origin, Some(ready.destination)); }
                for handed in ledger.handed.values() { counted.add(&handed.order.origin, Some(handed.destination)); }
                prop_assert_eq!(&ledger.tally, &counted);
                for number in 0..4 { prop_assert!(ledger.open_to(&origin(number)) <= per_origin as usize); }
                for outcome in ledger.outcomes.drain(..) { *outcomes.entry(outcome.intent.0).or_default() += 1; }
                for (destination, more) in ledger.marks.drain(..) {
                    *marks.entry(destination).or_default() += if more { 1 } else { -1 };
                }
                prop_assert!(marks.values().all(|&count| count >= 0));
                for ready in ledger.ready.values() {
                    prop_assert!(marks[&ready.destination] > 0, "a lease that nobody would ask for");
                }
            }
            for (id, _) in given { ledger.settle(id, Fate::Lost, now); }
            ledger.drain(now);
            for outcome in ledger.outcomes.drain(..) { *outcomes.entry(outcome.intent.0).or_default() += 1; }
            for (destination, more) in ledger.marks.drain(..) {
                *marks.entry(destination).or_default() += if more { 1 } else { -1 };
            }
            prop_assert!(marks.values().all(|&count| count == 0));
            for intent in 1..=intents {
                prop_assert_eq!(outcomes.get(&intent), Some(&1), "intent {}", intent);
            }
        }
    }
}
