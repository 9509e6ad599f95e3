//! From a record of the ring to an observation.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use bytemuck::{AnyBitPattern, NoUninit};
use prewarm_ebpf::abi::{
    AnswerRecord, FLAG_EGRESS, FLAG_NAMED, FLAG_SERVICE_BINDING, Head, KIND_ANSWER, KIND_QUESTION, NameField,
    QuestionRecord,
};

use crate::model::{Direction, Name, Observation, ResourceId, Seen, Timestamp};

/// Class IN (RFC 1035, 3.2.4).
const IN: u16 = 1;

/// Why a record is no observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter than its kind says, or of no known kind.
    #[error("the record has an unknown form")]
    Form,
    /// Its name is none.
    #[error("the record's name is none")]
    Name,
    /// Of another class than IN.
    #[error("the record is of another class than IN")]
    Class,
}

/// Reads a record.
///
/// # Errors
/// When it is none of the contract's, or of a class that nobody resolves hosts in.
pub fn observation(record: &[u8]) -> Result<Observation, RecordError> {
    let head: Head = part(record, 0)?;
    let resource = ResourceId(head.resource);
    let seen = match head.kind {
        KIND_QUESTION => {
            let _: QuestionRecord = part(record, 0)?;
            let name = if named(&head) { Some(part(record, size_of::<QuestionRecord>())?) } else { None };
            Seen::Question {
                resource,
                name: name.map(|field| read_name(&field, &head)).transpose()?,
                qtype: head.qtype,
                direction: if head.flags & FLAG_EGRESS == 0 { Direction::Ingress } else { Direction::Egress },
                interface: head.interface,
            }
        }
        KIND_ANSWER => {
            let answer: AnswerRecord = part(record, 0)?;
            let addresses = answer.addresses.iter().take(usize::from(answer.addresses_held)).copied().map(address);
            Seen::Answer {
                resource,
                name: named(&head).then(|| read_name(&answer.name, &head)).transpose()?,
                qtype: head.qtype,
                rcode: answer.rcode,
                ttl: Duration::from_secs(u64::from(answer.ttl)),
                addresses: addresses.collect(),
                service_binding: head.flags & FLAG_SERVICE_BINDING != 0,
            }
        }
        _ => return Err(RecordError::Form),
    };
    if head.qclass != IN {
        return Err(RecordError::Class);
    }
    Ok(Observation { at: Timestamp::from_nanos(head.time), client: address(head.client), seen })
}

const fn named(head: &Head) -> bool {
    head.flags & FLAG_NAMED != 0
}

fn read_name(field: &NameField, head: &Head) -> Result<Name, RecordError> {
    let wire = field.wire.get(..usize::from(head.name_length)).ok_or(RecordError::Name)?;
    Name::from_wire(wire).map_err(|_| RecordError::Name)
}

fn part<T: AnyBitPattern + NoUninit>(record: &[u8], at: usize) -> Result<T, RecordError> {
    let bytes = record.get(at..at + size_of::<T>()).ok_or(RecordError::Form)?;
    Ok(bytemuck::pod_read_unaligned(bytes))
}

/// IPv4 stands as a mapped address.
fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use prewarm_ebpf::abi::NamedQuestionRecord;

    use super::*;

    fn mapped(last: u8) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[10..12].fill(0xff);
        bytes[12..].copy_from_slice(&[192, 0, 2, last]);
        bytes
    }

    fn question() -> NamedQuestionRecord {
        let mut record = NamedQuestionRecord::zeroed();
        let wire = b"\x03www\x07example\0";
        record.question.head = Head {
            kind: KIND_QUESTION,
            name_length: u8::try_from(wire.len()).unwrap(),
            flags: FLAG_NAMED | FLAG_EGRESS,
            interface: 3,
            time: 5,
            resource: 7,
            client: mapped(1),
            qtype: 28,
            qclass: 1,
            ..Head::zeroed()
        };
        record.name.wire[..wire.len()].copy_from_slice(wire);
        record
    }

    #[test]
    fn a_question_comes_through_whole() {
        let seen = observation(bytemuck::bytes_of(&question())).unwrap();
        assert_eq!(seen.client, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(seen.at, Timestamp::from_nanos(5));
        let name = Some("www.example".parse().unwrap());
        let expected =
            Seen::Question { resource: ResourceId(7), name, qtype: 28, direction: Direction::Egress, interface: 3 };
        assert_eq!(seen.seen, expected);
    }

    #[test]
    fn an_answer_gives_the_addresses_it_holds() {
        let mut record = AnswerRecord::zeroed();
        record.head = Head { kind: KIND_ANSWER, qclass: 1, client: mapped(1), ..Head::zeroed() };
        record.ttl = 60;
        record.addresses_held = 2;
        record.addresses[0] = mapped(8);
        record.addresses[1] = mapped(9);
        record.addresses[2] = mapped(10);
        let Seen::Answer { ttl, addresses, name, .. } = observation(bytemuck::bytes_of(&record)).unwrap().seen else {
            panic!("an answer is an answer")
        };
        assert_eq!((ttl, name), (Duration::from_secs(60), None));
        assert_eq!(addresses, ["192.0.2.8".parse::<IpAddr>().unwrap(), "192.0.2.9".parse().unwrap()]);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let whole = question();
        let bytes = bytemuck::bytes_of(&whole);
        for length in 0..bytes.len() {
            assert_eq!(observation(&bytes[..length]), Err(RecordError::Form), "{length} bytes");
        }
        let mut chaos = whole;
        chaos.question.head.qclass = 3;
        assert_eq!(observation(bytemuck::bytes_of(&chaos)), Err(RecordError::Class));
        chaos.question.head.name_length = 3;
        assert_eq!(observation(bytemuck::bytes_of(&chaos)), Err(RecordError::Name));
        chaos.question.head.kind = 9;
        assert_eq!(observation(bytemuck::bytes_of(&chaos)), Err(RecordError::Form));
    }
}
