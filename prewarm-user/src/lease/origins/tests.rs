//! What is learnt under scripted time.

use super::*;

pub(super) fn origins() -> Origins {
    Origins::new(Patience {
        backoff: Duration::from_secs(1),
        ceiling: Duration::from_secs(60),
        breaker: 5,
        idle: Duration::from_secs(22),
    })
}

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_origin(Duration::from_secs(seconds))
}

fn a() -> Origin {
    "a.example:80".parse().unwrap()
}

fn here() -> SocketAddr {
    "192.0.2.1:80".parse().unwrap()
}

/// Seconds until a trial may begin.
fn pause(origins: &Origins, now: Timestamp) -> u64 {
    (0..100).find(|&wait| origins.readiness(&a(), now + Duration::from_secs(wait)) != Readiness::Paused).unwrap()
}

#[test]
fn pauses_double_up_to_the_breaker_and_its_ceiling() {
    let mut origins = origins();
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        origins.failed(&a(), now, now + Duration::from_millis(1));
        origins.failed(&a(), now, now + Duration::from_millis(2));
        now = now + Duration::from_millis(1);
        pauses.push(pause(&origins, now));
        now = now + Duration::from_secs(pauses[pauses.len() - 1]);
        assert_eq!(origins.readiness(&a(), now), Readiness::Trial);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 60, 60]);
    origins.succeeded(&a(), here(), Duration::from_millis(40), now);
    assert_eq!(origins.readiness(&a(), now), Readiness::Open);
}

#[test]
fn lifetimes_are_learnt_down_and_up() {
    let mut origins = origins();
    let origin = a();
    assert_eq!(origins.idle(&origin), Duration::from_secs(22));
    origins.ended(&origin, at(0), false, at(5));
    assert_eq!(origins.idle(&origin), Duration::from_millis(2500));
    origins.ended(&origin, at(0), true, at(30));
    assert_eq!(origins.idle(&origin), Duration::from_millis(2500), "a later close teaches nothing");
    origins.outlived(&origin, Duration::from_millis(2400), at(31));
    assert_eq!(origins.idle(&origin), Duration::from_millis(2500), "it ended before its time");
    origins.outlived(&origin, Duration::from_millis(2500), at(31));
    assert_eq!(origins.idle(&origin), Duration::from_millis(3125));
    for _ in 0..30 {
        origins.outlived(&origin, Duration::from_secs(30), at(32));
    }
    assert_eq!(origins.idle(&origin), Duration::from_secs(22));
    origins.ended(&origin, at(33), false, at(33));
    assert_eq!(origins.idle(&origin), SHORTEST);
}

#[test]
fn who_ends_idle_connections_at_once_is_left_alone() {
    let mut origins = origins();
    let (mut now, mut pauses) = (at(10), Vec::new());
    for _ in 0..6 {
        // Each dial succeeds, and its connection is closed after half a second.
        origins.succeeded(&a(), here(), Duration::from_millis(40), now);
        let since = now;
        now = now + Duration::from_millis(500);
        origins.ended(&a(), since, false, now);
        origins.ended(&a(), since, false, now);
        pauses.push(pause(&origins, now));
        now = now + Duration::from_secs(pauses[pauses.len() - 1]);
    }
    assert_eq!(pauses, [0, 2, 4, 8, 60, 60], "one early close may be a restart");
    assert!(origins.view(now)[0].refuses_idle);
    // The next one lives.
    origins.outlived(&a(), Duration::from_secs(1), now);
    assert_eq!(origins.readiness(&a(), now), Readiness::Open);
    assert!(!origins.view(now)[0].refuses_idle);
    // A reset is plain enough.
    origins.ended(&a(), now, true, now);
    assert_eq!(pause(&origins, now), 1);
}

#[test]
fn greetings_are_learnt_by_address() {
    let mut origins = origins();
    origins.places.greeted(here(), true);
    origins.places.greeted(here(), true);
    assert!(!origins.places.speaks_first(here()), "no lease ever led there");
    origins.succeeded(&a(), here(), Duration::from_millis(40), at(1));
    origins.places.greeted(here(), true);
    assert!(!origins.places.speaks_first(here()), "once may be an accident");
    origins.places.greeted(here(), true);
    assert!(origins.places.speaks_first(here()) && origins.view(at(1))[0].speaks_first);
    assert!(!origins.places.speaks_first("192.0.2.1:81".parse().unwrap()));
    origins.places.greeted(here(), false);
    assert!(!origins.places.speaks_first(here()), "it was no greeting");
}

#[test]
fn round_trips_are_smoothed() {
    let mut origins = origins();
    assert_eq!(origins.round_trip(&a()), None);
    origins.succeeded(&a(), here(), Duration::from_millis(40), at(1));
    origins.succeeded(&a(), here(), Duration::from_millis(120), at(2));
    assert_eq!(origins.round_trip(&a()), Some(Duration::from_millis(50)));
}

#[test]
fn memory_is_bounded() {
    let mut origins = origins();
    for number in 0..REMEMBERED + 10 {
        let now = at(1 + number as u64);
        let origin = format!("a{number}.example:80").parse().unwrap();
        origins.failed(&origin, now, now);
        let [.., high, low] = (number as u32).to_be_bytes();
        origins.places.lead_to(SocketAddr::new([10, 0, high, low].into(), 80), &origin, now);
        origins.places.arrived(SocketAddr::new([10, 0, high, low].into(), 80), now);
    }
    assert_eq!((origins.known.len(), origins.places.oldest_first().len()), (REMEMBERED, REMEMBERED));
    assert_eq!(origins.places.busy().count(), REMEMBERED);
    assert_eq!(origins.readiness(&"a0.example:80".parse().unwrap(), at(1)), Readiness::Open, "the oldest is gone");
    assert_eq!(origins.places.origin(SocketAddr::new([10, 0, 0, 0].into(), 80)), None);
}
