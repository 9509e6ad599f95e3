//! Names that clients give are accesses, once each.

use std::{net::IpAddr, time::Duration};

use prewarm_user::{
    config::Config,
    decide::{Decider, Decisions},
    model::{Direction, Name, Observation, ResourceId, Seen, Timestamp},
};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct Bench {
    decider: Decider,
    now: Timestamp,
}

impl Bench {
    fn new() -> Self {
        let config = Config::default();
        let own = ["192.168.1.1/24".parse().unwrap()];
        let decider = Decider::new(&config.history, &config.predict, &config.policy, &own, Timestamp::ZERO);
        Self { decider, now: Timestamp::ZERO + Duration::from_secs(100) }
    }

    fn see(&mut self, client: IpAddr, seen: Seen) {
        let observation = Observation { at: self.now, client, seen };
        self.decider.observe(self.now, &observation, &mut Decisions::default());
    }

    fn named(&mut self, client: IpAddr, name: &Name) {
        self.see(client, Seen::Named { resource: ResourceId(1), name: name.clone(), port: 443, leased: false });
    }

    fn question(&mut self, client: IpAddr, name: &Name, direction: Direction) {
        let name = Some(name.clone());
        self.see(client, Seen::Question { resource: ResourceId(1), name, qtype: 1, direction, interface: 1 });
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn accesses(&self) -> u64 {
        self.decider.counters().accesses
    }
}

#[test]
fn a_name_that_never_crosses_the_wire_is_learnt() {
    let mut bench = Bench::new();
    let name: Name = "www.example.org".parse().unwrap();
    bench.named(HERE, &name);
    let known = bench.decider.history().get(ResourceId(1)).unwrap();
    assert_eq!((known.count, known.ports[0].port, &known.name), (1, 443, &name));
    assert_eq!(bench.accesses(), 1);
    // Several connections of one visit are one access; the next visit is the next.
    bench.named(HERE, &name);
    assert_eq!(bench.accesses(), 1);
    bench.pass(60);
    bench.named(HERE, &name);
    assert_eq!((bench.accesses(), bench.decider.history().get(ResourceId(1)).unwrap().count), (2, 2));
}

/// A client that asks itself, and one for which the resolver on this host asks on.
#[test]
fn nothing_is_counted_twice() {
    let name: Name = "www.example.org".parse().unwrap();
    let client: IpAddr = [192, 168, 1, 7].into();
    let own: IpAddr = [192, 168, 1, 1].into();

    let mut asked_first = Bench::new();
    asked_first.question(client, &name, Direction::Ingress);
    asked_first.named(client, &name);
    assert_eq!(asked_first.accesses(), 1);

    let mut from_here = Bench::new();
    from_here.question(own, &name, Direction::Egress);
    from_here.named(HERE, &name);
    assert_eq!(from_here.accesses(), 1);

    let mut passed_on = Bench::new();
    passed_on.named(client, &name);
    passed_on.question(own, &name, Direction::Egress);
    assert_eq!((passed_on.accesses(), passed_on.decider.counters().forwarded), (1, 1));

    // Two clients are two.
    let mut two = Bench::new();
    two.named(client, &name);
    two.named([192, 168, 1, 8].into(), &name);
    assert_eq!(two.accesses(), 2);
}

#[test]
fn strangers_teach_nothing() {
    let mut bench = Bench::new();
    bench.named([203, 0, 113, 7].into(), &"www.example.org".parse().unwrap());
    assert_eq!((bench.accesses(), bench.decider.history().len()), (0, 0));
}
