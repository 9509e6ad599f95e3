//! The deciding parts together: what is learnt turns into intents, and strangers turn into nothing.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use prewarm_tests::bench::pipeline::{drive, visits};
use prewarm_user::{
    config::{HistorySettings, PolicySettings, PredictSettings},
    decide::{Decider, Decisions},
    model::{
        Action, ActionKind, Direction, Intent, Name, Observation, Outcome, Prediction, ResourceId, Seen, Timestamp,
        Timing, Verdict,
    },
    policy::Refusal,
    predict::Scripted,
};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2));
const GUEST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 77));

fn at(ms: u64) -> Timestamp {
    Timestamp::from_origin(Duration::from_millis(ms))
}

/// IDs are keyed hashes.
fn id(n: u64) -> ResourceId {
    ResourceId((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn name(n: u64) -> Name {
    format!("n{n}.example.org").parse().unwrap()
}

fn address(n: u64) -> IpAddr {
    Ipv4Addr::from(0x0808_0000 + u32::try_from(n).unwrap()).into()
}

/// Without optimisation a tenth shows the same in a tenth of the time; releases take the whole.
const FLOOD: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

struct World {
    decider: Decider,
    decisions: Decisions,
    now: u64,
    intents: Vec<Intent>,
    rests: usize,
}

impl World {
    fn new(change: impl FnOnce(&mut PolicySettings)) -> Self {
        let mut policy = PolicySettings::default();
        change(&mut policy);
        policy.check().unwrap();
        let own = ["192.168.1.2/24".parse().unwrap()];
        let decider =
            Decider::new(&HistorySettings::default(), &PredictSettings::default(), &policy, &own, Timestamp::ZERO);
        Self { decider, decisions: Decisions::default(), now: 1000, intents: Vec::new(), rests: 0 }
    }

    fn see(&mut self, client: IpAddr, seen: Seen) -> &[Intent] {
        let observation = Observation { at: at(self.now), client, seen };
        self.decisions.clear();
        self.decider.observe(at(self.now), &observation, &mut self.decisions);
        self.intents.extend_from_slice(&self.decisions.intents);
        &self.decisions.intents
    }

    fn ask(&mut self, client: IpAddr, n: u64, direction: Direction) {
        let name = Some(name(n));
        self.see(client, Seen::Question { resource: id(n), name, qtype: 1, direction, interface: 2 });
    }

    fn answer(&mut self, client: IpAddr, n: u64) {
        self.now += 20;
        self.see(
            client,
            Seen::Answer {
                resource: id(n),
                name: None,
                qtype: 1,
                rcode: 0,
                ttl: Duration::from_secs(30),
                addresses: vec![address(n)],
                service_binding: false,
            },
        );
    }

    fn connect(&mut self, client: IpAddr, n: u64, port: u16) {
        self.now += 1;
        self.see(client, Seen::Connect { destination: (address(n), port).into(), leased: false });
    }

    /// A page followed by three others 200 ms apart, each answered and connected to.
    fn visit(&mut self, client: IpAddr, page: u64) {
        for n in page..page + 4 {
            self.ask(client, n, Direction::Egress);
            self.answer(client, n);
            self.connect(client, n, 443);
            self.now += 179;
        }
    }

    /// Some minutes of nothing, in which what is open ends: used where `used` says so. No two are alike, or the page would
    /// be expected by the clock, before anyone asks for it.
    fn rest(&mut self, used: impl Fn(&Intent) -> bool) {
        for intent in std::mem::take(&mut self.intents) {
            let verdict =
                if used(&intent) { Verdict::Used { saved: Duration::from_millis(40) } } else { Verdict::Wasted };
            let kind = intent.action.kind();
            self.decider.outcome(&Outcome {
                intent: intent.id,
                resource: intent.resource,
                kind,
                at: at(self.now),
                verdict,
            });
        }
        self.rests += 1;
        self.now += [75, 210, 110, 165, 90, 230, 130][self.rests % 7] * 1000;
        self.decisions.clear();
        self.decider.tick(at(self.now), &mut self.decisions);
    }
}

#[test]
fn followers_are_leased_when_their_page_is_asked_for() {
    let mut world = World::new(|_| ());
    for _ in 0..6 {
        world.visit(HOST, 10);
        world.rest(|_| true);
    }
    world.ask(HOST, 10, Direction::Egress);
    let leased: Vec<_> = world
        .decisions
        .intents
        .iter()
        .filter_map(|intent| match &intent.action {
            Action::Lease { origin } => Some(origin.to_string()),
            _ => None,
        })
        .collect();
    for n in 11..14 {
        assert!(leased.contains(&format!("n{n}.example.org:443")), "{leased:?}");
    }
    assert!(world.decisions.intents.iter().all(|intent| intent.cause == at(world.now)));
    let resolved = world.decisions.intents.iter().filter(|i| i.action.kind() == ActionKind::Resolve).count();
    assert_eq!(resolved, 3, "their answers ran out");
    assert!(world.decider.policy().counters().kind(ActionKind::Lease).used > 0);
}

#[test]
fn a_gateway_leases_on_assumed_ports_from_questions_and_answers_alone() {
    let mut world = World::new(|s| s.assume_ports = vec![443]);
    for _ in 0..6 {
        for n in 10..14 {
            world.ask(GUEST, n, Direction::Ingress);
            world.now += 5;
            // The resolver on this host asks in turn; that is no access of its own.
            world.ask(HOST, n, Direction::Egress);
            world.answer(GUEST, n);
            world.now += 175;
        }
        world.rest(|_| true);
    }
    assert_eq!(world.decider.counters().forwarded, 24);
    assert_eq!(world.decider.counters().accesses, 24);
    world.ask(GUEST, 10, Direction::Ingress);
    let leases = world.decisions.intents.iter().filter(|i| i.action.kind() == ActionKind::Lease).count();
    assert_eq!(leases, 3, "{:?}", world.decisions.intents);
}

#[test]
fn what_is_polled_is_made_ready_before_its_time_though_nothing_announces_it() {
    let mut world = World::new(|s| s.lease = false);
    for _ in 0..12 {
        world.ask(HOST, 10, Direction::Egress);
        world.answer(HOST, 10);
        let asked = world.now - 20;
        world.decisions.clear();
        for second in 1..300 {
            world.now = asked + second * 1000;
            world.decider.tick(at(world.now), &mut world.decisions);
            if second < 280 {
                assert_eq!(world.decisions.intents, [], "{second} s after it was asked for");
            }
        }
        world.now = asked + 300_000;
    }
    let started = &world.decisions.intents;
    assert!(started.iter().any(|intent| intent.resource == id(10)), "{started:?}");
    assert!(world.decider.counters().foreseen > 0);
}

#[test]
fn our_own_look_ups_teach_nothing() {
    let mut world = World::new(|s| s.lease = false);
    for _ in 0..6 {
        world.visit(HOST, 10);
        world.rest(|_| false);
    }
    let before = world.decider.counters();
    world.ask(HOST, 10, Direction::Egress);
    assert!(!world.decisions.intents.is_empty());
    for intent in world.decisions.intents.clone() {
        world.now += 3;
        let seen = Seen::Question {
            resource: intent.resource,
            name: None,
            qtype: 1,
            direction: Direction::Egress,
            interface: 2,
        };
        world.see(HOST, seen);
    }
    let after = world.decider.counters();
    assert_eq!((after.accesses - before.accesses, after.echoes - before.echoes), (1, 3));
}

#[test]
fn strangers_are_counted_and_not_heard() {
    let mut world = World::new(|_| ());
    for _ in 0..6 {
        world.visit([203, 0, 113, 9].into(), 10);
    }
    assert_eq!(world.decider.counters().strangers, 24);
    assert!(world.decider.history().is_empty() && world.intents.is_empty());
}

#[test]
fn what_the_predictor_says_is_what_is_weighed() {
    let mut scripted = Scripted::default();
    let soon = |n, probability| Prediction {
        worth: probability,
        resource: id(n),
        probability,
        earliest_in: Duration::ZERO,
        expected_in: Duration::from_millis(100),
        latest_in: Duration::from_secs(1),
        timing: Timing::at(0.1),
    };
    scripted.say(id(1), vec![soon(2, 0.9), soon(3, 0.9), soon(4, 0.01)]);
    let mut world = World::new(|_| ());
    world.decider = Decider::with_predictor(
        &HistorySettings::default(),
        Box::new(scripted),
        &PolicySettings { assume_ports: vec![443], ..Default::default() },
        &[],
        Timestamp::ZERO,
    );
    world.ask(HOST, 2, Direction::Egress);
    world.answer(HOST, 2);
    world.now += 60_000;
    world.ask(HOST, 1, Direction::Egress);
    let actions: Vec<_> = world.decisions.intents.iter().map(|i| (i.resource, i.action.kind())).collect();
    assert_eq!(actions, [(id(2), ActionKind::Resolve), (id(2), ActionKind::Lease)]);
    let refusals = world.decider.policy().counters().refusals;
    assert_eq!((refusals.get(Refusal::UnknownName), refusals.get(Refusal::Worthless)), (1, 1));
}

#[test]
fn a_million_random_names_cost_bounded_memory_and_open_nothing() {
    let mut world = World::new(|s| s.assume_ports = vec![80, 443]);
    for _ in 0..6 {
        world.visit(HOST, 10);
        world.rest(|_| true);
    }
    let (mut most, mut opened) = (0, 0);
    for n in 0..FLOOD {
        world.now += 1;
        let client = IpAddr::from([192, 168, 1, 100 + u8::try_from(n % 50).unwrap()]);
        world.ask(client, 1000 + n, Direction::Ingress);
        opened += world.decisions.intents.len();
        if n % 3 == 0 {
            // Even where every name exists and is answered.
            world.answer(client, 1000 + n);
            opened += world.decisions.intents.len();
        }
        if n % 4096 == 0 {
            world.decider.tick(at(world.now), &mut world.decisions);
            most = most.max(world.decider.bytes());
        }
    }
    assert_eq!(opened, 0, "nothing is worth opening");
    assert!(most <= 64 << 20, "{most} bytes");
    assert!(world.decider.history().len() <= 32_768);
    // The habit outlived the flood.
    world.now += 90_000;
    world.ask(HOST, 10, Direction::Egress);
    let leases = world.decisions.intents.iter().filter(|i| i.action.kind() == ActionKind::Lease).count();
    assert_eq!(leases, 3);
}

#[test]
fn a_generated_stream_is_taken_and_bounded() {
    let mut decider = prewarm_tests::bench::pipeline::decider();
    let driven = drive(&mut decider, visits(3, 20_000, Duration::from_millis(5)), |at| at);
    assert!(driven.events >= 20_000 && driven.intents > 100, "{driven:?}");
    assert!(decider.bytes() < 64 << 20);
    assert_eq!(decider.policy().counters().unknown_outcomes, 0);
}
