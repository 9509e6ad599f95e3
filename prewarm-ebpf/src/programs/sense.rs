//! A frame's way through the parser to the ring, the same at both hooks.

use aya_ebpf::helpers::bpf_jiffies64;
use prewarm_ebpf::{
    Counter, Header, LIMIT, Packet, Question, Scan, Segment, Stream,
    abi::{RECENT_ENTRIES, RecentSlot, STREAM_MESSAGES},
    address, header, locate, question, read, scan, stream_message,
};

use crate::{
    answer,
    count::Counters,
    emit,
    frame::Frame,
    maps::{ANSWERING, RECENT, WINDOW, key},
};

const A: u16 = 1;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;
/// The loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// Where a program sits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Ingress,
    Egress,
}

/// A frame passing a hook.
#[derive(Clone, Copy)]
pub(crate) struct Passage {
    pub(crate) frame: Frame,
    pub(crate) counters: Counters,
    pub(crate) hook: Hook,
    pub(crate) interface: u32,
}

/// A message's part in its frame, and what a glance at its name gave.
#[derive(Clone, Copy)]
pub(crate) struct Message {
    pub(crate) segment: Segment,
    pub(crate) at: usize,
    pub(crate) end: usize,
    /// What a scan of the name found, if it was scanned.
    pub(crate) scanned: Option<Scan>,
}

impl Message {
    /// Where it is in one word, for [`Message::unpack`].
    #[inline(always)]
    pub(crate) fn place(&self) -> u64 {
        let length = self.scanned.map_or(0, |scan| scan.length);
        self.at as u64 | (self.end as u64) << 16 | (length as u64) << 32
    }

    #[inline(always)]
    pub(crate) fn unpack(segment: u64, place: u64, id: u64) -> Self {
        let length = (place >> 32) as usize & 0xff;
        Self {
            segment: Segment::unpack(segment),
            at: place as usize & LIMIT,
            end: (place >> 16) as usize & LIMIT,
            scanned: if length == 0 { None } else { Some(Scan { id, length }) },
        }
    }
}

/// Sees a frame. Most are done here; `whole` is called with each message that takes more than a glance. It is a
/// function of its own in each program, so that the verifier follows it once and not for every way that leads there.
/// Gives what may be a question over UDP, for those who answer it.
#[inline(always)]
pub(crate) fn frame(passage: &Passage, whole: impl Fn(&Message)) -> Option<Message> {
    passage.counters.one(Counter::Packets);
    let segment = match locate(&passage.frame) {
        Ok(segment) => segment,
        Err(reason) => {
            passage.counters.one(reason);
            return None;
        }
    };
    if segment.tcp {
        stream(passage, &segment, whole);
        return None;
    }
    if passage.hook == Hook::Ingress
        && ANSWERING.load() != 0
        && passage.interface == LOOPBACK
        && answer::is_ours(&passage.frame, &segment)
    {
        passage.counters.one(Counter::Own);
        return None;
    }
    let mut message = Message { segment, at: segment.payload, end: segment.end, scanned: None };
    if !glanced(passage, &mut message) {
        whole(&message);
    }
    if segment.ports & 1 == 0 { None } else { Some(message) }
}

/// Sees the messages of a TCP segment one after the other.
#[inline(always)]
fn stream(passage: &Passage, segment: &Segment, whole: impl Fn(&Message)) {
    let mut at = segment.payload;
    for _ in 0..STREAM_MESSAGES {
        match stream_message(&passage.frame, segment, at) {
            Ok(Stream { message, end }) => {
                whole(&Message { segment: *segment, at: message, end, scanned: None });
                if !passage.frame.beyond(segment.end, end) {
                    return;
                }
                at = end;
            }
            Err(reason) => return passage.counters.one(reason),
        }
    }
    passage.counters.one(Counter::TcpMoreMessages);
}

/// Whether the message is a question that belongs to an earlier event: true for most. Leaves in the message what was
/// learnt about its name.
#[inline(always)]
fn glanced(passage: &Passage, message: &mut Message) -> bool {
    let Message { segment, at, end, .. } = *message;
    let packet = &passage.frame;
    let Ok(header) = header(packet, &segment, at, end) else { return false };
    message.scanned = scan(packet, at + 12, key());
    if header.is_answer() {
        return false;
    }
    let Some(question) = question(packet, at + 12, end, message.scanned) else { return false };
    let Some(client) = client(passage, &segment, false) else { return false };
    // Only questions whose labels were walked are in the array, so one that was only scanned and is found there is
    // the same.
    if !folds(&question, client, jiffies()) {
        return false;
    }
    passage.counters.one(Counter::Questions);
    passage.counters.one(Counter::Folded);
    true
}

/// Sees a message to its end.
#[inline(always)]
pub(crate) fn whole(passage: &Passage, message: &Message) {
    if let Err(reason) = try_whole(passage, message) {
        passage.counters.one(reason);
    }
}

#[inline(always)]
fn try_whole(passage: &Passage, message: &Message) -> Result<(), Counter> {
    let Message { mut segment, at, end, scanned } = *message;
    let packet = &passage.frame;
    segment.v6 = packet.blur_flag(segment.v6);
    segment.tcp = packet.blur_flag(segment.tcp);
    let header = header(packet, &segment, at, end)?;
    let is_answer = packet.blur_flag(header.is_answer());
    let message = Message { segment, at, end, scanned };
    let client = client(passage, &segment, is_answer).ok_or(Counter::Truncated)?;
    let question = read(packet, at + 12, end, key(), scanned)?;
    if is_answer {
        passage.counters.one(Counter::Answers);
        return emit::answer(passage, &message, &header, &question, client);
    }
    passage.counters.one(Counter::Questions);
    // What comes over TCP was not looked up before.
    let now = jiffies();
    if segment.tcp && folds(&question, client, now) {
        passage.counters.one(Counter::Folded);
        return Ok(());
    }
    emitted(passage, &message, &header, &question, client, now);
    Ok(())
}

#[inline(always)]
fn client(passage: &Passage, segment: &Segment, is_answer: bool) -> Option<[u64; 2]> {
    let [first, second] = address(&passage.frame, segment, is_answer)?;
    Some([passage.frame.blur_word(first), passage.frame.blur_word(second)])
}

#[inline(always)]
fn emitted(passage: &Passage, message: &Message, header: &Header, question: &Question, client: [u64; 2], now: u64) {
    if !emit::question(passage, message, header, question, client) {
        return;
    }
    // After the ring took it: what was lost there must not swallow those that follow.
    if let Some(slot) = slot(question, client) {
        let (group, types) = group(question.qtype);
        // SAFETY: the slot is inside the array. Other processors may write it too; a slot mixed from two questions
        // folds what it shouldn't for one window at most.
        unsafe { *slot = RecentSlot { resource: question.id, client, ticks: now as u32, group, types } };
    }
}

/// Whether the question belongs to an event that went out less than a window ago; notes its type there.
#[inline(always)]
fn folds(question: &Question, client: [u64; 2], now: u64) -> bool {
    let Some(slot) = slot(question, client) else { return false };
    // SAFETY: the slot is inside the array; see `emitted` for other processors.
    let slot = unsafe { &mut *slot };
    let (group, types) = group(question.qtype);
    if slot.resource != question.id
        || slot.client[0] != client[0]
        || slot.client[1] != client[1]
        || slot.group != group
        || u64::from((now as u32).wrapping_sub(slot.ticks)) >= WINDOW.load()
    {
        return false;
    }
    if slot.types & types == 0 {
        slot.types |= types;
    }
    true
}

/// A, AAAA and HTTPS are one group, every other type is its own.
#[inline(always)]
fn group(qtype: u16) -> (u16, u16) {
    match qtype {
        A => (0, 1),
        AAAA => (0, 2),
        HTTPS => (0, 4),
        other => (other, 0x8000),
    }
}

#[inline(always)]
fn slot(question: &Question, client: [u64; 2]) -> Option<*mut RecentSlot> {
    // The ID is uniform and secret; the client only has to be spread over the array.
    let spread = (client[0] ^ client[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    RECENT.get_ptr_mut((question.id ^ spread) as u32 & (RECENT_ENTRIES - 1))
}

#[inline(always)]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_jiffies64() }
}
