//! How many: limits, floors and demand under a scripted load.

use super::*;

/// A world in which every dial takes 40 ms and programs settle what they take after one more.
struct World {
    ledger: Ledger<u32>,
    now: u64,
    dials: Vec<(u64, Start)>,
    next: u32,
    most: usize,
    hits: u64,
    misses: u64,
}

impl World {
    fn new(change: impl FnOnce(&mut LeaseSettings)) -> Self {
        let ledger = ledger(|settings| {
            settings.per_origin = 32;
            settings.per_address = 32;
            settings.dial_burst = 1000;
            settings.dials_per_second = 1000.0;
            change(settings);
        });
        Self { ledger, now: 0, dials: Vec::new(), next: 1, most: 0, hits: 0, misses: 0 }
    }

    /// Lets time pass: what was dialled is there, what is over goes, what is missing is dialled.
    fn pass(&mut self, ms: u64) {
        self.now += ms;
        let now = at(self.now);
        let due: Vec<_> = self.dials.extract_if(.., |(at, _)| *at <= self.now).collect();
        for (_, start) in due {
            self.next += 1;
            assert_eq!(self.ledger.dialled(start.id, to(start.destinations[0], self.next), now), None);
        }
        let (_, mut starts) = self.ledger.expire(now, |_| Ok(Heard::Silence));
        starts.extend(self.ledger.replenish(now));
        self.dial(starts);
    }

    fn dial(&mut self, starts: Vec<Start>) {
        self.dials.extend(starts.into_iter().map(|start| (self.now + 40, start)));
        self.most = self.most.max(self.ledger.dials.len() + self.ledger.ready.len());
    }

    /// A program comes; where there is nothing it connects by itself, which is no connection of ours.
    fn come(&mut self, destination: SocketAddr) {
        match self.ledger.take(destination, &from(None), at(self.now), |_| Ok(Heard::Silence)) {
            Some(given) => {
                self.hits += 1;
                self.ledger.settle(given.id, Fate::Used, at(self.now));
            }
            None => {
                self.misses += 1;
                self.ledger.is_late(destination, at(self.now));
            }
        }
    }

    /// Shows the ledger whose address this is, as the first prediction does.
    fn introduce(&mut self) {
        let start = self.ledger.order(order("a.example", 1, at(self.now + 1)), at(self.now)).unwrap();
        self.dial(vec![start]);
        (0..45).for_each(|_| self.pass(1));
    }

    /// So long a load of programs at this pause, with a jitter of half of it.
    fn load(&mut self, seconds: u64, pause_ms: u64) {
        let (end, mut next, mut seed) = (self.now + seconds * 1000, self.now, 7_u64);
        while self.now < end {
            self.pass(if pause_ms > 100 { 10 } else { 1 });
            while self.now >= next {
                self.come(here());
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                next += pause_ms / 2 + (seed >> 33) % pause_ms.max(1);
            }
        }
    }
}

#[test]
fn a_steady_load_never_multiplies_connections() {
    for (pause_ms, most) in [(10, 16), (50, 6), (250, 4), (1000, 3), (5000, 2)] {
        let mut world = World::new(|_| {});
        world.introduce();
        world.load(if pause_ms > 100 { 300 } else { 30 }, pause_ms);
        let counters = world.ledger.counters;
        // One connection for each that was used, and those of one level beside.
        assert!(counters.opened <= counters.taken + most as u64 + counters.expired, "{counters:?}");
        assert!(world.most <= most, "{} connections at once, a program each {pause_ms} ms", world.most);
        assert!(counters.expired * 10 <= counters.taken, "{counters:?}");
        let ratio = world.hits as f64 / (world.hits + world.misses) as f64;
        assert!(ratio > 0.85, "{} of {} each {pause_ms} ms", world.hits, world.hits + world.misses);
        // When they stop, it does.
        let opened = world.ledger.counters.opened;
        (0..12_000).for_each(|_| world.pass(50));
        assert_eq!((world.ledger.ready.len(), world.ledger.dials.len()), (0, 0));
        let after = world.ledger.counters.opened - opened;
        assert!(after <= 80, "{after} dials after the last, of {opened}");
    }
}

#[test]
fn rare_programs_are_no_demand() {
    let mut world = World::new(|_| {});
    world.introduce();
    world.load(1800, 60_000);
    assert_eq!((world.ledger.counters.opened, world.hits), (1, 1));
}

#[test]
fn demand_can_be_switched_off() {
    let mut world = World::new(|settings| settings.demand = false);
    world.introduce();
    world.load(60, 100);
    assert_eq!(world.ledger.counters.opened, 1);
}

#[test]
fn demand_keeps_to_the_limits_and_counts_no_refusals() {
    let mut world = World::new(|settings| settings.per_origin = 2);
    world.introduce();
    world.load(20, 10);
    assert!(world.most <= 2 && world.hits > 500, "{} at once, {} hits", world.most, world.hits);
    assert_eq!(world.ledger.counters.refused, 0);
}

#[test]
fn a_visit_that_takes_several_gets_several() {
    let mut world = World::new(|_| {});
    world.introduce();
    for visit in 0..8 {
        // Every two minutes three connections, each announced by a prediction.
        world.now = 200_000 + visit * 120_000;
        world.ledger.expire(at(world.now), |_| Ok(Heard::Silence));
        world.ledger.replenish(at(world.now));
        let start = world.ledger.order(order("a.example", 10 + visit, at(world.now + 20_000)), at(world.now)).unwrap();
        let beside = world.ledger.accompany(start.id, at(world.now));
        world.dial([vec![start], beside].concat());
        (0..45).for_each(|_| world.pass(1));
        (world.hits, world.misses) = (0, 0);
        (0..3).for_each(|_| world.come(here()));
    }
    assert_eq!((world.hits, world.misses), (3, 0), "by the eighth visit");
    // One that takes one again is believed soon.
    for visit in 8..11 {
        world.now = 200_000 + visit * 120_000;
        world.ledger.expire(at(world.now), |_| Ok(Heard::Silence));
        world.come(here());
    }
    let start = world.ledger.order(order("a.example", 99, at(world.now + 20_000)), at(world.now)).unwrap();
    assert_eq!(world.ledger.accompany(start.id, at(world.now)), []);
}

#[test]
fn a_floor_is_kept_whatever_happens() {
    let mut ledger = ledger(|_| {});
    let origin: Origin = "a.example:80".parse().unwrap();
    ledger.want(origin.clone(), vec![here().ip()], at(u64::MAX / 2_000_000), 2, at(0));
    let mut now = 0;
    for round in 0..20_u32 {
        let (_, mut starts) = ledger.expire(at(now), |_| Ok(Heard::Silence));
        starts.extend(ledger.replenish(at(now)));
        for start in starts {
            ledger.dialled(start.id, to(start.destinations[0], round), at(now));
        }
        assert_eq!(ledger.ready.len(), 2);
        now += 10_000;
    }
    // Its name has another address now: what leads elsewhere ends, and what follows leads there.
    ledger.want(origin, vec![[192, 0, 2, 9].into()], at(u64::MAX / 2_000_000), 3, at(now));
    let (closed, mut starts) = ledger.expire(at(now), |_| Ok(Heard::Silence));
    starts.extend(ledger.replenish(at(now)));
    assert_eq!((closed.len(), starts.len()), (2, 3));
    assert!(starts.iter().all(|start| start.destinations == ["192.0.2.9:80".parse().unwrap()]));
}

#[test]
fn a_floor_has_no_gap() {
    let mut world = World::new(|settings| settings.idle_seconds = 5.0);
    let origin: Origin = "a.example:80".parse().unwrap();
    world.ledger.want(origin, vec![here().ip()], at(u64::MAX / 2_000_000), 2, at(0));
    (0..50).for_each(|_| world.pass(1));
    for _ in 0..60_000 {
        world.pass(1);
        assert!(world.ledger.ready.len() >= 2, "{} at {} ms", world.ledger.ready.len(), world.now);
        let due = world.ledger.next_due(at(world.now)).unwrap();
        assert!(due > at(world.now), "what is due is done");
    }
    assert_eq!(world.most, 4, "two beside the two that end");
    // Each of 5 s, less the time in which the next is dialled.
    let counters = world.ledger.counters;
    assert!((22..=28).contains(&counters.opened) && counters.renewed + 4 >= counters.opened, "{counters:?}");
}

#[test]
fn networks_have_a_limit_of_their_own() {
    let mut ledger = ledger(|settings| {
        settings.per_address = 2;
        settings.per_network = 3;
    });
    let mut opens = |number: u64, address: &str| {
        let order = LeaseOrder {
            addresses: vec![address.parse().unwrap()],
            ..order(&format!("o{number}.example"), number, at(9000))
        };
        ledger.order(order, at(0)).is_some()
    };
    assert!(opens(1, "192.0.2.1") && opens(2, "192.0.2.2") && opens(3, "192.0.2.3"));
    assert!(!opens(4, "192.0.2.4") && opens(5, "192.0.3.4"));
    assert!(opens(6, "2001:db8:1:1::1") && opens(7, "2001:db8:1:2::1") && opens(8, "2001:db8:1:3::1"));
    assert!(!opens(9, "2001:db8:1:4::1") && opens(10, "2001:db8:2::1"));
}

#[test]
fn want_of_descriptors_is_nobodys_fault() {
    let mut ledger = ledger(|_| {});
    let start = ledger.order(order("a.example", 1, at(9000)), at(0)).unwrap();
    ledger.failed(start.id, Failure::Exhausted, at(10));
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Failed)]);
    assert_eq!(ledger.order(order("b.example", 2, at(9000)), at(1009)), None, "nothing is dialled for a second");
    assert!(ledger.order(order("a.example", 3, at(9000)), at(1010)).is_some());
    assert_eq!((ledger.counters.failed, ledger.counters.failed_here), (1, 1));
    let room = Ledger::<u32>::new(&LeaseSettings::default(), 5).limits.total;
    assert_eq!(room, 5);
}

#[test]
fn an_address_that_is_out_of_date_is_exchanged() {
    let there: SocketAddr = "192.0.2.9:80".parse().unwrap();
    // While it is dialled.
    let mut ledger = ledger(|_| {});
    let start = ledger.order(order("a.example", 1, at(9000)), at(0)).unwrap();
    assert_eq!(ledger.correct(IntentId(1), &[here().ip(), there.ip()], at(1)), (None, None), "it may be right");
    let (closed, exchanged) = ledger.correct(IntentId(1), &[there.ip()], at(2));
    let exchanged = exchanged.unwrap();
    assert_eq!((closed, &exchanged.destinations[..]), (None, &[there][..]));
    assert_eq!(ledger.dialled(start.id, to(here(), 1), at(3)), Some(1), "nobody waits for it");
    ledger.dialled(exchanged.id, to(there, 2), at(40));
    // When it is there.
    let (closed, exchanged) = ledger.correct(IntentId(1), &[here().ip()], at(50));
    assert_eq!((closed, ledger.ready.len()), (Some(2), 0));
    // When it is answered where its name no longer is, of two that were tried.
    ledger.dialled(exchanged.unwrap().id, to(here(), 3), at(90));
    assert_eq!(ledger.correct(IntentId(1), &[here().ip()], at(91)), (None, None));
    let both = LeaseOrder { addresses: vec![here().ip(), there.ip()], ..order("b.example", 2, at(9000)) };
    let start = ledger.order(both, at(100)).unwrap();
    assert_eq!(ledger.correct(IntentId(2), &[there.ip()], at(101)), (None, None));
    assert_eq!(ledger.dialled(start.id, to(here(), 4), at(140)), Some(4));
    assert!(ledger.stirred);
    let again = ledger.replenish(at(141));
    assert_eq!(again[0].destinations, [there]);
    assert_eq!(verdicts(&mut ledger), [], "the intents are still open");
    assert_eq!(ledger.counters.readdressed, 3);
    // Gone altogether.
    assert_eq!(ledger.cancel(IntentId(1), at(150)), Some(3));
    assert_eq!(ledger.cancel(IntentId(2), at(150)), None);
    assert_eq!(ledger.cancel(IntentId(2), at(150)), None);
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Failed), (2, Verdict::Failed)]);
    assert_eq!((ledger.dials.len(), ledger.ready.len(), ledger.counters.cancelled), (0, 0, 2));
}

#[test]
fn a_claimed_lease_is_not_exchanged() {
    let market = claims::Market::with(9);
    let mut ledger = ledger(|_| {});
    ledger.offer_to(market.clone(), at(0));
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    let token = market.claim(here()).unwrap();
    assert_eq!(ledger.correct(IntentId(1), &[[192, 0, 2, 9].into()], at(1)), (None, None));
    assert!(ledger.redeem(token, at(2), |_| Ok(Heard::Silence)).is_some());
    ready(&mut ledger, "b.example", 2, at(3), at(9000));
    market.claim(here()).unwrap();
    assert_eq!(ledger.cancel(IntentId(2), at(4)), None);
    assert_eq!(ledger.claimed.len(), 1);
}
