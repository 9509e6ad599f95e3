//! Replays small enough to be computed by hand.

use super::*;
use crate::{
    model::{Prediction, Timing},
    predict::Scripted,
    replay::{Leases, LookUps},
};

const A: ResourceId = ResourceId(1 << 40);
const B: ResourceId = ResourceId(2 << 40);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
const CAPTURE: Shows = Shows { answers: true, ttls: true, connections: true };
const TRACE: Shows = Shows { answers: false, ttls: false, connections: false };

fn name(resource: ResourceId) -> Name {
    (if resource == A { "a.example.org" } else { "b.example.org" }).parse().unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

fn address(resource: ResourceId) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(93, 184, 216, if resource == A { 7 } else { 8 }))
}

fn question(millis: u64, resource: ResourceId) -> Observation {
    let direction = crate::model::Direction::Ingress;
    let seen = Seen::Question { resource, name: Some(name(resource)), qtype: 1, direction, interface: 0 };
    Observation { at: at(millis), client: CLIENT, seen }
}

fn answer(millis: u64, resource: ResourceId, ttl: u64) -> Observation {
    let (ttl, addresses) = (Duration::from_secs(ttl), vec![address(resource)]);
    let name = Some(name(resource));
    let seen = Seen::Answer { resource, name, qtype: 1, rcode: 0, ttl, addresses, service_binding: false };
    Observation { at: at(millis), client: CLIENT, seen }
}

fn connects(millis: u64, resource: ResourceId, took: u64) -> Observation {
    let phase = Phase::Established { round_trip: Some(Duration::from_millis(took)), own: false };
    let destination = SocketAddr::new(address(resource), 443);
    let connection = Connection { socket: millis, namespace: 0, destination, phase };
    Observation { at: at(millis), client: CLIENT, seen: Seen::Connection(connection) }
}

/// Behind A comes B, within two seconds, nearly always.
fn player(port: Option<u16>) -> Player {
    let mut predictor = Scripted::default();
    let prediction = Prediction {
        resource: B,
        probability: 0.9,
        worth: 0.9,
        earliest_in: Duration::from_millis(500),
        expected_in: Duration::from_secs(1),
        latest_in: Duration::from_secs(2),
        timing: Timing::at(1.0),
    };
    predictor.say(A, vec![prediction]);
    let (look_up, round_trip) = (Duration::from_millis(40), Duration::from_millis(30));
    let assumed = Assumed { look_up, round_trip, ttl: Duration::from_secs(60), port };
    Player::with_predictor(&Config::default(), assumed, Box::new(predictor))
}

fn play(mut player: Player, shows: Shows, observations: &[Observation]) -> Tally {
    for observation in observations {
        player.play(observation.clone(), shows);
    }
    player.finish()
}

fn close(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-6, "{value} instead of {expected}");
}

#[test]
fn three_visits_by_hand() {
    let mut observations = Vec::new();
    // Every 100 s: A answered in 40 ms, and twice B a second later, answered in 50 ms, connected to in 30 ms.
    for (visit, with_b) in [(1000, true), (1100, true), (1200, false)] {
        let start = visit * 1000;
        observations.extend([question(start, A), answer(start + 40, A, 60)]);
        if with_b {
            let then = start + 1000;
            observations.extend([question(then, B), answer(then + 50, B, 60), connects(then + 50, B, 30)]);
        }
    }
    let tally = play(player(None), CAPTURE, &observations);
    // Nothing is known of B at the first visit. At the second its name and a connection are ready; at the third they are
    // made ready for nothing.
    assert_eq!((tally.accesses, tally.misses_cold, tally.misses_warm), (5, 5, 4));
    close(tally.names_waited.cold, 40.0 + 50.0 + 40.0 + 50.0 + 40.0);
    close(tally.names_waited.warm, 40.0 + 50.0 + 40.0 + 40.0);
    assert_eq!(tally.leasable, 2);
    close(tally.connections_waited.cold, 60.0);
    close(tally.connections_waited.warm, 30.0);
    close(tally.saved(), 80.0);
    assert_eq!(tally.look_ups, LookUps { made: 2, used: 1, used_10: 1, used_60: 1, late: 0 });
    assert_eq!(tally.leases, Leases { opened: 2, used: 1, late: 0 });
    assert_eq!((tally.look_ups.in_vain(), tally.leases.in_vain()), (1, 1));
    let best = tally.best(5);
    assert_eq!(best.len(), 1);
    assert_eq!((best[0].name.clone(), best[0].accesses, best[0].misses), (name(B), 2, [2, 1]));
    close(best[0].look_ups_ms, 50.0);
    close(best[0].leases_ms, 30.0);
    let traffic = &tally.traffic;
    assert_eq!((traffic.questions, traffic.answers, traffic.connections, traffic.nameless), (5, 5, 2, 0));
    assert_eq!((traffic.clients(), traffic.names(), traffic.span()), (1, 2, Duration::from_millis(200_040)));
}

#[test]
fn what_comes_too_soon_waits_for_the_rest() {
    // B comes 10 ms behind A, while it is being looked up, which takes 40 ms; 30 ms of them are left.
    let visit = |start: u64| [question(start, A), question(start + 10, B)];
    let observations: Vec<_> = [1_000_000, 1_100_000].into_iter().flat_map(visit).collect();
    let tally = play(player(None), TRACE, &observations);
    assert_eq!((tally.misses_cold, tally.misses_warm), (4, 4));
    close(tally.names_waited.cold, 160.0);
    close(tally.names_waited.warm, 150.0);
    assert_eq!((tally.look_ups.made, tally.look_ups.used, tally.look_ups.late), (1, 0, 1));
}

#[test]
fn a_recording_without_connections_can_be_taken_to_have_them() {
    let visit = |start: u64| [question(start, A), question(start + 1000, B)];
    let observations: Vec<_> = [1_000_000, 1_100_000].into_iter().flat_map(visit).collect();
    let tally = play(player(Some(443)), TRACE, &observations);
    // Behind each question one, in 30 ms; that to B at the second visit is open already.
    assert_eq!((tally.leasable, tally.leases.opened, tally.leases.used), (4, 1, 1));
    close(tally.connections_waited.cold, 120.0);
    close(tally.connections_waited.warm, 90.0);
    assert_eq!(tally.accesses, 4, "a connection behind a question is no access of its own");
    assert_eq!(play(player(None), TRACE, &observations).leasable, 0);
}

#[test]
fn questions_fold_as_in_the_kernel() {
    let mut six = question(1_000_020, A);
    let Seen::Question { qtype, .. } = &mut six.seen else { unreachable!("it is one") };
    *qtype = 28;
    let observations = [question(1_000_000, A), six, question(1_000_900, A), question(1_001_001, A)];
    let tally = play(player(None), TRACE, &observations);
    assert_eq!((tally.traffic.questions, tally.traffic.folded, tally.accesses), (4, 2, 2));
    assert_eq!(tally.misses_cold, 1, "its answer is kept for a minute");
}

#[test]
fn other_addresses_than_the_leased_one_are_connected_to_anew() {
    let mut observations = Vec::new();
    for visit in [1000, 1100] {
        let start = visit * 1000;
        observations.extend([question(start, A), answer(start + 40, A, 60)]);
        observations.extend([question(start + 1000, B), answer(start + 1050, B, 60), connects(start + 1050, B, 30)]);
    }
    // The second time, B has moved.
    let moved = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 99));
    let last = observations.len() - 2;
    let Seen::Answer { addresses, .. } = &mut observations[last].seen else { unreachable!("it is one") };
    *addresses = vec![moved];
    let Seen::Connection(connection) = &mut observations[last + 1].seen else { unreachable!("it is one") };
    connection.destination = SocketAddr::new(moved, 443);
    let tally = play(player(None), CAPTURE, &observations);
    assert_eq!((tally.leasable, tally.leases.opened, tally.leases.used), (2, 1, 0));
    close(tally.connections_waited.saved(), 0.0);
}

#[test]
fn names_of_tls_servers_count_where_no_question_was_seen() {
    let named = |millis, resource, port| {
        let seen = Seen::Named { resource, name: name(resource), port, leased: false };
        Observation { at: at(millis), client: CLIENT, seen }
    };
    let observations = [question(1_000_000, A), named(1_000_060, A, 443), named(1_002_000, B, 443)];
    let tally = play(player(None), TRACE, &observations);
    assert_eq!((tally.accesses, tally.traffic.named, tally.leasable), (2, 2, 2));
}
