//! Records into the ring.

use core::{arch::asm, ptr};

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_ktime_get_ns, bpf_ringbuf_discard, bpf_ringbuf_output, bpf_ringbuf_reserve, bpf_ringbuf_submit},
};
use aya_log_ebpf::warn;
use prewarm_ebpf::{
    Addresses, Counter, Header, Packet, Question,
    abi::{
        ADDRESSES, AnswerRecord, ConnectionRecord, FLAG_DNSSEC, FLAG_EDNS, FLAG_EGRESS, FLAG_MORE_RECORDS, FLAG_NAMED,
        FLAG_SERVICE_BINDING, FLAG_SUBNET, FLAG_TCP, FLAG_TRUNCATED, FLAG_V6, Head, KIND_ANSWER, KIND_QUESTION,
        KNOWN_ENTRIES, NameField, NamedQuestionRecord, QuestionRecord,
    },
    edns, fold, records, word,
};

use crate::{
    count::Counters,
    maps::{KNOWN, RING, SCRATCH, SLEEPING, TICKS},
    sense::{Hook, Message, Passage, jiffies},
};

const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;

/// A record in the making. It is made in memory of this processor and copied into the ring whole: a place there would be
/// a reference, and Linux 6.1 takes references that were taken on different ways for different, so it would follow all
/// loops behind once for every way that leads to them.
struct Place<T>(*mut T);

impl<T> Place<T> {
    #[inline(always)]
    fn begin(passage: &Passage) -> Option<Self> {
        const { assert!(size_of::<T>() <= size_of::<AnswerRecord>()) };
        SCRATCH.get_ptr_mut(passage.hook as u32).map(|place| Self(place.cast()))
    }

    /// Whether the ring had room.
    #[inline(always)]
    fn submit(self, passage: &Passage) -> bool {
        let ring = (&raw const RING).cast_mut().cast();
        // SAFETY: the map is a ring, and the record lies in memory that is at least as large.
        let done =
            unsafe { bpf_ringbuf_output(ring, self.0.cast(), size_of::<T>() as u64, u64::from(BPF_RB_NO_WAKEUP)) };
        if done != 0 {
            passage.counters.one(Counter::RingLost);
            tell_of_loss(passage);
            return false;
        }
        passage.counters.one(Counter::Events);
        wake(passage.counters);
        true
    }
}

/// When a loss was last written to the log, in jiffies.
#[unsafe(no_mangle)]
static mut LAST_TOLD: u64 = 0;

/// Writes that the ring is full to the log, once a second.
#[inline(always)]
fn tell_of_loss(passage: &Passage) {
    let now = jiffies();
    // SAFETY: a word that any processor may write; at worst two of them write to the log.
    let last = unsafe { (&raw const LAST_TOLD).read_volatile() };
    if now.wrapping_sub(last) < TICKS.load() {
        return;
    }
    // SAFETY: as above.
    unsafe { (&raw mut LAST_TOLD).write_volatile(now) };
    warn!(&passage.interface, "the ring is full: records of interface {} are lost", passage.interface);
}

/// Wakes the reader if it said that it sleeps. After the submit, which is a full barrier: either this sees the flag,
/// or the reader, who looks again after it set the flag, sees the record.
#[inline(always)]
fn wake(counters: Counters) {
    let Some(sleeping) = SLEEPING.get_ptr_mut(0) else { return };
    // SAFETY: inside the map; a word that others write at any time, so read as it is now.
    if unsafe { sleeping.read_volatile() } == 0 || take(sleeping) == 0 {
        return;
    }
    // There is no helper that only wakes; giving back an empty place does.
    // SAFETY: the map is a ring, and the size is a constant.
    let place = unsafe { bpf_ringbuf_reserve((&raw const RING).cast_mut().cast(), 8, 0) };
    if !place.is_null() {
        // SAFETY: the place was reserved right above.
        unsafe { bpf_ringbuf_discard(place, u64::from(BPF_RB_FORCE_WAKEUP)) };
        counters.one(Counter::WakeUps);
    }
}

/// Sets the word to zero and gives what was there, in one step: of two processors one wakes the reader. The target has
/// no atomics in `core`.
#[inline(always)]
fn take(word: *mut u64) -> u64 {
    let mut value = 0_u64;
    // SAFETY: an aligned word of a map; the instruction is the kernel's atomic exchange.
    unsafe { asm!("{value} = xchg_64({word} + 0, {value})", word = in(reg) word, value = inout(reg) value) };
    value
}

/// Hands a connection to the ring. Only what somebody may wait for wakes a sleeping reader.
#[inline(always)]
pub(crate) fn connection(counters: Counters, is_urgent: bool, fill: impl FnOnce(*mut ConnectionRecord)) {
    const SIZE: u64 = size_of::<ConnectionRecord>() as u64;
    // SAFETY: the map is a ring, and the size is a constant.
    let place = unsafe { bpf_ringbuf_reserve((&raw const RING).cast_mut().cast(), SIZE, 0) };
    if place.is_null() {
        counters.one(Counter::RingLost);
        return;
    }
    fill(place.cast());
    // SAFETY: the place was reserved and not given back.
    unsafe { bpf_ringbuf_submit(place, u64::from(BPF_RB_NO_WAKEUP)) };
    counters.one(Counter::Events);
    if is_urgent {
        wake(counters);
    }
}

/// Hands a question to the ring; false when there was no room.
#[inline(always)]
pub(crate) fn question(
    passage: &Passage,
    message: &Message,
    header: &Header,
    question: &Question,
    client: [u64; 2],
) -> bool {
    let mut head = head(passage, message, header, question, client);
    head.kind = KIND_QUESTION;
    if header.answers | header.authorities == 0 && header.additionals > 0 {
        let edns = edns(&passage.frame, question.records, message.end);
        head.edns_size = edns.size;
        head.flags |= flag(edns.present, FLAG_EDNS) | flag(edns.dnssec, FLAG_DNSSEC) | flag(edns.subnet, FLAG_SUBNET);
    }
    head.flags = passage.frame.blur(head.flags as usize) as u16;
    if is_known(question.id) {
        let Some(place) = Place::<QuestionRecord>::begin(passage) else { return false };
        // SAFETY: the memory is large enough for every record.
        unsafe { place.0.write(QuestionRecord { head }) };
        place.submit(passage)
    } else {
        let Some(place) = Place::<NamedQuestionRecord>::begin(passage) else { return false };
        head.flags |= FLAG_NAMED;
        // SAFETY: the memory is large enough for every record.
        unsafe { (&raw mut (*place.0).question).write(QuestionRecord { head }) };
        // SAFETY: the memory is large enough for every record.
        copy_name(passage, question, unsafe { &raw mut (*place.0).name });
        let is_told = place.submit(passage);
        if is_told {
            passage.counters.one(Counter::NamedEvents);
        }
        is_told
    }
}

/// Hands an answer to the ring.
#[inline(always)]
pub(crate) fn answer(
    passage: &Passage,
    message: &Message,
    header: &Header,
    question: &Question,
    client: [u64; 2],
) -> Result<(), Counter> {
    let rcode = header.rcode();
    if rcode != NOERROR && rcode != NXDOMAIN {
        return Err(Counter::OtherRcode);
    }
    let mut head = head(passage, message, header, question, client);
    head.kind = KIND_ANSWER;
    head.flags |= flag(header.is_truncated(), FLAG_TRUNCATED);
    head.flags |= flag(!is_known(question.id), FLAG_NAMED);
    head.flags = passage.frame.blur(head.flags as usize) as u16;
    let Some(place) = Place::<AnswerRecord>::begin(passage) else { return Ok(()) };
    outline(passage, message, header, question, head, place.0)?;
    let is_named = head.flags & FLAG_NAMED != 0;
    if is_named {
        // SAFETY: the memory is large enough for every record.
        copy_name(passage, question, unsafe { &raw mut (*place.0).name });
    }
    if place.submit(passage) && is_named {
        passage.counters.one(Counter::NamedEvents);
    }
    Ok(())
}

/// The addresses of a record.
struct Slots(*mut [[u8; 16]; ADDRESSES]);

impl Addresses for Slots {
    #[inline(always)]
    fn put(&mut self, index: usize, address: [u64; 2]) {
        let mut index = index;
        // Hidden from the compiler, which would leave it out behind a comparison that Linux 6.1 has forgotten.
        // SAFETY: an operation on a number.
        unsafe {
            asm!("{index} &= {mask}", index = inout(reg) index, mask = const ADDRESSES - 1, options(pure, nomem, nostack))
        };
        // SAFETY: the mask keeps the index below the length.
        let slot = unsafe { (&raw mut (*self.0)[index & (ADDRESSES - 1)]).cast::<[u64; 2]>() };
        // SAFETY: inside the record, whose addresses are aligned to 8 bytes.
        unsafe { slot.write(address) };
    }
}

#[inline(always)]
fn outline(
    passage: &Passage,
    message: &Message,
    header: &Header,
    question: &Question,
    mut head: Head,
    record: *mut AnswerRecord,
) -> Result<(), Counter> {
    // SAFETY: the memory is that of the record.
    let mut slots = Slots(unsafe { &raw mut (*record).addresses });
    let outline = records(&passage.frame, question.records, message.end, header.answers, &mut slots)?;
    head.flags |= flag(outline.service_binding, FLAG_SERVICE_BINDING) | flag(outline.more, FLAG_MORE_RECORDS);
    let held = if outline.addresses > ADDRESSES { ADDRESSES } else { outline.addresses };
    if outline.addresses > held {
        passage.counters.add(Counter::MoreAddresses, (outline.addresses - held) as u64);
    }
    if outline.more {
        passage.counters.one(Counter::MoreRecords);
    }
    // SAFETY: the memory is that of the record.
    unsafe { (&raw mut (*record).head).write(head) };
    let rest = u64::from(outline.ttl)
        | u64::from(header.rcode()) << 32
        | (held as u64 & 0xff) << 40
        | (outline.addresses as u64 & 0xff) << 48;
    // SAFETY: the memory is that of the record, and the five fields behind the head fill one aligned word.
    unsafe { (&raw mut (*record).ttl).cast::<u64>().write(rest) };
    Ok(())
}

#[inline(always)]
fn head(passage: &Passage, message: &Message, header: &Header, question: &Question, client: [u64; 2]) -> Head {
    let [first, second] = client.map(u64::to_ne_bytes);
    let [a, b, c, d, e, f, g, h] = first;
    let [i, j, k, l, m, n, o, p] = second;
    Head {
        kind: 0,
        name_length: question.length as u8,
        flags: flag(passage.hook == Hook::Egress, FLAG_EGRESS)
            | flag(message.segment.tcp, FLAG_TCP)
            | flag(message.segment.v6, FLAG_V6),
        interface: passage.interface,
        // SAFETY: the helper takes nothing and only reads a clock.
        time: unsafe { bpf_ktime_get_ns() },
        resource: question.id,
        client: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p],
        qtype: question.qtype,
        qclass: question.qclass,
        message: header.id,
        edns_size: 0,
    }
}

#[inline(always)]
fn is_known(id: u64) -> bool {
    KNOWN.get(id as u32 & (KNOWN_ENTRIES - 1)).is_some_and(|&known| known == id && id != 0)
}

/// The name in lower case, in whole words; what stands behind it in the last word means nothing.
#[inline(always)]
fn copy_name(passage: &Passage, question: &Question, name: *mut NameField) {
    let words = name.cast::<u64>();
    let mut index = 0;
    while index < 32 && passage.frame.beyond(question.length, 8 * index) {
        let word = word(&passage.frame, question.name + 8 * index);
        // SAFETY: 32 words are the field.
        let target = unsafe { words.add(index) };
        // SAFETY: inside the field, which is aligned to 8 bytes in every record.
        unsafe { ptr::write(target, fold(word)) };
        index += 1;
    }
}

#[inline(always)]
const fn flag(set: bool, flag: u16) -> u16 {
    if set { flag } else { 0 }
}
