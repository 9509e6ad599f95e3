//! Questions without an answer: those seen for the second time are told to user space, which may lay an answer ready.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_ringbuf_reserve, bpf_ringbuf_submit},
};
use prewarm_ebpf::{
    Packet,
    answers::{AnswerCounter, SIGHT_ENTRIES, ServerKey, SightSlot, TOLD, WantedRecord, place},
    fold, le64,
};

use crate::{
    answer::{Asked, count},
    frame::Frame,
    maps::{ANSWER_SERVERS, ANSWER_SIGHTS, ANSWER_WANTED},
    vouch,
};

/// Notes that there was no answer, and gives why not. What strangers ask leads to nothing.
#[inline(always)]
pub(crate) fn missed(frame: &Frame, asked: &Asked, now: u64, lasting: u64) -> AnswerCounter {
    let server = ServerKey { address: asked.server, interface: asked.interface, reserved: 0 };
    if ANSWER_SERVERS.get_ptr(server).is_none() {
        return AnswerCounter::Elsewhere;
    }
    if vouch::is_known(asked.client, asked.server, now, lasting)
        && let Some(slot) = seen_before(asked, now)
        && tell(frame, asked)
    {
        // SAFETY: inside the array; see `seen_before`.
        unsafe { (*slot).told = now };
    }
    AnswerCounter::Missing
}

/// Where it stands that the question was seen before, if it was and is not told of just now.
#[inline(always)]
fn seen_before(asked: &Asked, now: u64) -> Option<*mut SightSlot> {
    let place = place(asked.id, asked.server, asked.interface, asked.qtype, asked.kind);
    let place_of_slot = ANSWER_SIGHTS.get_ptr_mut(place as u32 & (SIGHT_ENTRIES - 1))?;
    // SAFETY: inside the array. Processors that write it at once tell of a question once more or once less.
    let slot = unsafe { &mut *place_of_slot };
    if slot.place != place {
        *slot = SightSlot { place, told: 0 };
        return None;
    }
    if slot.told != 0 && now.wrapping_sub(slot.told) < TOLD {
        return None;
    }
    Some(place_of_slot)
}

#[inline(always)]
fn tell(frame: &Frame, asked: &Asked) -> bool {
    const SIZE: u64 = size_of::<WantedRecord>() as u64;
    // SAFETY: the map is a ring, and the size is a constant.
    let record = unsafe { bpf_ringbuf_reserve((&raw const ANSWER_WANTED).cast_mut().cast(), SIZE, 0) };
    if record.is_null() {
        count(AnswerCounter::WantedLost);
        return false;
    }
    let record: *mut WantedRecord = record.cast();
    // SAFETY: the record was reserved; each field is written once.
    unsafe { (&raw mut (*record).resource).write(asked.id) };
    // SAFETY: as above.
    unsafe { (&raw mut (*record).server).write(asked.server) };
    // SAFETY: as above.
    unsafe { (&raw mut (*record).client).write(asked.client) };
    let what = u64::from(asked.interface)
        | u64::from(asked.qtype) << 32
        | u64::from(asked.kind) << 48
        | (asked.length as u64 & 0xff) << 56;
    // SAFETY: as above; the four fields fill one aligned word.
    unsafe { (&raw mut (*record).interface).cast::<u64>().write(what) };
    // SAFETY: as above.
    let words = unsafe { &raw mut (*record).name }.cast::<u64>();
    // Type and class follow the name, so its last word may be read backwards from there.
    let (begin, length) = (asked.at + 12, frame.blur(asked.length + 4));
    let mut index = 0;
    while index < 32 && !frame.beyond(8 * index + 8, length) {
        let Some(window) = frame.window::<8>(begin + 8 * index) else { break };
        // SAFETY: 32 words are the field.
        let target = unsafe { words.add(index) };
        // SAFETY: inside the record.
        unsafe { ptr::write(target, fold(le64(window))) };
        index += 1;
    }
    let index = frame.blur(index);
    if index < 32
        && let Some(window) = frame.window::<8>(frame.blur(begin + length - 8))
    {
        let rest = (length - 8 * index) & 7;
        let last = if rest == 0 { le64(window) } else { le64(window) >> ((64 - 8 * rest) & 63) };
        // SAFETY: 32 words are the field.
        let target = unsafe { words.add(index) };
        // SAFETY: inside the record.
        unsafe { ptr::write(target, fold(last)) };
    }
    // SAFETY: the record was reserved and not given back.
    unsafe { bpf_ringbuf_submit(record.cast(), u64::from(BPF_RB_NO_WAKEUP)) };
    count(AnswerCounter::Wanted);
    true
}
