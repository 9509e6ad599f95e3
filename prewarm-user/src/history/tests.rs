//! The history against what it promises.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::model::Name;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_origin(Duration::from_millis(ms))
}

fn client(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + n).into()
}

fn name(n: u64) -> Name {
    format!("n{n}.example").parse().unwrap()
}

fn question(ms: u64, who: u32, n: u64) -> Observation {
    Observation {
        at: at(ms),
        client: client(who),
        seen: Seen::Question {
            resource: ResourceId(n),
            name: Some(name(n)),
            qtype: 1,
            direction: Direction::Ingress,
            interface: 2,
        },
    }
}

fn answer(ms: u64, who: u32, n: u64, rcode: u8, ttl: u64, addresses: &[IpAddr]) -> Observation {
    Observation {
        at: at(ms),
        client: client(who),
        seen: Seen::Answer {
            resource: ResourceId(n),
            name: None,
            qtype: 1,
            rcode,
            ttl: Duration::from_secs(ttl),
            addresses: addresses.to_vec(),
            service_binding: false,
        },
    }
}

fn connect(ms: u64, who: u32, to: IpAddr, port: u16) -> Observation {
    Observation {
        at: at(ms),
        client: client(who),
        seen: Seen::Connect { destination: (to, port).into(), leased: false },
    }
}

fn connection(ms: u64, to: (IpAddr, u16), namespace: u64, phase: Phase) -> Observation {
    let connection = Connection { socket: 7, namespace, destination: to.into(), phase };
    Observation { at: at(ms), client: client(1), seen: Seen::Connection(connection) }
}

const TRIP: Duration = Duration::from_millis(40);
const PROGRAMS: Phase = Phase::Established { round_trip: Some(TRIP), own: false };

fn small(names: u32) -> History {
    History::new(&HistorySettings { names, clients: 8, ..Default::default() })
}

#[test]
fn a_port_goes_to_the_name_this_client_asked_for_last() {
    let mut history = small(64);
    let mut changes = Vec::new();
    let shared: IpAddr = [203, 0, 113, 1].into();
    for (ms, who, n) in [(0, 1, 1), (10, 2, 2)] {
        history.observe(&question(ms, who, n), &mut changes);
        let access = history.observe(&answer(ms + 5, who, n, 0, 60, &[shared]), &mut changes);
        assert_eq!(access, Access::Answered { resource: ResourceId(n), after: Some(Duration::from_millis(5)) });
    }
    let access = history.observe(&connect(20, 1, shared, 443), &mut changes);
    assert_eq!(access, Access::Connected { resource: ResourceId(1), port: 443, leased: false, unasked: false });
    let access = history.observe(&connect(20, 3, shared, 8080), &mut changes);
    assert_eq!(
        access,
        Access::Connected { resource: ResourceId(2), port: 8080, leased: false, unasked: false },
        "the latest of all"
    );
    assert_eq!(history.get(ResourceId(1)).unwrap().ports, [PortCount { port: 443, count: 1 }]);
    assert_eq!(changes, [Learned::New(ResourceId(1)), Learned::New(ResourceId(2))]);
    let mapped: IpAddr = Ipv4Addr::new(203, 0, 113, 1).to_ipv6_mapped().into();
    assert!(matches!(history.observe(&connect(21, 1, mapped, 443), &mut changes), Access::Connected { .. }));
}

#[test]
fn addresses_follow_the_answers() {
    let mut history = small(64);
    let mut changes = Vec::new();
    let (old, new): (IpAddr, IpAddr) = ([203, 0, 113, 1].into(), [203, 0, 113, 2].into());
    let six: IpAddr = "2001:db8::1".parse().unwrap();
    history.observe(&question(0, 1, 1), &mut changes);
    history.observe(&answer(1, 1, 1, 0, 60, &[old]), &mut changes);
    history.observe(&answer(2, 1, 1, 0, 60, &[six]), &mut changes);
    history.observe(&answer(3, 1, 1, 0, 60, &[]), &mut changes);
    assert_eq!(history.get(ResourceId(1)).unwrap().addresses, [old, six]);
    history.observe(&answer(4, 1, 1, 0, 60, &[new]), &mut changes);
    assert_eq!(history.get(ResourceId(1)).unwrap().addresses, [six, new]);
    assert_eq!(history.observe(&connect(5, 1, old, 443), &mut changes), Access::Nameless);
    history.observe(&answer(6, 1, 1, 2, 60, &[]), &mut changes);
    assert!(history.get(ResourceId(1)).unwrap().is_reachable(), "one type failed, the address stands");
    history.observe(&answer(6, 1, 1, 3, 60, &[]), &mut changes);
    assert!(history.get(ResourceId(1)).unwrap().is_nxdomain());
    assert_eq!(history.observe(&connect(7, 1, new, 443), &mut changes), Access::Nameless);
    let counters = history.counters();
    assert_eq!((counters.blind_connects, counters.named_connects), (2, 0));
}

#[test]
fn an_address_outlives_its_ttl_for_a_while() {
    let mut history = small(64);
    let mut changes = Vec::new();
    let address: IpAddr = [203, 0, 113, 1].into();
    history.observe(&question(0, 1, 1), &mut changes);
    history.observe(&answer(0, 1, 1, 0, 60, &[address]), &mut changes);
    assert!(history.name_behind(at(600_000), client(1), address).is_some());
    assert!(history.name_behind(at(661_000), client(1), address).is_none());
}

#[test]
fn a_forwarded_question_is_one_access() {
    let mut history = small(64);
    let mut changes = Vec::new();
    history.observe(&question(0, 1, 1), &mut changes);
    let mut upstream = question(2, 9, 1);
    if let Seen::Question { direction, .. } = &mut upstream.seen {
        *direction = Direction::Egress;
    }
    let access = history.observe(&upstream, &mut changes);
    assert_eq!(access, Access::Asked { resource: ResourceId(1), forwarded: true });
    assert_eq!(history.get(ResourceId(1)).unwrap().count, 1);
    upstream.at = at(10_000);
    let access = history.observe(&upstream, &mut changes);
    assert_eq!(access, Access::Asked { resource: ResourceId(1), forwarded: false });
}

#[test]
fn a_connection_without_a_question_is_an_access() {
    let mut history = small(64);
    let mut changes = Vec::new();
    let address: IpAddr = [203, 0, 113, 1].into();
    history.observe(&question(0, 1, 1), &mut changes);
    history.observe(&answer(1, 1, 1, 0, 60, &[address]), &mut changes);
    for (ms, expected) in [(100, false), (4000, false), (6000, true), (6100, false), (12_000, true)] {
        let access = history.observe(&connect(ms, 1, address, 443), &mut changes);
        assert!(matches!(access, Access::Connected { unasked, .. } if unasked == expected), "{ms}: {access:?}");
    }
    assert_eq!(history.get(ResourceId(1)).unwrap().count, 3);
}

#[test]
fn a_flood_of_names_pushes_out_nothing_useful() {
    let mut history = small(1024);
    let mut changes = Vec::new();
    let useful = 500;
    for round in 0..5 {
        for n in 0..useful {
            history.observe(&question(round * 1000 + n, 1, n), &mut changes);
        }
    }
    let mut ms = 10_000;
    for n in 1_000_000..1_100_000 {
        ms += 1;
        history.observe(&question(ms, 2, n), &mut changes);
        // The useful names are still asked for, ten times less often than the strangers.
        if n % 10 == 0 {
            history.observe(&question(ms, 1, n / 10 % useful), &mut changes);
        }
    }
    let kept = (0..useful).filter(|&n| history.get(ResourceId(n)).is_some()).count();
    assert!(kept >= 495, "{kept} of {useful} kept");
    assert!(history.bytes() < 1024 * 1024, "{} bytes", history.bytes());
    // A newcomer that is asked for again and again gets in.
    for _ in 0..5 {
        history.observe(&question(ms, 3, 77_777), &mut changes);
    }
    assert!(history.get(ResourceId(77_777)).is_some());
}

#[test]
fn idle_names_and_silent_clients_are_forgotten() {
    let mut history = History::new(&HistorySettings { names: 64, name_idle_hours: 1, ..Default::default() });
    let mut changes = Vec::new();
    history.observe(&question(0, 1, 1), &mut changes);
    history.tick(at(3_000_000), &mut changes);
    assert_eq!((history.len(), history.clients().len()), (1, 0));
    history.tick(at(3_700_000), &mut changes);
    assert!(history.is_empty());
    assert_eq!(changes.last(), Some(&Learned::Forgotten(ResourceId(1))));
}

#[test]
fn a_session_ends_with_silence() {
    let mut history = small(64);
    let mut changes = Vec::new();
    for ms in [0, 1000, 61_000, 200_000] {
        history.observe(&question(ms, 1, ms), &mut changes);
    }
    let recent: Vec<_> = history.clients().recent(client(1)).map(|(_, r)| r.0).collect();
    assert_eq!(recent, [200_000]);
    for who in 2..20 {
        history.observe(&question(200_001, who, 5), &mut changes);
    }
    assert_eq!(history.clients().len(), 8);
    assert_eq!(history.clients().recent(client(1)).count(), 0, "silent for longest");
}

#[test]
fn connections_that_the_kernel_tells_of_teach_ports_and_round_trips() {
    let mut history = small(64);
    history.set_namespaces(vec![1]);
    let mut changes = Vec::new();
    let site: IpAddr = [203, 0, 113, 1].into();
    history.observe(&question(0, 1, 1), &mut changes);
    history.observe(&answer(1, 1, 1, 0, 60, &[site]), &mut changes);
    let access = history.observe(&connection(41, (site, 443), 1, PROGRAMS), &mut changes);
    let resource = ResourceId(1);
    assert_eq!(access, Access::Connected { resource, port: 443, leased: false, unasked: false });
    let closed = Phase::Closed { round_trip: TRIP, carried: true, sent: 10, received: 20 };
    assert_eq!(history.observe(&connection(1041, (site, 443), 1, closed), &mut changes), Access::Nothing);
    let known = *history.origin(resource, 443).unwrap();
    assert_eq!((known.connected, known.closed, known.waited), (1, 1, TRIP));
    assert_eq!(known.lifetime, Some(Duration::from_secs(1)));
    assert_eq!(history.get(resource).unwrap().ports, [PortCount { port: 443, count: 1 }]);
    // The daemon's own dial teaches a round trip, and is no access.
    let own = Phase::Established { round_trip: Some(TRIP), own: true };
    let access = history.observe(&connection(1100, (site, 8443), 1, own), &mut changes);
    assert_eq!(access, Access::Dialled { resource, port: 8443 });
    assert_eq!(history.origin(resource, 8443).unwrap().connected, 0);
    assert_eq!(history.counters().named_connects, 1);
}

#[test]
fn connections_that_are_nobodys_access_change_nothing() {
    let mut history = small(64);
    history.set_namespaces(vec![1]);
    let mut changes = Vec::new();
    let site: IpAddr = [203, 0, 113, 1].into();
    assert_eq!(history.observe(&connection(0, (site, 443), 1, PROGRAMS), &mut changes), Access::Nameless);
    assert_eq!(history.observe(&connection(0, (site, 443), 2, PROGRAMS), &mut changes), Access::Nothing);
    assert_eq!(history.observe(&connection(0, (site, 53), 1, PROGRAMS), &mut changes), Access::Nothing);
    let counters = history.counters();
    assert_eq!((counters.blind_connects, counters.elsewhere_connects, counters.named_connects), (1, 1, 0));
    assert_eq!(history.origins().count(), 0);
}

proptest! {
    /// Whatever happens, in whatever order of time: what `Learned` says is what the table holds, and all is bounded.
    #[test]
    fn changes_tell_the_truth(events in prop::collection::vec((0u64..400_000, 0u32..20, 0u64..300, 0u8..4), 1..600)) {
        let mut history = small(64);
        let mut mirror = std::collections::HashSet::new();
        let mut changes = Vec::new();
        for (ms, who, n, what) in events {
            let address: IpAddr = Ipv4Addr::from(0xcb00_7100 + (n % 50) as u32).into();
            match what {
                0 | 1 => { history.observe(&question(ms, who, n), &mut changes); }
                2 => { history.observe(&answer(ms, who, n, (n % 4) as u8, ms % 100, &[address]), &mut changes); }
                _ => { history.observe(&connect(ms, who, address, (n % 9) as u16), &mut changes); }
            }
            history.tick(at(ms), &mut changes);
            for change in changes.drain(..) {
                match change {
                    Learned::New(resource) => prop_assert!(mirror.insert(resource)),
                    Learned::Forgotten(resource) => prop_assert!(mirror.remove(&resource)),
                }
            }
            prop_assert_eq!(history.len(), mirror.len());
            prop_assert!(mirror.iter().all(|r| history.get(*r).is_some()));
            prop_assert!(history.len() <= 64 && history.clients().len() <= 8);
            if let Some(resource) = history.name_behind(at(ms), client(who), address) {
                prop_assert!(history.get(resource).unwrap().addresses.contains(&address), "{}", resource);
            }
        }
        let counters = history.counters();
        prop_assert_eq!(counters.learned - counters.forgotten, history.len() as u64);
    }
}
