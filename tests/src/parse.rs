//! A frame's way through the parser on the host: what the kernel programs must see in it too.
//!
//! Comes in: a frame and a key. Goes out: what is found there, message by message. Never here: the kernel.

use std::net::{IpAddr, Ipv6Addr};

use prewarm_ebpf::{
    Addresses, Counter, HashKey, Packet as _, Segment, abi, address, header, locate, read, records, scan,
    stream_message, word,
};
use prewarm_user::{
    kernel::{Body, Record},
    model::Name,
};

/// What is found in a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The name's ID.
    pub resource: u64,
    /// The name.
    pub name: Name,
    /// The DNS number, the type and the class.
    pub question: (u16, u16, u16),
    /// Who asked or is answered.
    pub client: IpAddr,
    /// Of an answer: response code, TTL, addresses that a record has room for, all addresses, service binding.
    pub answer: Option<(u8, u64, Vec<IpAddr>, u8, bool)>,
}

/// What the parser finds in a frame.
#[must_use]
pub fn frame(frame: &[u8], key: &HashKey) -> Vec<Found> {
    let Ok(segment) = locate(&frame) else { return Vec::new() };
    let mut found = Vec::new();
    if !segment.tcp {
        found.extend(message(frame, &segment, segment.payload, segment.end, key).ok().flatten());
        return found;
    }
    let mut at = segment.payload;
    for _ in 0..abi::STREAM_MESSAGES {
        let Ok(stream) = stream_message(&frame, &segment, at) else { break };
        found.extend(message(frame, &segment, stream.message, stream.end, key).ok().flatten());
        at = stream.end;
        if at >= segment.end {
            break;
        }
    }
    found
}

fn message(frame: &[u8], segment: &Segment, at: usize, end: usize, key: &HashKey) -> Result<Option<Found>, Counter> {
    let header = header(&frame, segment, at, end)?;
    let client = address(&frame, segment, header.is_answer()).ok_or(Counter::Truncated)?;
    let question = read(&frame, at + 12, end, key, scan(&frame, at + 12, key))?;
    let mut answer = None;
    if header.is_answer() {
        if !matches!(header.rcode(), 0 | 3) {
            return Ok(None);
        }
        let mut held = Held(Vec::new());
        let outline = records(&frame, question.records, end, header.answers, &mut held)?;
        let seen = u8::try_from(outline.addresses).unwrap_or(u8::MAX);
        answer = Some((header.rcode(), outline.ttl.into(), held.0, seen, outline.service_binding));
    }
    Ok(Some(Found {
        resource: question.id,
        name: name(frame, question.name, question.length),
        question: (header.id, question.qtype, question.qclass),
        client: canonical(client),
        answer,
    }))
}

struct Held(Vec<IpAddr>);

impl Addresses for Held {
    fn put(&mut self, index: usize, address: [u64; 2]) {
        assert_eq!(index, self.0.len());
        self.0.push(canonical(address));
    }
}

fn canonical([first, second]: [u64; 2]) -> IpAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&first.to_ne_bytes());
    octets[8..].copy_from_slice(&second.to_ne_bytes());
    Ipv6Addr::from(octets).to_canonical()
}

/// The name as the programs copy it: by words, in lower case.
fn name(frame: &[u8], at: usize, length: usize) -> Name {
    let mut wire: Vec<u8> = (0..length.div_ceil(8))
        .flat_map(|index| prewarm_ebpf::fold(word(&frame, at + 8 * index)).to_le_bytes())
        .collect();
    wire.truncate(length);
    assert!(at + length <= frame.length());
    Name::from_wire(&wire).expect("the parser walked its labels")
}

/// What a program's record says, in the same form.
#[must_use]
pub fn record(record: Record) -> Found {
    let Record { head, name, body } = record;
    let answer = match body {
        Body::Question | Body::Connection(_) => None,
        Body::Answer { rcode, ttl, addresses, addresses_seen } => {
            let binding = head.flags & abi::FLAG_SERVICE_BINDING != 0;
            Some((rcode, ttl.as_secs(), addresses, addresses_seen, binding))
        }
    };
    Found {
        resource: head.resource,
        name: name.expect("no name is known in a trial"),
        question: (head.message, head.qtype, head.qclass),
        client: Ipv6Addr::from(head.client).to_canonical(),
        answer,
    }
}
