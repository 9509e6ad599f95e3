//! One access out of what several sources tell of it.
//!
//! Comes in: observations, each with its source. Goes out: the same, without the questions that another source told
//! already. Never here: a clock, or more memory than a fixed table and a short queue.
//!
//! A question for a name by a client is the same access when another source told it within the window ([`WINDOW`]),
//! A, AAAA and HTTPS being one as in the kernel. Sources differ in how late they tell: a packet within a millisecond, a
//! DNS server when it empties its buffer, a second later. So what is told late counts only if nothing newer was told of
//! the same name and client.
//!
//! A server on this host asks others for its clients, and those questions leave by the interface that is watched,
//! before the server tells of its client. While such a server writes, the host's own questions are held back for
//! [`HOLD`]; those that it turns out to have passed on for a client are none of the host's own.
//!
//! Likewise a program connects long before a server tells what the address was the answer to. A connection to an
//! address that no name is known for waits as long, with its end, for the answer that names it.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use crate::model::{Connection, Direction, Observation, Phase, ResourceId, Seen, Timestamp};

/// Questions within this time are one access.
pub const WINDOW: Duration = Duration::from_secs(1);
/// How long the host's own questions wait for a server to say whose they are. Servers empty their buffers every second.
pub const HOLD: Duration = Duration::from_millis(1500);
/// How much later than its client's a server's own question can leave: it may try other servers before.
const PASSED_ON_WITHIN: Duration = Duration::from_secs(5);
/// Entries of the table; direct-mapped, so that it forgets instead of growing.
const SLOTS: usize = 1 << 12;
/// Questions and connections held back at most; what is more counts at once.
const HELD: usize = 1024;

/// What is known besides the observations.
pub trait Around {
    /// Whether a server on this host may tell of its clients.
    fn is_resolver_here(&self) -> bool;
    /// Whether a name is known for an address.
    fn is_named(&self, now: Timestamp, client: IpAddr, address: IpAddr) -> bool;
}

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// The kernel programs on the interfaces, which fold repetitions themselves.
    Wire,
    /// A DNS server.
    Server,
    /// A library that looks names up.
    Library,
}

/// What was made of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeCounters {
    /// Questions that another source, or the same server, told before.
    pub folded: u64,
    /// Questions of this host that a server on it passed on for a client.
    pub passed_on: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    resource: ResourceId,
    client: IpAddr,
    group: u16,
    at: Timestamp,
    teller: Teller,
}

/// The observations of all sources as one stream.
#[derive(Debug)]
pub struct Merge {
    own: Vec<IpAddr>,
    /// The address that stands for this host where a source knows of no other.
    host: IpAddr,
    slots: Vec<Option<Slot>>,
    held: VecDeque<(Timestamp, Observation)>,
    counters: MergeCounters,
}

impl Merge {
    /// For a host with these addresses, `host` being the one that stands for it where nothing else is known.
    #[must_use]
    pub fn new(own: Vec<IpAddr>, host: IpAddr) -> Self {
        let here = own.iter().copied().find(|address| !address.is_loopback() && address.is_ipv4());
        Self {
            host: here.unwrap_or(host),
            own,
            slots: vec![None; SLOTS],
            held: VecDeque::new(),
            counters: MergeCounters::default(),
        }
    }

    /// What was made of questions so far.
    #[must_use]
    pub const fn counters(&self) -> MergeCounters {
        self.counters
    }

    /// Takes an observation in and appends what is to be learnt from to `out`; `around` says what is known besides.
    pub fn take(
        &mut self,
        teller: Teller,
        mut observation: Observation,
        around: &impl Around,
        out: &mut Vec<Observation>,
    ) {
        if teller != Teller::Wire && self.is_own(observation.client) {
            // One host, one client: what it connects from is this address.
            observation.client = self.host;
        }
        match &observation.seen {
            Seen::Question { resource, qtype, direction, .. } => {
                let (resource, group, direction) = (*resource, group(*qtype), *direction);
                if self.is_told(teller, &observation, resource, group) {
                    self.counters.folded += 1;
                    return;
                }
                let own = teller == Teller::Wire && direction == Direction::Egress && self.is_own(observation.client);
                if own && self.held.len() < HELD && around.is_resolver_here() {
                    return self.hold(observation);
                }
                if teller != Teller::Wire {
                    self.passed_on(resource, observation.at);
                }
                self.tell(teller, &observation, resource, group);
                out.push(observation);
            }
            // A library knows no TTL: where anybody else saw the question, the answer was seen as well, with its own.
            Seen::Answer { resource, qtype, .. }
                if teller == Teller::Library
                    && self.last(*resource, observation.client, group(*qtype)).is_some_and(|slot| {
                        slot.teller != Teller::Library && near(slot.at, observation.at, WINDOW * 5)
                    }) => {}
            Seen::Answer { addresses, .. } => {
                let addresses = addresses.clone();
                out.push(observation);
                self.name(&addresses, out);
            }
            Seen::Connection(connection) if self.waits(&observation, connection, around) => self.hold(observation),
            _ => out.push(observation),
        }
    }

    /// Gives out what was held back for long enough.
    pub fn release(&mut self, now: Timestamp, out: &mut Vec<Observation>) {
        while let Some((_, observation)) = self.held.pop_front_if(|(due, _)| *due <= now) {
            if let Seen::Question { resource, qtype, .. } = observation.seen {
                self.tell(Teller::Wire, &observation, resource, group(qtype));
            }
            out.push(observation);
        }
    }

    /// When [`release`](Self::release) is wanted next.
    #[must_use]
    pub fn next_release(&self) -> Option<Timestamp> {
        self.held.front().map(|(due, _)| *due)
    }

    /// A client of a server on this host asked at `asked`, which may be the daemon itself: what has left this host for
    /// the same name since then was asked on its behalf.
    pub fn passed_on(&mut self, resource: ResourceId, asked: Timestamp) {
        let before = self.held.len();
        self.held.retain(|(_, held)| {
            let same = matches!(&held.seen, Seen::Question { resource: of, .. } if *of == resource);
            !(same && held.at + Duration::from_millis(50) >= asked && held.at < asked + PASSED_ON_WITHIN)
        });
        self.counters.passed_on += (before - self.held.len()) as u64;
    }

    fn hold(&mut self, observation: Observation) {
        self.held.push_back((observation.at + HOLD, observation));
    }

    /// Whether a connection's name may still be told; its end follows its begin.
    fn waits(&self, observation: &Observation, connection: &Connection, around: &impl Around) -> bool {
        let of_this = |(_, held): &(_, Observation)| {
            let Seen::Connection(held) = &held.seen else { return false };
            held.socket == connection.socket
        };
        match connection.phase {
            Phase::Established { own: false, .. } => {
                self.held.len() < HELD
                    && !around.is_named(observation.at, observation.client, connection.destination.ip().to_canonical())
            }
            Phase::Established { own: true, .. } | Phase::Carried => false,
            Phase::Closed { .. } => self.held.iter().any(of_this),
        }
    }

    /// What waited for one of these addresses to be named goes out.
    fn name(&mut self, addresses: &[IpAddr], out: &mut Vec<Observation>) {
        if self.held.is_empty() {
            return;
        }
        let is_named = |held: &Observation| {
            let Seen::Connection(held) = &held.seen else { return false };
            addresses.contains(&held.destination.ip().to_canonical())
        };
        let (named, others) = self.held.drain(..).partition::<VecDeque<_>, _>(|(_, held)| is_named(held));
        self.held = others;
        out.extend(named.into_iter().map(|(_, held)| held));
    }

    fn is_told(&self, teller: Teller, question: &Observation, resource: ResourceId, group: u16) -> bool {
        let Some(last) = self.last(resource, question.client, group) else { return false };
        match (teller, last.teller) {
            // The kernel has folded already.
            (Teller::Wire, Teller::Wire) => false,
            (Teller::Wire, _) => near(last.at, question.at, WINDOW),
            _ => question.at < last.at + WINDOW,
        }
    }

    fn last(&self, resource: ResourceId, client: IpAddr, group: u16) -> Option<Slot> {
        let client = self.key(client);
        let slot = self.slots.get(place(resource, client)).copied().flatten()?;
        (slot.resource == resource && slot.client == client && slot.group == group).then_some(slot)
    }

    fn tell(&mut self, teller: Teller, question: &Observation, resource: ResourceId, group: u16) {
        let client = self.key(question.client);
        if let Some(slot) = self.slots.get_mut(place(resource, client)) {
            *slot = Some(Slot { resource, client, group, at: question.at, teller });
        }
    }

    /// All addresses of this host are one client.
    fn key(&self, client: IpAddr) -> IpAddr {
        if self.is_own(client) { self.host } else { client }
    }

    fn is_own(&self, client: IpAddr) -> bool {
        client.is_loopback() || self.own.contains(&client)
    }
}

/// A, AAAA and HTTPS are one group, as in the kernel programs; every other type is its own.
const fn group(qtype: u16) -> u16 {
    match qtype {
        1 | 28 | 65 => 0,
        other => other,
    }
}

fn near(one: Timestamp, other: Timestamp, within: Duration) -> bool {
    one.since(other).max(other.since(one)) < within
}

/// The ID is a keyed hash; the client only has to be spread over the table.
fn place(resource: ResourceId, client: IpAddr) -> usize {
    let spread = match client {
        IpAddr::V4(client) => u64::from(client.to_bits()),
        IpAddr::V6(client) => client.to_bits() as u64 ^ (client.to_bits() >> 64) as u64,
    };
    let spread = spread.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (resource.0 ^ spread) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "192.0.2.1";
    const CLIENT: &str = "198.51.100.7";

    /// A resolver or none; one address that has a name.
    struct World(bool);

    impl Around for World {
        fn is_resolver_here(&self) -> bool {
            self.0
        }

        fn is_named(&self, _: Timestamp, _: IpAddr, address: IpAddr) -> bool {
            address == "203.0.113.1".parse::<IpAddr>().unwrap()
        }
    }

    fn merge() -> Merge {
        Merge::new(vec![HOST.parse().unwrap(), "127.0.0.1".parse().unwrap()], "127.0.0.1".parse().unwrap())
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(1000) + Duration::from_millis(millis))
    }

    fn asked(millis: u64, client: &str, resource: u64, qtype: u16, direction: Direction) -> Observation {
        let seen = Seen::Question { resource: ResourceId(resource), name: None, qtype, direction, interface: 0 };
        Observation { at: at(millis), client: client.parse().unwrap(), seen }
    }

    fn inward(millis: u64, client: &str, resource: u64) -> Observation {
        asked(millis, client, resource, 1, Direction::Ingress)
    }

    fn outward(millis: u64, resource: u64) -> Observation {
        asked(millis, HOST, resource, 1, Direction::Egress)
    }

    /// How many of these come out at once.
    fn count(merge: &mut Merge, told: impl IntoIterator<Item = (Teller, Observation)>) -> usize {
        let mut out = Vec::new();
        for (teller, observation) in told {
            merge.take(teller, observation, &World(true), &mut out);
        }
        out.len()
    }

    #[test]
    fn what_two_sources_tell_is_one_access() {
        let mut merge = merge();
        // The packet at once, the server a second later; each with A and AAAA.
        let told = [
            (Teller::Wire, inward(0, CLIENT, 1)),
            (Teller::Server, inward(0, CLIENT, 1)),
            (Teller::Server, asked(1, CLIENT, 1, 28, Direction::Ingress)),
            // Only encrypted.
            (Teller::Server, inward(10, CLIENT, 2)),
            (Teller::Server, asked(11, CLIENT, 2, 28, Direction::Ingress)),
            // Another client, another type.
            (Teller::Server, inward(12, "198.51.100.8", 2)),
            (Teller::Server, asked(13, CLIENT, 2, 15, Direction::Ingress)),
        ];
        assert_eq!(count(&mut merge, told), 4);
        assert_eq!(merge.counters(), MergeCounters { folded: 3, passed_on: 0 });
    }

    #[test]
    fn what_is_told_late_counts_only_if_nothing_newer_was_told() {
        let mut merge = merge();
        let told = [
            (Teller::Wire, inward(0, CLIENT, 1)),
            (Teller::Wire, inward(1500, CLIENT, 1)),
            (Teller::Server, inward(0, CLIENT, 1)),
            (Teller::Server, inward(1500, CLIENT, 1)),
            (Teller::Server, inward(4000, CLIENT, 1)),
        ];
        assert_eq!(count(&mut merge, told), 3);
    }

    #[test]
    fn what_the_host_asks_for_a_client_is_not_its_own() {
        let mut merge = merge();
        let told =
            [(Teller::Wire, outward(2, 1)), (Teller::Wire, outward(3, 2)), (Teller::Server, inward(1, CLIENT, 1))];
        assert_eq!(count(&mut merge, told), 1);
        let mut out = Vec::new();
        merge.release(at(1400), &mut out);
        assert!(out.is_empty());
        assert_eq!(merge.next_release(), Some(at(3) + HOLD));
        merge.release(at(1600), &mut out);
        assert_eq!(out, [outward(3, 2)], "nobody asked the server for it: it is the host's own");
        assert_eq!(merge.counters().passed_on, 1);
        // Where no server tells of clients, nothing waits.
        merge.take(Teller::Wire, outward(5000, 3), &World(false), &mut out);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn this_host_is_one_client() {
        let mut merge = merge();
        let mut out = Vec::new();
        merge.take(Teller::Wire, outward(0, 1), &World(false), &mut out);
        merge.take(Teller::Library, inward(0, "127.0.0.1", 1), &World(false), &mut out);
        merge.take(Teller::Server, inward(1, "127.0.0.1", 1), &World(false), &mut out);
        merge.take(Teller::Library, inward(2, "127.0.0.1", 2), &World(false), &mut out);
        assert_eq!(out, [outward(0, 1), inward(2, HOST, 2)]);
    }

    #[test]
    fn an_answer_without_a_ttl_gives_way_to_one_with() {
        let answer = |millis, resource| Observation {
            at: at(millis),
            client: "127.0.0.1".parse().unwrap(),
            seen: Seen::Answer {
                resource: ResourceId(resource),
                name: None,
                qtype: 1,
                rcode: 0,
                ttl: Duration::from_secs(5),
                addresses: vec![CLIENT.parse().unwrap()],
                service_binding: false,
            },
        };
        let mut merge = merge();
        let mut out = Vec::new();
        merge.take(Teller::Wire, outward(0, 1), &World(false), &mut out);
        merge.take(Teller::Library, inward(0, "127.0.0.1", 1), &World(false), &mut out);
        merge.take(Teller::Library, answer(30, 1), &World(false), &mut out);
        merge.take(Teller::Library, inward(40, "127.0.0.1", 2), &World(false), &mut out);
        merge.take(Teller::Library, answer(50, 2), &World(false), &mut out);
        let answers: Vec<_> = out.iter().filter(|seen| matches!(seen.seen, Seen::Answer { .. })).collect();
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].at, at(50));
    }

    #[test]
    fn a_connection_waits_for_its_name() {
        let connection = |millis, socket, address: &str, phase| Observation {
            at: at(millis),
            client: HOST.parse().unwrap(),
            seen: Seen::Connection(Connection {
                socket,
                namespace: 1,
                destination: (address.parse::<IpAddr>().unwrap(), 443).into(),
                phase,
            }),
        };
        let begin = Phase::Established { round_trip: None, own: false };
        let end = Phase::Closed { round_trip: HOLD, carried: true, sent: 1, received: 1 };
        let mut merge = merge();
        let mut out = Vec::new();
        for (socket, address) in [(1, CLIENT), (2, "203.0.113.1"), (3, "203.0.113.9")] {
            merge.take(Teller::Wire, connection(socket, socket, address, begin), &World(false), &mut out);
            merge.take(Teller::Wire, connection(10 + socket, socket, address, end), &World(false), &mut out);
        }
        assert_eq!(out.len(), 2, "only the address with a name: {out:?}");
        out.clear();
        let mut answer = inward(5, "127.0.0.1", 1);
        answer.seen = Seen::Answer {
            resource: ResourceId(1),
            name: None,
            qtype: 1,
            rcode: 0,
            ttl: HOLD,
            addresses: vec![CLIENT.parse().unwrap()],
            service_binding: false,
        };
        merge.take(Teller::Server, answer, &World(false), &mut out);
        let sockets = |out: &[Observation]| -> Vec<u64> {
            out.iter()
                .filter_map(|one| if let Seen::Connection(one) = &one.seen { Some(one.socket) } else { None })
                .collect()
        };
        assert_eq!((out.len(), sockets(&out)), (3, vec![1, 1]), "behind the answer that names it, begin before end");
        out.clear();
        merge.release(at(3000), &mut out);
        assert_eq!(sockets(&out), [3, 3], "nobody named it");
    }

    proptest! {
        /// Nothing is made up, nothing but repetitions is lost, and all memory is bounded.
        #[test]
        fn what_goes_in_comes_out_or_is_counted(
            told in prop::collection::vec((0..3_u8, 0..4000_u64, 0..3_u8, 0..4_u64, any::<bool>()), 0..300),
        ) {
            let mut merge = merge();
            let mut out = Vec::new();
            let total = told.len() as u64;
            for (teller, millis, client, resource, outgoing) in told {
                let client = [HOST, "127.0.0.1", CLIENT][usize::from(client)];
                let direction = if outgoing { Direction::Egress } else { Direction::Ingress };
                let teller = [Teller::Wire, Teller::Server, Teller::Library][usize::from(teller)];
                merge.take(teller, asked(millis, client, resource, 1, direction), &World(true), &mut out);
            }
            merge.release(at(100_000), &mut out);
            let counters = merge.counters();
            prop_assert_eq!(out.len() as u64 + counters.folded + counters.passed_on, total);
            prop_assert!(merge.held.is_empty() && merge.slots.len() == SLOTS);
        }
    }
}
