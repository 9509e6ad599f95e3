//! DNS messages in wire format (RFC 1035, 4), without the headers that carry them.
//!
//! Comes in: the bytes of one message. Goes out: what it asks and what it answers, in the words that the kernel
//! programs use: the same name, the same least TTL, the same addresses, the same ID. Never here: what is not in the
//! question and the answer section.

use std::{net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Header, Message as Wire, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, RData, Record, RecordType},
    serialize::binary::{BinDecodable as _, BinDecoder},
};

use crate::model::{Direction, Name, ResourceId, Seen};

/// Addresses taken from one answer; as many as a record of the kernel holds.
const ADDRESSES: usize = prewarm_ebpf::abi::ADDRESSES;

/// A message, as far as it concerns anybody here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number.
    pub id: u16,
    /// What is asked for.
    pub name: Name,
    /// The type asked for (RFC 1035, 3.2.2).
    pub qtype: u16,
    /// What is answered; a question has none.
    pub answer: Option<Answer>,
}

/// The answer section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The response code, without its extension by EDNS.
    pub rcode: u8,
    /// The least TTL of all records; zero when there are none.
    pub ttl: Duration,
    /// The addresses in their order, at most eight.
    pub addresses: Vec<IpAddr>,
    /// Whether an HTTPS or SVCB record is there (RFC 9460).
    pub service_binding: bool,
}

/// Why a message says nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It can't be read to the end of its answer section.
    #[error("not a DNS message")]
    Broken,
    /// It is a notification, an update or the like.
    #[error("neither a query nor the answer to one")]
    Opcode,
    /// It asks for nothing, or for several things at once, which nobody does.
    #[error("not exactly one question")]
    QuestionCount,
    /// It is about another class than IN, in which there are no hosts.
    #[error("another class than IN")]
    Class,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is none, or not one question of class IN with or without its answer.
    pub fn read(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).map_err(|_| MessageError::Broken)?;
        if header.op_code != OpCode::Query {
            return Err(MessageError::Opcode);
        }
        if header.counts.queries != 1 {
            return Err(MessageError::QuestionCount);
        }
        let questions = Wire::read_queries(&mut decoder, 1).map_err(|_| MessageError::Broken)?;
        let [question] = &questions[..] else { return Err(MessageError::QuestionCount) };
        if question.query_class() != DNSClass::IN {
            return Err(MessageError::Class);
        }
        let answer = match header.message_type {
            MessageType::Query => None,
            MessageType::Response => {
                let count = usize::from(header.counts.answers);
                let (records, ..) =
                    Wire::read_records(&mut decoder, count, false, header.op_code).map_err(|_| MessageError::Broken)?;
                Some(answer(header.response_code, &records))
            }
        };
        Ok(Self { id: header.id, name: name(question.name())?, qtype: question.query_type().into(), answer })
    }

    /// What it asks, as an observation has it. An answer repeats its question, so it has one too.
    #[must_use]
    pub fn question(&self, resource: ResourceId, direction: Direction) -> Seen {
        Seen::Question { resource, name: Some(self.name.clone()), qtype: self.qtype, direction, interface: 0 }
    }

    /// What it answers. None for a question, and none for response codes that say nothing of the name (all but NOERROR
    /// and NXDOMAIN), as from the kernel.
    #[must_use]
    pub fn answer(&self, resource: ResourceId) -> Option<Seen> {
        let Answer { rcode, ttl, addresses, service_binding } = self.answer.clone()?;
        let noerror_or_nxdomain = matches!(rcode, 0 | 3);
        noerror_or_nxdomain.then(|| Seen::Answer {
            resource,
            name: Some(self.name.clone()),
            qtype: self.qtype,
            rcode,
            ttl,
            addresses,
            service_binding,
        })
    }
}

fn answer(rcode: ResponseCode, records: &[Record]) -> Answer {
    // The uppermost bit set means zero (RFC 2181, 8).
    let seconds = |ttl: u32| if ttl >> 31 == 1 { 0 } else { ttl };
    let ttl = records.iter().map(|record| seconds(record.ttl)).min().unwrap_or(0);
    let ours = records.iter().filter(|record| record.dns_class == DNSClass::IN);
    let addresses = ours.clone().filter_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    });
    Answer {
        rcode: rcode.low(),
        ttl: Duration::from_secs(ttl.into()),
        addresses: addresses.take(ADDRESSES).collect(),
        service_binding: ours
            .clone()
            .any(|record| matches!(record.record_type(), RecordType::HTTPS | RecordType::SVCB)),
    }
}

fn name(name: &hickory_proto::rr::Name) -> Result<Name, MessageError> {
    let mut wire = Vec::with_capacity(Name::MAX_WIRE);
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).map_err(|_| MessageError::Broken)?);
        wire.extend_from_slice(label);
    }
    wire.push(0);
    Name::from_wire(&wire).map_err(|_| MessageError::Broken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `www.example.org`, asked for by type A and answered by a CNAME, an address and one behind a set uppermost bit.
    const HEADER: [u8; 12] = [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
    const QUESTION: &[u8] = b"\x03wWw\x07eXample\x03org\0\0\x01\0\x01";
    const ALIAS: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\x01\x2c\0\x06\x03cdn\xc0\x10";
    const ADDRESS: &[u8] = b"\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";

    fn message(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn an_answer_is_read_through_its_alias() {
        let read = Message::read(&message(&[&HEADER, QUESTION, ALIAS, ADDRESS])).unwrap();
        assert_eq!((read.id, read.name.to_string().as_str(), read.qtype), (0x1234, "www.example.org", 1));
        let answer = read.answer.clone().unwrap();
        assert_eq!(answer.ttl, Duration::from_secs(60), "the least of both");
        assert_eq!(answer.addresses, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(matches!(read.answer(ResourceId(7)), Some(Seen::Answer { resource: ResourceId(7), rcode: 0, .. })));
        assert!(matches!(
            read.question(ResourceId(7), Direction::Ingress),
            Seen::Question { name: Some(name), qtype: 1, .. } if name == read.name
        ));
    }

    #[test]
    fn a_question_needs_no_more_than_its_question() {
        let mut header = HEADER;
        (header[2], header[3]) = (1, 0);
        // What it announces behind the question is not looked at.
        let read = Message::read(&message(&[&header, QUESTION])).unwrap();
        assert_eq!(read.answer, None);
        assert_eq!(read.answer(ResourceId(1)), None);
    }

    #[test]
    fn what_says_nothing_is_told_apart() {
        let with = |change: fn(&mut Vec<u8>)| {
            let mut bytes = message(&[&HEADER, QUESTION, ALIAS, ADDRESS]);
            change(&mut bytes);
            Message::read(&bytes)
        };
        assert_eq!(with(|bytes| bytes[2] |= 0x28), Err(MessageError::Opcode));
        assert_eq!(with(|bytes| bytes[5] = 0), Err(MessageError::QuestionCount));
        assert_eq!(with(|bytes| bytes[5] = 2), Err(MessageError::QuestionCount));
        assert_eq!(with(|bytes| bytes[32] = 3), Err(MessageError::Class));
        assert_eq!(with(|bytes| bytes.truncate(40)), Err(MessageError::Broken));
        assert_eq!(with(|bytes| bytes.truncate(11)), Err(MessageError::Broken));
        // A server that fails says nothing of the name; one that knows that there is no such name does.
        assert_eq!(with(|bytes| bytes[3] |= 2).unwrap().answer(ResourceId(1)), None);
        assert!(with(|bytes| bytes[3] |= 3).unwrap().answer(ResourceId(1)).is_some());
    }

    #[test]
    fn a_ttl_with_its_uppermost_bit_set_is_zero() {
        let mut bytes = message(&[&HEADER, QUESTION, ALIAS, ADDRESS]);
        bytes[39] = 0x80;
        assert_eq!(Message::read(&bytes).unwrap().answer.unwrap().ttl, Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _outcome = Message::read(&bytes);
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0..61_usize, byte in any::<u8>(), length in 0..80_usize) {
            let mut bytes = message(&[&HEADER, QUESTION, ALIAS, ADDRESS]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(length);
            let _outcome = Message::read(&bytes);
        }

        /// Every name that fits comes out as the kernel's parser folds it, odd bytes included.
        #[test]
        fn names_are_those_of_the_kernel(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let mut bytes = HEADER.to_vec();
            (bytes[2], bytes[3], bytes[7]) = (1, 0, 0);
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(u8::try_from(label.len()).unwrap());
                wire.extend_from_slice(label);
            }
            wire.push(0);
            bytes.extend_from_slice(&wire);
            bytes.extend_from_slice(&[0, 28, 0, 1]);
            let read = Message::read(&bytes).unwrap();
            prop_assert_eq!(read.name, Name::from_wire(&wire).unwrap());
            prop_assert_eq!(read.qtype, 28);
        }
    }
}
