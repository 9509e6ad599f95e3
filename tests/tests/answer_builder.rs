//! The builder of answers against hickory: what is laid ready is what the server said, aged; and no bytes make it fall.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name as WireName, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, NS, SOA, TXT},
    },
};
use prewarm_user::{
    model::{Name, ResourceId},
    resolve::answers::{Answer, Question, Unfit},
};
use proptest::prelude::*;

/// What a message is made of.
#[derive(Clone, Debug)]
struct Made {
    labels: Vec<String>,
    chain: Vec<u32>,
    set: Vec<u8>,
    v6: bool,
    ttls: (u32, u32),
    nxdomain: bool,
    edns: bool,
    recursion: bool,
    nameserver: bool,
    stranger: bool,
}

fn made() -> impl Strategy<Value = Made> {
    let labels = prop::collection::vec("[a-z0-9]{1,20}", 1..5);
    let chain = prop::collection::vec(1_u32..100_000, 0..4);
    let set = prop::collection::vec(any::<u8>(), 0..12);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (labels, chain, set, (1_u32..100_000, 1_u32..100_000), flags, prop::bool::weighted(0.1)).prop_map(
        |(labels, chain, set, ttls, (v6, nxdomain, edns, recursion, nameserver), stranger)| Made {
            labels,
            chain,
            set,
            v6,
            ttls,
            nxdomain,
            edns,
            recursion,
            nameserver,
            stranger,
        },
    )
}

impl Made {
    fn question(&self) -> Question {
        let name: Name = format!("{}.example.org", self.labels.join(".")).parse().unwrap();
        let kind = u8::from(self.recursion) | if self.edns { 4 } else { 0 };
        Question { name, qtype: if self.v6 { 28 } else { 1 }, kind }
    }

    fn message(&self) -> Message {
        let question = self.question();
        let asked = WireName::from_ascii(format!("{}.", question.name)).unwrap();
        let mut message = Message::new(77, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = self.recursion;
        message.metadata.recursion_available = true;
        message.add_query(Query::query(asked.clone(), if self.v6 { RecordType::AAAA } else { RecordType::A }));
        let mut owner = asked;
        for (number, &ttl) in self.chain.iter().enumerate() {
            let target = WireName::from_ascii(format!("t{number}.cdn.example.org.")).unwrap();
            message.answers.push(Record::from_rdata(owner, ttl, RData::CNAME(CNAME(target.clone()))));
            owner = target;
        }
        for &byte in &self.set {
            let data = if self.v6 {
                RData::AAAA(AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, byte.into())))
            } else {
                RData::A(A(Ipv4Addr::new(192, 0, 2, byte)))
            };
            message.answers.push(Record::from_rdata(owner.clone(), self.ttls.0, data));
        }
        let zone = WireName::from_ascii("example.org.").unwrap();
        if self.set.is_empty() {
            if self.nxdomain {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, self.ttls.1);
            message.authorities.push(Record::from_rdata(zone, self.ttls.0, RData::SOA(soa)));
        } else if self.nameserver {
            let server = WireName::from_ascii("ns.example.net.").unwrap();
            message.authorities.push(Record::from_rdata(zone, self.ttls.1, RData::NS(NS(server.clone()))));
            message.additionals.push(Record::from_rdata(server, self.ttls.1, RData::A(A(Ipv4Addr::new(9, 9, 9, 9)))));
        }
        if self.stranger {
            let other = WireName::from_ascii("bank.example.com.").unwrap();
            message.additionals.push(Record::from_rdata(other, 60, RData::TXT(TXT::new(vec!["x".to_owned()]))));
        }
        if self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            message.set_edns(edns);
        }
        message
    }
}

/// The message that a question gets so many seconds later, as the kernel makes it of an answer.
fn given(question: &Question, answer: &Answer, id: u16, age: u32) -> Vec<u8> {
    let mut bytes = question.message(id);
    bytes.truncate(12 + question.name.as_wire().len() + 4);
    bytes[2..4].copy_from_slice(&answer.flags.to_be_bytes());
    for (place, count) in bytes[6..12].chunks_mut(2).zip(answer.counts) {
        place.copy_from_slice(&count.to_be_bytes());
    }
    let begin = bytes.len();
    bytes.extend(&answer.body);
    for &at in &answer.ttl_at {
        let place = begin + usize::from(at)..begin + usize::from(at) + 4;
        let ttl = u32::from_be_bytes(bytes[place.clone()].try_into().unwrap()) - age;
        bytes[place].copy_from_slice(&ttl.to_be_bytes());
    }
    bytes
}

fn aged(mut message: Message, id: u16, age: u32) -> Message {
    message.metadata.id = id;
    for record in message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals) {
        record.ttl -= age;
    }
    message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_laid_ready_is_what_was_said(made in made(), share in 0.0_f64..1.0) {
        let (question, message) = (made.question(), made.message());
        let bytes = message.to_vec().unwrap();
        let answer = Answer::read(&question, 77, &bytes);
        if made.stranger {
            prop_assert_eq!(answer, Err(Unfit::Records));
            return Ok(());
        }
        let body = bytes.len() - 12 - question.name.as_wire().len() - 4;
        if body > 512 {
            prop_assert_eq!(answer, Err(Unfit::TooLong));
            return Ok(());
        }
        let answer = match answer {
            // The name that was asked is written out, or named again on the way.
            Err(Unfit::Case | Unfit::Bailiwick) => return Ok(()),
            other => other.unwrap(),
        };
        let records = message.answers.iter().chain(&message.authorities).chain(&message.additionals);
        let mut least = records.map(|record| record.ttl).min().unwrap();
        if made.set.is_empty() {
            least = least.min(made.ttls.1);
        }
        prop_assert_eq!(answer.ttl, least);
        let age = (f64::from(least - 1) * share) as u32;
        let again = Message::from_vec(&given(&question, &answer, 4711, age)).unwrap();
        let wanted = Message::from_vec(&aged(message, 4711, age).to_vec().unwrap()).unwrap();
        prop_assert_eq!(format!("{again:?}"), format!("{wanted:?}"));
        // The slot holds the same.
        let slot = answer.slot(&question, ResourceId(1));
        prop_assert_eq!(&bytemuck::bytes_of(&slot.body)[..answer.body.len()], &answer.body[..]);
        prop_assert_eq!(usize::from(slot.body_length), answer.body.len());
        if let Some(turns) = answer.turns {
            prop_assert_eq!(usize::from(turns.count), made.set.len());
            for (index, &byte) in made.set.iter().enumerate() {
                let last = usize::from(turns.at) + index * usize::from(turns.stride) + usize::from(turns.size) - 1;
                prop_assert_eq!(answer.body[last], byte);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_fall(made in made(), changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6), cut in any::<u16>()) {
        let (question, mut bytes) = (made.question(), made.message().to_vec().unwrap());
        for (at, byte) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        if cut.is_multiple_of(4) {
            bytes.truncate(usize::from(cut) % bytes.len());
        }
        let id = bytes.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
        if let Ok(answer) = Answer::read(&question, id, &bytes) {
            // What it takes, hickory takes too, and sees as many records.
            let again = Message::from_vec(&given(&question, &answer, id, 0));
            prop_assert!(again.is_ok(), "{again:?}: {bytes:02x?}");
            let again = again.unwrap();
            let seen = again.answers.len() + again.authorities.len() + again.additionals.len();
            let edns = usize::from(again.edns.is_some());
            prop_assert_eq!(seen + edns, answer.counts.iter().map(|&count| usize::from(count)).sum::<usize>());
            prop_assert_eq!(answer.ttl_at.len(), seen);
        }
    }

    #[test]
    fn noise_is_no_answer(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let question = Question { name: "www.example.org".parse().unwrap(), qtype: 1, kind: 1 };
        prop_assert!(Answer::read(&question, 7, &bytes).is_err());
    }
}
