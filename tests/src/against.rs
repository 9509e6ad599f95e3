//! Our own reading of DNS beside hickory's, over any bytes: the body of the fuzz targets and of the tests that run them
//! for a moment.
//!
//! Comes in: the bytes of a message. Goes out: nothing; where the two differ it panics and says how. Never here: where
//! the bytes come from.

use std::net::IpAddr;

use hickory_proto::{
    op::{Header, Message, OpCode, Query},
    rr::{DNSClass, Name as WireName, RData, Record},
    serialize::binary::{BinDecodable as _, BinDecoder},
};
use prewarm_ebpf::{
    HashKey,
    answers::{A, AAAA, HTTPS},
};
use prewarm_user::{
    kernel::Key,
    model::Name,
    resolve::answers::{Answer, Question},
};

use crate::{
    frames,
    parse::{self, Found},
};

/// The longest message that is looked at: it has to fit a frame.
pub const LONGEST: usize = 1400;

/// The parser of the kernel programs must find what hickory finds: a question in any message whose question's name is
/// written out, and nothing else; in an answer that hickory reads to its end, the same addresses and TTL.
pub fn parser(bytes: &[u8], key: &HashKey) {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let Ok(root) = ".".parse::<Name>() else { return };
    let envelope = frames::Question::new(root);
    let asked = frames::wrap(&envelope, 17, &frames::udp(40_000, 53, bytes), false);
    let answered = frames::wrap(&envelope, 17, &frames::udp(53, 40_000, bytes), true);
    let (asked, answered) = (parse::frame(&asked, key), parse::frame(&answered, key));
    let wanted = question(bytes);
    let is_answer = bytes.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let (right, wrong) = if is_answer { (&answered, &asked) } else { (&asked, &answered) };
    assert!(wrong.is_empty(), "in the wrong direction: {wrong:?}");
    for found in right {
        let same = wanted.as_ref().is_some_and(|(name, question)| found.name == *name && found.question == *question);
        assert!(same, "{found:?}, not {wanted:?} of {bytes:02x?}");
    }
    if !is_answer {
        assert_eq!(right.len(), usize::from(wanted.is_some()), "{wanted:?} of {bytes:02x?}");
    } else if wanted.is_some()
        && let Ok(message) = Message::from_vec(bytes)
        && matches!(u8::try_from(u16::from(message.metadata.response_code) & 0xf), Ok(0 | 3))
    {
        compare_records(right, &message);
    }
}

/// The question as hickory reads it, if its name is written out.
fn question(bytes: &[u8]) -> Option<(Name, (u16, u16, u16))> {
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).ok()?;
    if header.metadata.op_code != OpCode::Query || header.counts.queries != 1 {
        return None;
    }
    let query = Query::read(&mut decoder).ok()?;
    let name = Name::from_wire(&wire(query.name())).ok()?;
    // A name that points elsewhere is longer than what was read of it.
    let is_whole = decoder.index() == 12 + name.as_wire().len() + 4;
    let question = (header.metadata.id, u16::from(query.query_type()), u16::from(query.query_class()));
    is_whole.then_some((name, question))
}

fn wire(name: &WireName) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.iter() {
        wire.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        wire.extend(label.to_ascii_lowercase());
    }
    wire.push(0);
    wire
}

fn compare_records(found: &[Found], message: &Message) {
    // One step a record and one a label: what lies behind the last step isn't looked at.
    if message.answers.len() > 12 || message.answers.iter().any(|record| record.name.iter().count() > 4) {
        return;
    }
    let [Found { answer: Some((_, ttl, addresses, count, _)), .. }] = found else {
        panic!("{found:?}, and hickory reads {message:?}")
    };
    let all: Vec<IpAddr> =
        message.answers.iter().filter(|record| record.dns_class == DNSClass::IN).filter_map(ip).collect();
    assert_eq!(usize::from(*count), all.len(), "{message:?}");
    let held: Vec<IpAddr> = all.into_iter().take(addresses.len()).map(|address| address.to_canonical()).collect();
    assert_eq!(*addresses, held, "{message:?}");
    // The uppermost bit set means zero (RFC 2181, 8).
    let ttls = message.answers.iter().map(|record| if record.ttl >> 31 == 1 { 0 } else { record.ttl });
    assert_eq!(*ttl, u64::from(ttls.min().unwrap_or(0)), "{message:?}");
}

fn ip(record: &Record) -> Option<IpAddr> {
    match record.data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

/// An answer that is laid ready says what its message said, in hickory's reading, with all TTLs as much less as time has
/// passed. Gives whether there is one.
pub fn answer(bytes: &[u8]) -> bool {
    let Some((name, (id, qtype @ (A | AAAA | HTTPS), _))) = question(bytes) else {
        return false;
    };
    let edns = Message::from_vec(bytes).is_ok_and(|message| message.edns.is_some());
    let recursion = bytes.get(2).is_some_and(|flags| flags & 1 != 0);
    let question = Question { name, qtype, kind: u8::from(recursion) | if edns { 4 } else { 0 } };
    let Ok(answer) = Answer::read(&question, id, bytes) else { return false };
    // What hickory refuses in a record's data is given as the server said it: hickory must refuse that too.
    let said = Message::from_vec(bytes).ok();
    for age in [0, answer.ttl / 2, answer.ttl.saturating_sub(1)] {
        let given = given(&question, &answer, id, age);
        let again = Message::from_vec(&given).ok();
        let (again, wanted) = (again.map(|again| shown(&again, 0)), said.as_ref().map(|said| shown(said, age)));
        assert_eq!(again, wanted, "{bytes:02x?}");
    }
    true
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
        let mut ttl = [0; 4];
        ttl.copy_from_slice(&bytes[place.clone()]);
        bytes[place].copy_from_slice(&(u32::from_be_bytes(ttl) - age).to_be_bytes());
    }
    bytes
}

/// What a message says, in lower case: the question of a slot is written so.
fn shown(message: &Message, age: u32) -> Vec<String> {
    let sections = [&message.answers, &message.authorities, &message.additionals];
    let mut lines = vec![format!("{:?} {:?}", message.metadata, message.edns)];
    for (number, section) in sections.into_iter().enumerate() {
        for record in section {
            let ttl = i64::from(record.ttl) - i64::from(age);
            lines.push(
                format!("{number} {} {ttl} {:?} {:?}", record.name, record.dns_class, record.data).to_lowercase(),
            );
        }
    }
    lines
}

/// The key that names are hashed by here.
#[must_use]
pub fn key() -> Key {
    Key::from_secret(&[9; 32])
}
