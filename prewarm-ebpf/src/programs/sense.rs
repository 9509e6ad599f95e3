//! A frame's way through the parser to the ring, the same at both hooks.

use aya_ebpf::helpers::bpf_jiffies64;
use prewarm_ebpf::{
    Counter, Header, Packet, Question, Segment,
    abi::{RECENT_ENTRIES, RecentSlot, STREAM_MESSAGES},
    address, glance, header, locate, read, stream_message,
};

use crate::{
    count::Counters,
    emit,
    frame::Frame,
    maps::{RECENT, WINDOW, key},
};

const A: u16 = 1;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;

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

/// A message's part in its frame.
#[derive(Clone, Copy)]
pub(crate) struct Message {
    pub(crate) segment: Segment,
    pub(crate) at: usize,
    pub(crate) end: usize,
}

/// Counts the frame, and sees the message of a datagram. Of a TCP segment it gives where the first message's length
/// is.
#[inline(always)]
pub(crate) fn frame(passage: &Passage) -> Option<usize> {
    passage.counters.one(Counter::Packets);
    let segment = match locate(&passage.frame) {
        Ok(segment) => segment,
        Err(reason) => {
            passage.counters.one(reason);
            return None;
        }
    };
    if segment.tcp {
        return Some(segment.payload);
    }
    message(passage, &Message { segment, at: segment.payload, end: segment.end });
    None
}

/// Has `each` see the messages of a TCP segment one after the other; it gives where the next one is, or zero.
#[inline(always)]
pub(crate) fn stream(first: usize, each: impl Fn(usize) -> usize) {
    let mut at = first;
    for _ in 0..STREAM_MESSAGES {
        at = each(at);
        if at == 0 {
            return;
        }
    }
}

/// Sees the message of a TCP segment whose length is at `at`, and gives where the next one's is; zero after the last.
#[inline(always)]
pub(crate) fn message_in_stream(passage: &Passage, at: usize) -> usize {
    let Ok(segment) = locate(&passage.frame) else { return 0 };
    let at = passage.frame.blur(at & prewarm_ebpf::LIMIT);
    match stream_message(&passage.frame, &segment, at) {
        Ok(stream) => {
            message(passage, &Message { segment, at: stream.message, end: stream.end });
            if stream.end < segment.end { stream.end } else { 0 }
        }
        Err(reason) => {
            passage.counters.one(reason);
            0
        }
    }
}

#[inline(always)]
fn message(passage: &Passage, message: &Message) {
    if let Err(reason) = try_message(passage, message) {
        passage.counters.one(reason);
    }
}

#[inline(always)]
fn try_message(passage: &Passage, message: &Message) -> Result<(), Counter> {
    let Message { segment, at, end } = *message;
    let packet = &passage.frame;
    let header = header(packet, &segment, at, end)?;
    let is_answer = packet.blur_flag(header.is_answer());
    let [first, second] = address(packet, &segment, is_answer).ok_or(Counter::Truncated)?;
    let client = [packet.blur_word(first), packet.blur_word(second)];
    let glanced = glance(packet, at + 12, end, key());
    if is_answer {
        let question = read(packet, at + 12, end, key(), glanced)?;
        passage.counters.one(Counter::Answers);
        return emit::answer(passage, message, &header, &question, client);
    }
    let now = jiffies();
    // Only questions whose labels were walked are in the array, so one that was only scanned and is found there is
    // the same, and most questions are done here.
    if let Some(question) = glanced
        && folds(&question, client, now)
    {
        passage.counters.one(Counter::Questions);
        passage.counters.one(Counter::Folded);
        return Ok(());
    }
    let question = read(packet, at + 12, end, key(), glanced)?;
    passage.counters.one(Counter::Questions);
    emitted(passage, message, &header, &question, client, now);
    Ok(())
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
