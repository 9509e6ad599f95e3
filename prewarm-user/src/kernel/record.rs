//! Records of the ring as values.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytemuck::{Pod, pod_read_unaligned};
use prewarm_ebpf::abi::{
    AnswerRecord, ConnectionRecord, FLAG_EGRESS, FLAG_NAMED, FLAG_OWN, FLAG_RETRANSMITTED, FLAG_SERVICE_BINDING, Head,
    KIND_ANSWER, KIND_CARRIED, KIND_CLOSED, KIND_CONNECTED, KIND_QUESTION, NameField, NamedQuestionRecord,
    QuestionRecord,
};

use crate::model::{Connection, Direction, Name, Observation, Phase, ResourceId, Seen, Timestamp};

/// The class that names of hosts live in.
const IN: u16 = 1;

/// A record as the kernel wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What and who. A connection has only `kind`, `flags`, `time` and `client` (where it comes from).
    pub head: Head,
    /// The name, if it was sent along.
    pub name: Option<Name>,
    /// The rest.
    pub body: Body,
}

/// What questions and answers don't share.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A question.
    Question,
    /// An answer.
    Answer {
        /// The response code.
        rcode: u8,
        /// The least TTL.
        ttl: Duration,
        /// The addresses that the record had room for.
        addresses: Vec<IpAddr>,
        /// How many the answer had.
        addresses_seen: u8,
    },
    /// A connection.
    Connection(Connection),
}

impl Record {
    /// Reads a record; `None` when the bytes are none, which the contract rules out.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if let Some(&kind @ (KIND_CONNECTED | KIND_CARRIED | KIND_CLOSED)) = bytes.first() {
            return Some(connection(kind, &pod(bytes)?));
        }
        let head: Head = pod(bytes)?;
        let named = head.flags & FLAG_NAMED != 0;
        match head.kind {
            KIND_QUESTION if named => {
                let record: NamedQuestionRecord = pod(bytes)?;
                Some(Self { head, name: Some(name(&head, &record.name)?), body: Body::Question })
            }
            KIND_QUESTION => {
                let _: QuestionRecord = pod(bytes)?;
                Some(Self { head, name: None, body: Body::Question })
            }
            KIND_ANSWER => {
                let record: AnswerRecord = pod(bytes)?;
                let name = if named { Some(name(&head, &record.name)?) } else { None };
                let addresses = record.addresses.get(..usize::from(record.addresses_held))?;
                let body = Body::Answer {
                    rcode: record.rcode,
                    ttl: Duration::from_secs(record.ttl.into()),
                    addresses: addresses.iter().map(|&bytes| address(bytes)).collect(),
                    addresses_seen: record.addresses_seen,
                };
                Some(Self { head, name, body })
            }
            _ => None,
        }
    }

    /// The record in the words of the model; `None` for questions and answers of another class than IN, which name no
    /// host.
    #[must_use]
    pub fn into_observation(self) -> Option<Observation> {
        let Self { head, name, body } = self;
        if let Body::Connection(connection) = body {
            let at = Timestamp::from_nanos(head.time);
            return Some(Observation { at, client: address(head.client), seen: Seen::Connection(connection) });
        }
        if head.qclass != IN {
            return None;
        }
        let resource = ResourceId(head.resource);
        let seen = match body {
            Body::Question => Seen::Question {
                resource,
                name,
                qtype: head.qtype,
                direction: if head.flags & FLAG_EGRESS != 0 { Direction::Egress } else { Direction::Ingress },
                interface: head.interface,
            },
            Body::Answer { rcode, ttl, addresses, .. } => Seen::Answer {
                resource,
                name,
                qtype: head.qtype,
                rcode,
                ttl,
                addresses,
                service_binding: head.flags & FLAG_SERVICE_BINDING != 0,
            },
            Body::Connection(connection) => Seen::Connection(connection),
        };
        Some(Observation { at: Timestamp::from_nanos(head.time), client: address(head.client), seen })
    }
}

fn connection(kind: u8, record: &ConnectionRecord) -> Record {
    let head = Head { kind, flags: record.flags, time: record.time, client: record.source, ..Head::default() };
    let round_trip = Duration::from_micros(record.round_trip.into());
    let phase = match kind {
        KIND_CONNECTED => Phase::Established {
            round_trip: Some(round_trip).filter(|_| record.flags & FLAG_RETRANSMITTED == 0),
            own: record.flags & FLAG_OWN != 0,
        },
        KIND_CARRIED => Phase::Carried,
        _ => Phase::Closed {
            round_trip,
            carried: record.data_segments > 0,
            // The kernel counts the SYN too.
            sent: if record.data_segments > 0 { record.sent.saturating_sub(1) } else { 0 },
            received: record.received,
        },
    };
    let connection = Connection {
        socket: record.socket,
        namespace: record.namespace,
        destination: SocketAddr::new(address(record.destination), record.port),
        phase,
    };
    Record { head, name: None, body: Body::Connection(connection) }
}

/// An address of the contract: IPv4 comes as `::ffff:a.b.c.d`.
pub(super) fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

fn pod<T: Pod>(bytes: &[u8]) -> Option<T> {
    Some(pod_read_unaligned(bytes.get(..size_of::<T>())?))
}

fn name(head: &Head, field: &NameField) -> Option<Name> {
    Name::from_wire(field.wire.get(..usize::from(head.name_length))?).ok()
}

#[cfg(test)]
mod tests {
    use bytemuck::{Zeroable as _, bytes_of};

    use super::*;

    #[test]
    fn an_answer_becomes_an_observation() {
        let mut record = AnswerRecord::zeroed();
        record.head = Head {
            kind: KIND_ANSWER,
            name_length: 3,
            flags: FLAG_NAMED | FLAG_SERVICE_BINDING,
            time: 7,
            resource: 8,
            client: "::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets(),
            qtype: 1,
            qclass: IN,
            ..Head::default()
        };
        record.ttl = 60;
        record.addresses_held = 2;
        record.addresses_seen = 2;
        record.addresses[0] = "::ffff:198.51.100.1".parse::<Ipv6Addr>().unwrap().octets();
        record.addresses[1] = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
        record.name.wire[..3].copy_from_slice(b"\x01a\0");
        let observation = Record::read(bytes_of(&record)).unwrap().into_observation().unwrap();
        assert_eq!(observation.client, "192.0.2.1".parse::<IpAddr>().unwrap());
        let Seen::Answer { name, addresses, ttl, service_binding, .. } = observation.seen else { panic!() };
        assert_eq!(name.unwrap().to_string(), "a");
        assert_eq!(addresses, ["198.51.100.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!((ttl, service_binding), (Duration::from_secs(60), true));
    }

    #[test]
    fn a_connection_becomes_an_observation() {
        let record = ConnectionRecord {
            kind: KIND_CONNECTED,
            flags: FLAG_OWN,
            port: 443,
            time: 7,
            socket: 8,
            namespace: 9,
            source: "::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets(),
            destination: "::ffff:198.51.100.1".parse::<Ipv6Addr>().unwrap().octets(),
            round_trip: 40_100,
            ..ConnectionRecord::default()
        };
        let seen = |record: &ConnectionRecord| {
            let observation = Record::read(bytes_of(record)).unwrap().into_observation().unwrap();
            assert_eq!((observation.at, observation.client), (Timestamp::from_nanos(7), "192.0.2.1".parse().unwrap()));
            let Seen::Connection(connection) = observation.seen else { panic!() };
            assert_eq!((connection.socket, connection.namespace), (8, 9));
            assert_eq!(connection.destination, "198.51.100.1:443".parse().unwrap());
            connection.phase
        };
        let round_trip = Duration::from_micros(40_100);
        assert_eq!(seen(&record), Phase::Established { round_trip: Some(round_trip), own: true });
        let again = ConnectionRecord { flags: FLAG_RETRANSMITTED, ..record };
        assert_eq!(seen(&again), Phase::Established { round_trip: None, own: false });
        assert_eq!(seen(&ConnectionRecord { kind: KIND_CARRIED, ..record }), Phase::Carried);
        let closed = ConnectionRecord { kind: KIND_CLOSED, data_segments: 1, sent: 3, received: 3, ..record };
        assert_eq!(seen(&closed), Phase::Closed { round_trip, carried: true, sent: 2, received: 3 });
        assert_eq!(Record::read(&bytes_of(&record)[..87]), None, "cut short");
    }

    #[test]
    fn short_and_strange_records_are_none() {
        let record = QuestionRecord::default();
        assert_eq!(Record::read(bytes_of(&record)), None);
        assert_eq!(Record::read(&bytes_of(&record)[..20]), None);
    }
}
