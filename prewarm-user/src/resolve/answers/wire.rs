//! A DNS message, read by the byte: what hickory does not tell is where each thing stands.
//!
//! Comes in: a message. Goes out: its header, names without their compression, records with their places. Never here: what
//! may be done with them.

use std::collections::HashSet;

use prewarm_ebpf::answers::HTTPS;

use super::Unfit;

pub(super) const NS: u16 = 2;
pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;

/// The length of a header.
pub(super) const HEADER: usize = 12;
/// Pointers followed in one name; each must lead to before itself, so this is only a bound on work.
const MAX_POINTERS: usize = 32;
/// The longest name in wire format.
const MAX_NAME: usize = 255;

/// Where records of a message stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Answer,
    Authority,
    Additional,
}

/// A record and its places.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) section: Section,
    /// The owner in lower case, without compression.
    pub(super) owner: Vec<u8>,
    /// Where it begins.
    pub(super) at: usize,
    /// Whether the owner is a pointer to the question's name.
    pub(super) is_asked: bool,
    pub(super) rtype: u16,
    pub(super) class: u16,
    pub(super) ttl: u32,
    /// Where the TTL stands.
    pub(super) ttl_at: usize,
    /// Where the data begin.
    pub(super) data: usize,
    /// Where they end.
    pub(super) end: usize,
}

/// The 16-bit number at `at`.
pub(super) fn number(message: &[u8], at: usize) -> Result<u16, Unfit> {
    let bytes = message.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Unfit::Malformed)?;
    Ok(u16::from_be_bytes(*bytes))
}

/// The name at `at` in lower case without compression, and where what follows it begins.
pub(super) fn name(message: &[u8], at: usize) -> Result<(Vec<u8>, usize), Unfit> {
    let mut wire = Vec::with_capacity(32);
    let (mut at, mut after, mut pointers) = (at, None, 0);
    loop {
        let &length = message.get(at).ok_or(Unfit::Malformed)?;
        match length {
            0 => {
                wire.push(0);
                return Ok((wire, after.unwrap_or(at + 1)));
            }
            1..=63 => {
                let label = message.get(at..=at + usize::from(length)).ok_or(Unfit::Malformed)?;
                wire.extend(label.iter().map(u8::to_ascii_lowercase));
                if wire.len() >= MAX_NAME {
                    return Err(Unfit::Malformed);
                }
                at += 1 + usize::from(length);
            }
            0xc0.. => {
                let target = usize::from(number(message, at)? & 0x3fff);
                after = after.or(Some(at + 2));
                pointers += 1;
                if target >= at || target < HEADER || pointers > MAX_POINTERS {
                    return Err(Unfit::Malformed);
                }
                at = target;
            }
            _ => return Err(Unfit::Malformed),
        }
    }
}

/// Sees that each pointer in the names of a message, from the question on, leads to where a label of an earlier name
/// begins (RFC 1035, 4.1.4). One that leads anywhere else would make a name of bytes that change: a TTL, or an address
/// that takes turns.
pub(super) fn pointers(message: &[u8], records: &[Record]) -> Result<(), Unfit> {
    let mut labels = HashSet::new();
    let mut walk = |at| walk(message, at, &mut labels);
    walk(HEADER)?;
    for record in records {
        walk(record.at)?;
        // How many names the data have, and where the first stands: the priority of a service comes before its name.
        let (mut at, names) = match record.rtype {
            CNAME | NS => (record.data, 1),
            SOA => (record.data, 2),
            HTTPS => (record.data + 2, 1),
            _ => (record.data, 0),
        };
        for _ in 0..names {
            at = walk(at)?;
        }
    }
    Ok(())
}

/// Notes where the labels of the name at `at` begin; gives where what follows it does.
fn walk(message: &[u8], mut at: usize, labels: &mut HashSet<usize>) -> Result<usize, Unfit> {
    loop {
        match message.get(at) {
            Some(0xc0..) => {
                let target = usize::from(number(message, at)? & 0x3fff);
                return if labels.contains(&target) { Ok(at + 2) } else { Err(Unfit::Malformed) };
            }
            Some(&length @ 0..=63) => {
                labels.insert(at);
                at += 1 + usize::from(length);
                if length == 0 {
                    return Ok(at);
                }
            }
            _ => return Err(Unfit::Malformed),
        }
    }
}

/// The records of all sections from `at`, which must fill the message.
pub(super) fn records(message: &[u8], at: usize, counts: [u16; 3]) -> Result<Vec<Record>, Unfit> {
    let mut found = Vec::new();
    let mut at = at;
    for (section, count) in [Section::Answer, Section::Authority, Section::Additional].into_iter().zip(counts) {
        for _ in 0..count {
            let (owner, fixed) = name(message, at)?;
            let is_asked = message.get(at..at + 2) == Some(&[0xc0, 0x0c]);
            let data = fixed + 10;
            let end = data + usize::from(number(message, fixed + 8)?);
            if end > message.len() {
                return Err(Unfit::Malformed);
            }
            let ttl = u32::from(number(message, fixed + 4)?) << 16 | u32::from(number(message, fixed + 6)?);
            let (rtype, class) = (number(message, fixed)?, number(message, fixed + 2)?);
            found.push(Record { section, owner, at, is_asked, rtype, class, ttl, ttl_at: fixed + 4, data, end });
            at = end;
        }
    }
    // What stands behind the last record is nothing that we know.
    if at == message.len() { Ok(found) } else { Err(Unfit::Malformed) }
}
