//! From a server's answer to what the kernel gives in its place.
//!
//! Comes in: a question as it was asked, and the message that answered it. Goes out: the bytes behind the question, which
//! are good for every question of the same kind, with the places of what changes. Never here: an answer that is refused
//! for not being told exactly; whoever asks such a question is left to the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::Zeroable as _;
use hickory_resolver::proto::op::Message;
use prewarm_ebpf::answers::{
    A, AAAA, AnswerSlot, BODY, FLAG_AD, FLAG_RD, HTTPS, KIND_AUTHENTIC, KIND_EDNS, KIND_RECURSION, TTLS, TURNS,
};

use super::{
    Unfit,
    wire::{self, CNAME, HEADER, NS, Record, SOA, Section},
};
use crate::model::{Name, ResourceId};

const OPT: u16 = 41;
const IN: u16 = 1;
const NOERROR: u16 = 0;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
/// What our own questions state as the size of answers: what fits a packet everywhere (DNS flag day 2020).
const OUR_SIZE: u16 = 1232;

/// What is asked, as every question of its kind asks it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// The name.
    pub name: Name,
    /// The type: A, AAAA or HTTPS.
    pub qtype: u16,
    /// The kind (`KIND_…`).
    pub kind: u8,
}

impl Question {
    /// The message that asks it, under a number.
    #[must_use]
    pub fn message(&self, id: u16) -> Vec<u8> {
        let edns = self.kind & KIND_EDNS != 0;
        let mut flags = if self.kind & KIND_RECURSION != 0 { FLAG_RD } else { 0 };
        flags |= if self.kind & KIND_AUTHENTIC != 0 { FLAG_AD } else { 0 };
        let mut bytes = Vec::with_capacity(48);
        for word in [id, flags, 1, 0, 0, u16::from(edns)] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(self.section());
        if edns {
            bytes.push(0);
            for word in [OPT, OUR_SIZE, 0, 0, 0] {
                bytes.extend(word.to_be_bytes());
            }
        }
        bytes
    }

    /// The question section.
    fn section(&self) -> Vec<u8> {
        let mut bytes = self.name.as_wire().to_vec();
        bytes.extend(self.qtype.to_be_bytes());
        bytes.extend(IN.to_be_bytes());
        bytes
    }
}

/// An answer that can be given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What follows the question.
    pub body: Vec<u8>,
    /// The header's flags.
    pub flags: u16,
    /// How many answer, authority and additional records.
    pub counts: [u16; 3],
    /// Where TTLs are in the body.
    pub ttl_at: Vec<u16>,
    /// The seconds for which all of it is good.
    pub ttl: u32,
    /// The records that take turns.
    pub turns: Option<Turns>,
    /// The size in the server's OPT record.
    pub edns_size: u16,
    /// The addresses, in their order.
    pub addresses: Vec<IpAddr>,
    /// What it says, without TTLs, order and compression: two answers with the same say the same.
    pub says: Vec<Vec<u8>>,
}

/// Records of one set, one after the other, whose data may change places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// Where in the body the data of the first begin.
    pub at: u16,
    /// How far it is to the next.
    pub stride: u16,
    /// How many there are.
    pub count: u8,
    /// The length of each one's data.
    pub size: u8,
}

impl Answer {
    /// Whether it has records that can come in another order.
    #[must_use]
    pub const fn takes_turns(&self) -> bool {
        matches!(self.turns, Some(Turns { count: 2.., .. }))
    }

    /// The same with other TTLs.
    #[must_use]
    pub fn with_ttl(&self, seconds: u32) -> Self {
        let mut other = self.clone();
        other.ttl = seconds;
        for at in &self.ttl_at {
            if let Some(place) = other.body[usize::from(*at)..].first_chunk_mut() {
                *place = seconds.to_be_bytes();
            }
        }
        other
    }

    /// Reads the answer to a question that was asked under this number.
    ///
    /// # Errors
    /// Why it can't be given again.
    pub fn read(question: &Question, id: u16, message: &[u8]) -> Result<Self, Unfit> {
        let edns = question.kind & KIND_EDNS != 0;
        let flags = header(question, id, message)?;
        let section = question.section();
        let body_at = HEADER + section.len();
        if message.get(HEADER..body_at) != Some(&section[..]) {
            return Err(Unfit::Question);
        }
        let counts = [6, 8, 10].map(|at| wire::number(message, at).unwrap_or(0));
        let body = message.get(body_at..).ok_or(Unfit::Malformed)?;
        if body.len() > BODY {
            return Err(Unfit::TooLong);
        }
        let records = wire::records(message, body_at, counts)?;
        wire::pointers(message, &records)?;
        // A second opinion: nothing is given again that another reader stumbles over.
        if Message::from_vec(message).is_err() {
            return Err(Unfit::Malformed);
        }
        let edns_size = opt(&records, edns)?;
        let aged: Vec<&Record> = records.iter().filter(|record| record.rtype != OPT).collect();
        if aged.is_empty() || aged.len() > TTLS {
            return Err(Unfit::Records);
        }
        chain(question, flags & 0xf, message, &records)?;
        let ttl = lifetime(message, &aged)?;
        let place = |at: usize| u16::try_from(at - body_at).map_err(|_| Unfit::TooLong);
        Ok(Self {
            flags,
            counts,
            ttl_at: aged.iter().map(|record| place(record.ttl_at)).collect::<Result<_, _>>()?,
            ttl,
            turns: turns(question.qtype, body_at, message, &records),
            edns_size,
            addresses: addresses(question.qtype, message, &records),
            says: says(flags, message, &records)?,
            body: body.to_vec(),
        })
    }

    /// The slot that says it; the server, the interface and the times are left to whoever writes it.
    #[must_use]
    pub fn slot(&self, question: &Question, resource: ResourceId) -> AnswerSlot {
        let mut slot = AnswerSlot::zeroed();
        slot.resource = resource.0;
        slot.qtype = question.qtype;
        slot.kind = question.kind;
        let section = question.section().to_ascii_lowercase();
        slot.name_length = (section.len() - 4) as u8;
        bytemuck::bytes_of_mut(&mut slot.question)[..section.len()].copy_from_slice(&section);
        bytemuck::bytes_of_mut(&mut slot.body)[..self.body.len()].copy_from_slice(&self.body);
        slot.body_length = self.body.len() as u16;
        slot.flags = self.flags.to_be();
        slot.counts = self.counts.map(u16::to_be);
        slot.sum = sum(&self.body);
        // A TTL that begins at an even place counts by its bytes' pairs as they lie in memory, another by the others'.
        slot.ageing = self.ttl_at.iter().map(|at| if at % 2 == 0 { 256 } else { 1 }).sum::<u32>() % 65_535;
        slot.ttls = self.ttl_at.len() as u8;
        slot.ttl_at[..self.ttl_at.len()].copy_from_slice(&self.ttl_at);
        slot.edns_size = self.edns_size.to_be();
        if let Some(Turns { at, stride, count, size }) = self.turns {
            (slot.turn_at, slot.turn_stride, slot.turns, slot.turn_size) = (at, stride, count, size);
        }
        slot
    }

    /// Whether the other says the same.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        self.says == other.says
    }
}

/// The sum of 16-bit words as they lie in memory (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 8).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// The flags of the header, if it is one of an answer to that question.
fn header(question: &Question, id: u16, message: &[u8]) -> Result<u16, Unfit> {
    let flags = wire::number(message, 2)?;
    if wire::number(message, 0)? != id || wire::number(message, 4)? != 1 || flags & 0x8000 == 0 {
        return Err(Unfit::Question);
    }
    let wanted = if question.kind & KIND_RECURSION != 0 { FLAG_RD } else { 0 };
    // Another opcode, cut (TC), unknown (Z), or CD, which we did not set.
    if flags & 0x7800 != 0 || flags & 0x0250 != 0 || flags & FLAG_RD != wanted {
        return Err(Unfit::Flags);
    }
    match flags & 0xf {
        NOERROR | NXDOMAIN => Ok(flags),
        SERVFAIL => Err(Unfit::Failed),
        _ => Err(Unfit::Rcode),
    }
}

/// The size in the OPT record, of which there must be one where the question has one, and nothing in it.
fn opt(records: &[Record], wanted: bool) -> Result<u16, Unfit> {
    let mut found = records.iter().filter(|record| record.rtype == OPT);
    match (found.next(), wanted) {
        (None, false) => Ok(0),
        (Some(opt), true) if found.next().is_none() => {
            let is_plain =
                opt.section == Section::Additional && opt.owner == [0] && opt.ttl == 0 && opt.data == opt.end;
            if is_plain { Ok(opt.class) } else { Err(Unfit::Edns) }
        }
        _ => Err(Unfit::Edns),
    }
}

/// Sees that the answer section is the chain from the name that was asked to what was asked of it, and that nothing in
/// the other sections is about anything else.
fn chain(question: &Question, rcode: u16, message: &[u8], records: &[Record]) -> Result<(), Unfit> {
    let mut current = question.name.as_wire().to_vec();
    // The names that the answer is about: the one asked, what it leads to, and servers and services named on the way.
    let mut about = vec![current.clone()];
    let mut named = Vec::new();
    let mut found = false;
    for record in records.iter().filter(|record| record.rtype != OPT) {
        if record.class != IN {
            return Err(Unfit::Records);
        }
        let target = || whole_name(message, record.data, record.end);
        match (record.section, record.rtype) {
            (Section::Answer, CNAME) => {
                if found || record.owner != current {
                    return Err(Unfit::Bailiwick);
                }
                current = target()?;
                if about.contains(&current) {
                    return Err(Unfit::Bailiwick);
                }
                about.push(current.clone());
            }
            (Section::Answer, rtype) => {
                if rtype != question.qtype || record.owner != current {
                    return Err(Unfit::Bailiwick);
                }
                let length = record.end - record.data;
                if (rtype == A && length != 4) || (rtype == AAAA && length != 16) {
                    return Err(Unfit::Malformed);
                }
                if rtype == HTTPS {
                    // The service's parameters follow its name.
                    named.push(wire::name(message, record.data + 2)?.0);
                }
                found = true;
            }
            (Section::Authority, SOA | NS) => {
                if !about.iter().any(|name| is_within(name, &record.owner)) {
                    return Err(Unfit::Bailiwick);
                }
                if record.rtype == NS {
                    named.push(target()?);
                } else {
                    let (_, person) = wire::name(message, record.data)?;
                    let (_, numbers) = wire::name(message, person)?;
                    if numbers + 20 != record.end {
                        return Err(Unfit::Malformed);
                    }
                }
            }
            (Section::Additional, A | AAAA) if named.contains(&record.owner) || about.contains(&record.owner) => {}
            _ => return Err(Unfit::Records),
        }
        // Where it is written out, nobody knows whose case it has.
        if record.owner == question.name.as_wire() && !record.is_asked {
            return Err(Unfit::Case);
        }
    }
    let has_soa = records.iter().any(|record| record.section == Section::Authority && record.rtype == SOA);
    match (found, rcode) {
        (true, NOERROR) => Ok(()),
        (false, _) if has_soa => Ok(()),
        _ => Err(Unfit::Negative),
    }
}

/// The name that fills the bytes from `at` to `end`.
fn whole_name(message: &[u8], at: usize, end: usize) -> Result<Vec<u8>, Unfit> {
    match wire::name(message, at)? {
        (name, after) if after == end => Ok(name),
        _ => Err(Unfit::Malformed),
    }
}

/// Whether a name lies in a zone; both in wire format.
fn is_within(name: &[u8], zone: &[u8]) -> bool {
    let mut at = 0;
    loop {
        if name.get(at..) == Some(zone) {
            return true;
        }
        match name.get(at) {
            Some(&length) if length != 0 => at += 1 + usize::from(length),
            _ => return false,
        }
    }
}

/// For how long all of it is good.
fn lifetime(message: &[u8], records: &[&Record]) -> Result<u32, Unfit> {
    let mut least = u32::MAX;
    for record in records {
        // The uppermost bit set means zero (RFC 2181, 8).
        if record.ttl == 0 || record.ttl >> 31 == 1 {
            return Err(Unfit::Ttl);
        }
        least = least.min(record.ttl);
        if record.rtype == SOA {
            // The last of its five numbers holds for what isn't there (RFC 2308, 4).
            let at = record.end.checked_sub(4).filter(|at| *at > record.data).ok_or(Unfit::Malformed)?;
            let minimum = u32::from(wire::number(message, at)?) << 16 | u32::from(wire::number(message, at + 2)?);
            if record.section == Section::Authority && minimum > 0 {
                least = least.min(minimum);
            }
        }
    }
    Ok(least)
}

/// The records that may take turns: all those of the asked type, if they lie one after the other and differ only in their
/// data.
fn turns(qtype: u16, body_at: usize, message: &[u8], records: &[Record]) -> Option<Turns> {
    let set: Vec<&Record> =
        records.iter().filter(|record| record.section == Section::Answer && record.rtype == qtype).collect();
    let (first, second) = (set.first()?, set.get(1)?);
    if !matches!(qtype, A | AAAA) || set.len() > TURNS {
        return None;
    }
    let head = message.get(first.at..first.data)?;
    let stride = second.at - first.at;
    for (index, record) in set.iter().enumerate() {
        if record.at != first.at + index * stride || message.get(record.at..record.data)? != head {
            return None;
        }
    }
    Some(Turns {
        at: u16::try_from(first.data - body_at).ok()?,
        stride: u16::try_from(stride).ok()?,
        count: set.len() as u8,
        size: (first.end - first.data) as u8,
    })
}

fn addresses(qtype: u16, message: &[u8], records: &[Record]) -> Vec<IpAddr> {
    let set = records.iter().filter(|record| record.section == Section::Answer && record.rtype == qtype);
    let address = |record: &Record| {
        let data = message.get(record.data..record.end)?;
        match qtype {
            A => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?))),
            AAAA => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?))),
            _ => None,
        }
    };
    set.filter_map(address).collect()
}

/// What a message says, without TTLs, order and compression.
fn says(flags: u16, message: &[u8], records: &[Record]) -> Result<Vec<Vec<u8>>, Unfit> {
    let mut all = vec![flags.to_be_bytes().to_vec()];
    for record in records {
        let mut bytes = vec![record.section as u8];
        bytes.extend(&record.owner);
        bytes.extend(record.rtype.to_be_bytes());
        bytes.extend(record.class.to_be_bytes());
        match record.rtype {
            CNAME | NS => bytes.extend(wire::name(message, record.data)?.0),
            SOA => {
                let (server, next) = wire::name(message, record.data)?;
                let (person, next) = wire::name(message, next)?;
                bytes.extend(server);
                bytes.extend(person);
                bytes.extend(message.get(next..record.end).ok_or(Unfit::Malformed)?);
            }
            _ => bytes.extend(message.get(record.data..record.end).ok_or(Unfit::Malformed)?),
        }
        all.push(bytes);
    }
    all[1..].sort();
    Ok(all)
}
