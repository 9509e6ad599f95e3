//! The DNS header and the question (RFC 1035, 4.1).

use crate::{Counter, HashKey, Packet, Scan, Segment, be16, hash_walked, walk};

/// What matters of a DNS header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message's number.
    pub id: u16,
    /// The 16 bits of flags.
    pub flags: u16,
    /// How many records are in the answer section.
    pub answers: u16,
    /// How many records are in the authority section.
    pub authorities: u16,
    /// How many records are in the additional section.
    pub additionals: u16,
}

impl Header {
    /// Whether this is an answer (QR).
    #[inline(always)]
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Whether it was cut to fit (TC).
    #[inline(always)]
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// The response code, without EDNS.
    #[inline(always)]
    #[must_use]
    pub const fn rcode(&self) -> u8 {
        (self.flags & 0xf) as u8
    }
}

/// A question that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name's ID.
    pub id: u64,
    /// Where the name begins.
    pub name: usize,
    /// Its length in wire format.
    pub length: usize,
    /// The type asked for.
    pub qtype: u16,
    /// The class asked for.
    pub qclass: u16,
    /// Where the records behind it begin.
    pub records: usize,
}

/// Reads the header of the message from `at` to `end` and sees that it is a QUERY with one question whose direction
/// suits the ports: questions go to port 53, answers come from there.
///
/// # Errors
/// The reason why not.
#[inline(always)]
pub fn header<P: Packet>(packet: &P, segment: &Segment, at: usize, end: usize) -> Result<Header, Counter> {
    let Some(bytes) = packet.window::<12>(at) else { return Err(Counter::ShortMessage) };
    if packet.beyond(at + 12, end) {
        return Err(Counter::ShortMessage);
    }
    let header = Header {
        id: be16(bytes, 0),
        flags: be16(bytes, 2),
        answers: be16(bytes, 6),
        authorities: be16(bytes, 8),
        additionals: be16(bytes, 10),
    };
    // By a shift, so that the verifier does not follow questions and answers apart from here on.
    if segment.ports >> (header.flags >> 15) & 1 == 0 {
        return Err(Counter::WrongDirection);
    }
    if header.flags & 0x7800 != 0 {
        return Err(Counter::Opcode);
    }
    if be16(bytes, 4) != 1 {
        return Err(Counter::QuestionCount);
    }
    Ok(header)
}

/// What a scan makes of the question at `at`: right unless a label holds a zero byte, so good for comparing only.
#[inline(always)]
pub fn question<P: Packet>(packet: &P, at: usize, end: usize, scanned: Option<Scan>) -> Option<Question> {
    let Scan { id, length } = scanned?;
    typed(packet, at, end, id, length)
}

/// Reads the question at `at` label by label. `scanned` is what [`scan`](crate::scan) found there, if it was tried.
///
/// # Errors
/// The reason when it is none, or is not whole.
#[inline(always)]
pub fn read<P: Packet>(
    packet: &P,
    at: usize,
    end: usize,
    key: &HashKey,
    scanned: Option<Scan>,
) -> Result<Question, Counter> {
    let length = walk(packet, at, end)?;
    let id = match scanned {
        Some(scan) if scan.length == length => scan.id,
        _ => hash_walked(packet, at, length, key),
    };
    let (id, length) = (packet.blur_word(id), packet.blur(length));
    typed(packet, at, end, id, length).ok_or(Counter::NameOverrun)
}

#[inline(always)]
fn typed<P: Packet>(packet: &P, name: usize, end: usize, id: u64, length: usize) -> Option<Question> {
    let after = name + length;
    if packet.beyond(after + 4, end) {
        return None;
    }
    let after = packet.blur(after);
    let tail = packet.window::<4>(after)?;
    Some(Question { id, name, length, qtype: be16(tail, 0), qclass: be16(tail, 2), records: after + 4 })
}
