//! Records of the ring as values.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use bytemuck::{Pod, pod_read_unaligned};
use prewarm_ebpf::abi::{
    AnswerRecord, FLAG_EGRESS, FLAG_NAMED, FLAG_SERVICE_BINDING, Head, KIND_ANSWER, KIND_QUESTION, NameField,
    NamedQuestionRecord, QuestionRecord,
};

use crate::model::{Direction, Name, Observation, ResourceId, Seen, Timestamp};

/// The class that names of hosts live in.
const IN: u16 = 1;

/// A record as the kernel wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What and who.
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
}

impl Record {
    /// Reads a record; `None` when the bytes are none, which the contract rules out.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
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
        };
        Some(Observation { at: Timestamp::from_nanos(head.time), client: address(head.client), seen })
    }
}

/// An address of the contract: IPv4 comes as `::ffff:a.b.c.d`.
fn address(bytes: [u8; 16]) -> IpAddr {
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
    fn short_and_strange_records_are_none() {
        let record = QuestionRecord::default();
        assert_eq!(Record::read(bytes_of(&record)), None);
        assert_eq!(Record::read(&bytes_of(&record)[..20]), None);
    }
}
