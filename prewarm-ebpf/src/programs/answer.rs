//! Answers given by the kernel: what user space has laid ready, made into an answer to this very question.
//!
//! Comes in: a question over UDP that was seen. Goes out: the same packet as its answer, or untouched with the reason
//! counted. Never here: an answer that user space did not lay ready, one that is too old, and none while the daemon has
//! not beaten; nothing of the packet is written before it is certain that it will be an answer.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    helpers::generated::bpf_ktime_get_coarse_ns,
    programs::XdpContext,
};
use prewarm_ebpf::{
    Packet, Scan, Segment, address,
    answers::{
        A, AAAA, AnswerCounter, AnswerRules, AnswerSlot, AnswerUse, BODY, BUCKET, COARSE, COUNTERS_LENGTH, FLAG_AD,
        FLAG_RD, FLAG_TC, HTTPS, INDEX_ENTRIES, KIND_AUTHENTIC, KIND_EDNS, KIND_RECURSION, LIMIT_ENTRIES, LimitSlot,
        place, spread,
    },
    be16, be32, fold, le64,
};

use crate::{
    answer_write::{Part, aged, bodied, headed, is_sized, resized, seconds},
    frame::Frame,
    heartbeat,
    maps::{ANSWER_COUNTERS, ANSWER_INDEX, ANSWER_LIMITS, ANSWER_RULES, ANSWER_SLOTS, ANSWER_USES, key},
    sense::Message,
    vouch, wanted,
};

const IN: u16 = 1;
const OPT: u16 = 41;
/// Bytes of an OPT record without options.
const OPT_LENGTH: usize = 11;
/// What every client takes that says nothing else (RFC 1035, 4.2.1).
const LEAST_SIZE: u16 = 512;
/// Words of the longest question: 255 bytes of name, type and class.
const QUESTION_WORDS: usize = 33;

/// A question that may have an answer.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) id: u64,
    /// Where the message begins.
    pub(crate) at: usize,
    /// The length of the name.
    pub(crate) length: usize,
    pub(crate) client: [u64; 2],
    pub(crate) server: [u64; 2],
    pub(crate) interface: u32,
    pub(crate) qtype: u16,
    pub(crate) kind: u8,
    /// The longest message that the client takes.
    size: usize,
    pub(crate) v6: bool,
    pub(crate) ip: usize,
}

impl Asked {
    /// Where the question ends.
    #[inline(always)]
    pub(crate) const fn end(&self) -> usize {
        self.at + 12 + self.length + 4
    }
}

/// Answers a question that was scanned, or lets it pass; gives the verdict.
#[inline(always)]
pub(crate) fn answer(ctx: &XdpContext, message: &Message) -> u32 {
    match try_answer(ctx, message) {
        Ok(verdict) => verdict,
        Err(reason) => {
            count(reason);
            XDP_PASS
        }
    }
}

/// Whether a datagram on the loopback interface is what an answer of the kernel became there, what the server sends,
/// which was seen on egress, or a question of the daemon's.
#[inline(always)]
pub(crate) fn is_ours(frame: &Frame, segment: &Segment) -> bool {
    if segment.ports & 1 == 0 {
        return true;
    }
    let Some(rules) = rules() else { return false };
    own_port(frame, segment) == Some(rules.own_port)
}

/// The port that a datagram comes from, as it stands there.
#[inline(always)]
fn own_port(frame: &Frame, segment: &Segment) -> Option<u16> {
    let at = frame.blur(segment.payload.wrapping_sub(8));
    frame.window::<2>(at).map(|port| u16::from_ne_bytes(*port))
}

#[inline(always)]
fn try_answer(ctx: &XdpContext, message: &Message) -> Result<u32, AnswerCounter> {
    let frame = Frame::new(ctx.data(), ctx.data_end());
    let rules = rules().ok_or(AnswerCounter::Stale)?;
    let Some(asked) = asked(&frame, message, ctx.ingress_ifindex() as u32, rules)? else { return Ok(XDP_PASS) };
    // SAFETY: the helper takes nothing and only reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let Some((slot, uses)) = held(&asked) else { return Err(wanted::missed(&frame, &asked, now, rules.client)) };
    // SAFETY: inside the array. User space does not write a slot that a bucket names or named lately.
    let answer = unsafe { &*slot };
    if !heartbeat::is_fresh_at(now) {
        return Err(AnswerCounter::Stale);
    }
    if now + COARSE >= answer.expires {
        return Err(AnswerCounter::Expired);
    }
    let Some(sum) = compared(&frame, &asked, answer) else {
        return Err(wanted::missed(&frame, &asked, now, rules.client));
    };
    let body = frame.blur(answer.body_length as usize & (2 * BODY - 1));
    let length = 12 + asked.length + 4 + body;
    if length > asked.size {
        return Err(AnswerCounter::TooLong);
    }
    let question = message.end.wrapping_sub(asked.at);
    if length > rules.longest as usize || length > question * rules.ratio as usize {
        return Err(AnswerCounter::Policy);
    }
    if !vouch::is_known(asked.client, asked.server, now, rules.client) {
        return Err(AnswerCounter::NewClient);
    }
    // SAFETY: inside the array; a count that two processors raise at once may lose one.
    let hits = unsafe { (*uses).hits }.wrapping_add(1);
    // SAFETY: as above.
    unsafe { (*uses).hits = hits };
    if hits & rules.audit == rules.audit {
        return Err(AnswerCounter::Audit);
    }
    if limited(&asked, now, rules)? {
        let edns = asked.kind & KIND_EDNS != 0;
        let [high, low] = answer.edns_size.to_ne_bytes();
        let part = Part {
            length: if edns { OPT_LENGTH } else { 0 },
            sum: if edns { OPT as u64 + ((high as u64) << 8) + low as u64 } else { 0 },
            flags: answer.flags | FLAG_TC.to_be(),
            counts: [0, 0, (edns as u16).to_be()],
        };
        if !resized(ctx, &asked, part.length) {
            return Err(AnswerCounter::NoRoom);
        }
        let frame = Frame::new(ctx.data(), ctx.data_end());
        let sized = !edns || is_sized(&frame, asked.end(), answer.edns_size);
        let done = if sized { headed(&frame, &asked, &part, sum) } else { None };
        return Ok(sent(done, AnswerCounter::Truncated));
    }
    if !resized(ctx, &asked, body) {
        return Err(AnswerCounter::NoRoom);
    }
    let frame = Frame::new(ctx.data(), ctx.data_end());
    // The clock is some milliseconds slow, so an answer may seem to come from the future.
    let age = if now > answer.base { seconds(now - answer.base) } else { 0 };
    let part = Part { length: body, sum: aged(answer, age), flags: answer.flags, counts: answer.counts };
    let done = headed(&frame, &asked, &part, sum).and_then(|()| bodied(&frame, &asked, answer, body, age, uses));
    Ok(sent(done, AnswerCounter::Answered))
}

/// What all of it came to. A packet that was begun and can't be ended, which the checks before rule out, is nobody's.
#[inline(always)]
fn sent(done: Option<()>, what: AnswerCounter) -> u32 {
    if done.is_none() {
        return XDP_DROP;
    }
    count(what);
    XDP_TX
}

/// Reads what the question is like; `None` where it is none.
#[inline(always)]
fn asked(
    frame: &Frame,
    message: &Message,
    interface: u32,
    rules: &AnswerRules,
) -> Result<Option<Asked>, AnswerCounter> {
    let Message { segment, at, end, .. } = *message;
    let Some(Scan { id, length }) = message.scanned else { return Ok(None) };
    let Some(header) = frame.window::<12>(at) else { return Ok(None) };
    let flags = be16(header, 2);
    // Answers, and what was no QUERY with one question, were counted before.
    if flags & 0xf800 != 0 || be16(header, 4) != 1 {
        return Ok(None);
    }
    if flags & !(FLAG_RD | FLAG_AD) != 0 {
        return Err(AnswerCounter::Flags);
    }
    let (records, additionals) = (be32(header, 6), be16(header, 10));
    if records != 0 || additionals > 1 {
        return Err(AnswerCounter::Records);
    }
    let records = at + 12 + length + 4;
    let Some(tail) = frame.window::<4>(frame.blur(records - 4)) else { return Ok(None) };
    let (qtype, qclass) = (be16(tail, 0), be16(tail, 2));
    if qclass != IN || (qtype != A && qtype != AAAA && qtype != HTTPS) {
        return Err(AnswerCounter::Type);
    }
    let mut kind = ((flags >> 8) as u8 & KIND_RECURSION) | ((flags >> 4) as u8 & KIND_AUTHENTIC);
    let mut size = LEAST_SIZE;
    let mut stop = records;
    if additionals == 1 {
        let stated = edns(frame, frame.blur(records))?;
        size = if stated < LEAST_SIZE { LEAST_SIZE } else { stated };
        kind |= KIND_EDNS;
        stop += OPT_LENGTH;
    }
    if frame.beyond(stop, end) || frame.beyond(end, stop) {
        return Err(AnswerCounter::Records);
    }
    let (Some(client), Some(server)) = (address(frame, &segment, false), address(frame, &segment, true)) else {
        return Ok(None);
    };
    headers(frame, &segment, rules)?;
    Ok(Some(Asked {
        id,
        at: frame.blur(at),
        length: frame.blur(length),
        client: client.map(|word| frame.blur_word(word)),
        server: server.map(|word| frame.blur_word(word)),
        interface,
        qtype: frame.blur(qtype as usize) as u16,
        kind: frame.blur(kind as usize) as u8,
        size: frame.blur((size & 0x7fff) as usize),
        v6: frame.blur_flag(segment.v6),
        ip: frame.blur(segment.ip),
    }))
}

/// The size that an OPT record states which holds nothing else.
#[inline(always)]
fn edns(frame: &Frame, at: usize) -> Result<u16, AnswerCounter> {
    let record = frame.window::<11>(at).ok_or(AnswerCounter::Records)?;
    if record[0] != 0 || be16(record, 1) != OPT {
        return Err(AnswerCounter::Records);
    }
    if be16(record, 9) != 0 {
        return Err(AnswerCounter::EdnsOption);
    }
    match be32(record, 5) {
        0 => Ok(be16(record, 3)),
        0x8000 => Err(AnswerCounter::Dnssec),
        _ => Err(AnswerCounter::EdnsVersion),
    }
}

/// Whether the headers before the message are such that they can be turned around.
#[inline(always)]
fn headers(frame: &Frame, segment: &Segment, rules: &AnswerRules) -> Result<(), AnswerCounter> {
    let ethernet = frame.window::<14>(0).ok_or(AnswerCounter::IpHeader)?;
    if ethernet[0] & 1 != 0 {
        return Err(AnswerCounter::Unicast);
    }
    let udp = frame.blur(segment.payload.wrapping_sub(8));
    let ports = frame.window::<8>(udp).ok_or(AnswerCounter::IpHeader)?;
    let (from, check) = (u16::from_ne_bytes([ports[0], ports[1]]), be16(ports, 6));
    if from == 0 {
        return Err(AnswerCounter::Unicast);
    }
    if from == rules.own_port {
        return Err(AnswerCounter::Own);
    }
    if segment.v6 {
        let ip = frame.window::<40>(segment.ip).ok_or(AnswerCounter::IpHeader)?;
        // A check sum is a must there (RFC 8200, 8.1).
        if check == 0 || frame.beyond(segment.payload, segment.ip + 48) {
            return Err(AnswerCounter::IpHeader);
        }
        if ends_elsewhere(frame, segment, segment.ip + 40 + be16(ip, 4) as usize) {
            return Err(AnswerCounter::IpHeader);
        }
        // The unspecified address, and multicast.
        if ip[8] == 0xff || ip[24] == 0xff || ip[8] | ip[9] | ip[23] == 0 {
            return Err(AnswerCounter::Unicast);
        }
        return Ok(());
    }
    let ip = frame.window::<20>(segment.ip).ok_or(AnswerCounter::IpHeader)?;
    if ip[0] != 0x45 || ends_elsewhere(frame, segment, segment.ip + be16(ip, 2) as usize) {
        return Err(AnswerCounter::IpHeader);
    }
    // 0.0.0.0/8, and multicast, reserved and broadcast addresses.
    if ip[12] == 0 || ip[12] >= 224 || ip[16] >= 224 {
        return Err(AnswerCounter::Unicast);
    }
    Ok(())
}

#[inline(always)]
fn ends_elsewhere(frame: &Frame, segment: &Segment, end: usize) -> bool {
    frame.beyond(end, segment.end) || frame.beyond(segment.end, end)
}

/// The slot that a bucket names for a question, if it is the one.
#[inline(always)]
fn held(asked: &Asked) -> Option<(*const AnswerSlot, *mut AnswerUse)> {
    let place = place(asked.id, asked.server, asked.interface, asked.qtype, asked.kind);
    let bucket = ANSWER_INDEX.get_ptr(place as u32 & (INDEX_ENTRIES - 1))?;
    let mut number = 0;
    let mut index = 0;
    while index < BUCKET {
        // SAFETY: inside the map; a word that user space may be changing.
        let entry = unsafe { (&raw const (*bucket)[index]).read_volatile() };
        if (entry ^ place) >> 32 == 0 && entry as u32 != 0 {
            number = entry as u32;
        }
        index += 1;
    }
    if number == 0 {
        return None;
    }
    let slot = ANSWER_SLOTS.get_ptr(number - 1)?;
    let uses = ANSWER_USES.get_ptr_mut(number - 1)?;
    // SAFETY: inside the array; see `try_answer`.
    let answer = unsafe { &*slot };
    let is_it = answer.resource == asked.id
        && answer.server[0] == asked.server[0]
        && answer.server[1] == asked.server[1]
        && answer.interface == asked.interface
        && answer.qtype == asked.qtype
        && answer.kind == asked.kind
        && answer.name_length as usize == asked.length;
    if is_it { Some((slot, uses)) } else { None }
}

/// Compares the question with the one that is answered, letter by letter but for their case, and gives the sum of its
/// bytes.
#[inline(always)]
fn compared(frame: &Frame, asked: &Asked, answer: &AnswerSlot) -> Option<u64> {
    let begin = asked.at + 12;
    let length = frame.blur(asked.length + 4);
    let mut sum = 0;
    let mut differs = 0;
    let mut index = 0;
    while index < QUESTION_WORDS && !frame.beyond(8 * index + 8, length) {
        let word = le64(frame.window::<8>(begin + 8 * index)?);
        sum += (word >> 32) + (word & 0xffff_ffff);
        differs |= fold(word) ^ answer.question[index];
        index += 1;
    }
    let (mut sum, mut differs) = (frame.blur_word(sum), frame.blur_word(differs));
    let index = frame.blur(index);
    let rest = (length - 8 * index) & 7;
    if rest != 0 && index < QUESTION_WORDS {
        // The eight bytes that end with the question: what stands before it is the header at least.
        let last = le64(frame.window::<8>(frame.blur(begin + length - 8))?) >> ((64 - 8 * rest) & 63);
        sum += (last >> 32) + (last & 0xffff_ffff);
        differs |= fold(last) ^ answer.question[index];
    }
    if differs != 0 {
        return None;
    }
    Some(frame.blur_word(sum))
}

/// Whether the client's network has had its share, and this answer is to be truncated.
#[inline(always)]
fn limited(asked: &Asked, now: u64, rules: &AnswerRules) -> Result<bool, AnswerCounter> {
    if rules.cost == 0 {
        return Ok(false);
    }
    let mask = if asked.v6 { rules.network6 } else { rules.network4 };
    let network = [asked.client[0] & mask[0], asked.client[1] & mask[1]];
    let mixed = (spread(network) ^ key()[2]).wrapping_mul(key()[3] | 1) >> 32;
    let Some(slot) = ANSWER_LIMITS.get_ptr_mut(mixed as u32 & (LIMIT_ENTRIES - 1)) else { return Ok(false) };
    // SAFETY: inside the array. Processors that write it at once let a few answers more go.
    let slot = unsafe { &mut *slot };
    if slot.network[0] != network[0] || slot.network[1] != network[1] {
        *slot = LimitSlot { network, paid: now + rules.cost, denied: 0 };
        return Ok(false);
    }
    let paid = if slot.paid < now { now } else { slot.paid };
    if paid - now <= rules.burst {
        slot.paid = paid + rules.cost;
        return Ok(false);
    }
    slot.denied = slot.denied.wrapping_add(1);
    if rules.truncate != 0 && slot.denied % u64::from(rules.truncate) == 0 {
        return Ok(true);
    }
    Err(AnswerCounter::Limited)
}

#[inline(always)]
pub(crate) fn count(counter: AnswerCounter) {
    let Some(cells) = ANSWER_COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: the entry is this CPU's, and a program isn't preempted by itself.
    let cells: &mut [u64; COUNTERS_LENGTH] = unsafe { &mut *cells };
    if let Some(cell) = cells.get_mut(counter as usize) {
        *cell = cell.wrapping_add(1);
    }
}

#[inline(always)]
fn rules() -> Option<&'static AnswerRules> {
    // SAFETY: the one entry of a map that lives as long as the program; what user space changes meanwhile is read as the
    // new rule or as the old one.
    ANSWER_RULES.get_ptr(0).map(|rules| unsafe { &*rules })
}
