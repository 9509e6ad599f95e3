//! An answer written over its question: headers turned around, lengths and check sums, the body with its TTLs aged.
//!
//! Comes in: a question that is certain to be answered, and with what. Goes out: the packet, ready to be sent back. Never
//! here: whether it is answered.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use prewarm_ebpf::{
    LIMIT, Packet,
    answers::{AnswerSlot, AnswerUse, BODY, TTLS, TURNS},
    be16,
};

use crate::{answer::Asked, frame::Frame};

const UDP: u16 = 17;
/// Hops that an answer may take, as of every packet of this host's own.
const HOPS: u8 = 64;
/// Words of the longest headers and question that are moved: Ethernet, two tags, IPv6, UDP, DNS, 255 bytes of name, type
/// and class.
const MOVED_WORDS: usize = 44;

/// Makes the packet as long as an answer with so many bytes behind its question.
#[inline(always)]
pub(crate) fn resized(ctx: &XdpContext, asked: &Asked, body: usize) -> bool {
    let wanted = asked.end() + body;
    let difference = wanted as i32 - (ctx.data_end() - ctx.data()) as i32;
    // SAFETY: the context is that of this run.
    if difference == 0 || unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), difference) } == 0 {
        return true;
    }
    // Packets of a veth have hardly any room behind them, and always some before.
    ingress_before(ctx.ctx, difference as u64, asked.end() as u64) != 0
}

/// Makes the packet longer at its front, and moves its first `kept` bytes there; 0 where that can't be. A function of its
/// own, so that the verifier follows it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ingress_before(ctx: *mut xdp_md, growth: u64, kept: u64) -> u64 {
    let (growth, kept) = (growth as usize & LIMIT, kept as usize & LIMIT);
    if growth == 0 || growth > 256 || kept < 8 || kept > 8 * MOVED_WORDS {
        return 0;
    }
    // SAFETY: the context is that of this run.
    if unsafe { bpf_xdp_adjust_head(ctx.cast(), -(growth as i32)) } != 0 {
        return 0;
    }
    let ctx = XdpContext::new(ctx);
    let frame = Frame::new(ctx.data(), ctx.data_end());
    // The last word first is read: the words before it may be written over it.
    let Some(last) = frame.window::<8>(frame.blur(growth + kept - 8)).map(|bytes| u64::from_ne_bytes(*bytes)) else {
        return 0;
    };
    let mut index = 0;
    while index < MOVED_WORDS && !frame.beyond(8 * index + 8, kept) {
        let Some(window) = frame.window::<8>(growth + 8 * index) else { return 0 };
        let word = u64::from_ne_bytes(*window);
        let Some(place) = frame.place::<8>(8 * index) else { return 0 };
        // SAFETY: inside the packet.
        unsafe { place.cast::<u64>().write_unaligned(word) };
        index += 1;
    }
    let Some(place) = frame.place::<8>(frame.blur(kept - 8)) else { return 0 };
    // SAFETY: inside the packet.
    unsafe { place.cast::<u64>().write_unaligned(last) };
    1
}

/// Writes the server's size into the OPT record of the question, which is to be its answer's.
#[inline(always)]
pub(crate) fn is_sized(frame: &Frame, records: usize, size: u16) -> bool {
    let Some(place) = frame.place::<2>(frame.blur(records + 3)) else { return false };
    // SAFETY: inside the packet.
    unsafe { *place = size.to_ne_bytes() };
    true
}

/// What an answer has behind its question.
pub(crate) struct Part {
    pub(crate) length: usize,
    /// The sum of its bytes, as if it began at an even place.
    pub(crate) sum: u64,
    pub(crate) flags: u16,
    pub(crate) counts: [u16; 3],
}

/// Turns the headers around and makes them those of an answer. `question` is the sum of the question's bytes.
#[inline(always)]
pub(crate) fn headed(frame: &Frame, asked: &Asked, part: &Part, question: u64) -> Option<()> {
    let datagram = 8 + 12 + asked.length + 4 + part.length;
    turn_ethernet(frame)?;
    let ends = if asked.v6 { turn_v6(frame, asked.ip, datagram)? } else { turn_v4(frame, asked.ip, datagram)? };
    let header = frame.place::<12>(asked.at)?;
    // SAFETY: inside the packet; DNS headers lie where they lie, so nothing is known of their alignment.
    let id = unsafe { header.cast::<u16>().read_unaligned() };
    let words = [id, part.flags, 1_u16.to_be(), part.counts[0], part.counts[1], part.counts[2]];
    let mut bytes = [0; 12];
    let mut sum = ends + question;
    let mut index = 0;
    while index < 6 {
        let [a, b] = words[index].to_ne_bytes();
        bytes[2 * index] = a;
        bytes[2 * index + 1] = b;
        sum += u64::from(words[index]);
        index += 1;
    }
    // SAFETY: inside the packet.
    unsafe { *header = bytes };
    // Behind an odd number of bytes, each of the others' is the other one of its pair.
    let swapped = u64::from(folded(part.sum).swap_bytes());
    sum += if asked.length & 1 == 0 { part.sum } else { swapped };
    let udp = frame.place::<8>(frame.blur(asked.at.wrapping_sub(8)))?;
    // SAFETY: inside the packet.
    let [a, b, ..] = unsafe { *udp };
    let (port, length) = (u16::from_ne_bytes([a, b]), (datagram as u16).to_be());
    sum += u64::from(port) + u64::from(53_u16.to_be()) + 2 * u64::from(length) + u64::from(UDP.to_be());
    let check = !folded(sum);
    let [c, d] = (if check == 0 { 0xffff } else { check }).to_ne_bytes();
    let [e, f] = length.to_ne_bytes();
    // SAFETY: inside the packet.
    unsafe { *udp = [0, 53, a, b, e, f, c, d] };
    Some(())
}

#[inline(always)]
fn turn_ethernet(frame: &Frame) -> Option<()> {
    let place = frame.place::<12>(0)?;
    // SAFETY: inside the packet.
    let [a, b, c, d, e, f, g, h, i, j, k, l] = unsafe { *place };
    // SAFETY: inside the packet.
    unsafe { *place = [g, h, i, j, k, l, a, b, c, d, e, f] };
    Some(())
}

/// Turns an IPv4 header without options around; gives the sum of both addresses.
#[inline(always)]
fn turn_v4(frame: &Frame, ip: usize, datagram: usize) -> Option<u64> {
    let place = frame.place::<20>(ip)?;
    // SAFETY: inside the packet.
    let old = unsafe { place.cast::<[u32; 5]>().read_unaligned() };
    let length = (20 + datagram as u16).to_be();
    // Only the number is kept, which nobody reads as long as the packet isn't cut into pieces.
    let [a, b, ..] = old[1].to_ne_bytes();
    let [e, f] = length.to_ne_bytes();
    let first = u32::from_ne_bytes([0x45, 0, e, f]);
    let second = u32::from_ne_bytes([a, b, 0, 0]);
    let third = u32::from_ne_bytes([HOPS, UDP as u8, 0, 0]);
    let ends = u64::from(old[3]) + u64::from(old[4]);
    let check = !folded(u64::from(first) + u64::from(second) + u64::from(third) + ends);
    let third = third | u32::from(check) << 16;
    // SAFETY: inside the packet.
    unsafe { place.cast::<[u32; 5]>().write_unaligned([first, second, third, old[4], old[3]]) };
    Some(ends)
}

/// Turns an IPv6 header around; gives the sum of both addresses.
#[inline(always)]
fn turn_v6(frame: &Frame, ip: usize, datagram: usize) -> Option<u64> {
    let place = frame.place::<40>(ip)?;
    // SAFETY: inside the packet.
    let old = unsafe { place.cast::<[u64; 5]>().read_unaligned() };
    let [e, f] = (datagram as u16).to_be_bytes();
    let first = u64::from_ne_bytes([0x60, 0, 0, 0, e, f, UDP as u8, HOPS]);
    let half = |word: u64| (word >> 32) + (word & 0xffff_ffff);
    // SAFETY: inside the packet.
    unsafe { place.cast::<[u64; 5]>().write_unaligned([first, old[3], old[4], old[1], old[2]]) };
    Some(half(old[1]) + half(old[2]) + half(old[3]) + half(old[4]))
}

/// Writes what stands behind the question.
#[inline(always)]
pub(crate) fn bodied(
    frame: &Frame,
    asked: &Asked,
    answer: &AnswerSlot,
    length: usize,
    age: u32,
    uses: *const AnswerUse,
) -> Option<()> {
    let begin = frame.blur(asked.end());
    let body = (&raw const answer.body).cast::<u8>();
    let mut index = 0;
    while index < BODY / 8 && !frame.beyond(8 * index + 8, length) {
        let place = frame.place::<8>(begin + 8 * index)?;
        // SAFETY: inside the packet.
        unsafe { place.cast::<u64>().write_unaligned(answer.body[index]) };
        index += 1;
    }
    if length & 7 != 0 {
        // The eight bytes that end with it; before it stands the question at least.
        let from = frame.blur(length.wrapping_sub(8)) & (BODY - 1);
        let place = frame.place::<8>(frame.blur(begin + from))?;
        // SAFETY: the mask keeps it inside the body, behind which there is a word more.
        let word = unsafe { body.add(from).cast::<u64>().read_unaligned() };
        // SAFETY: inside the packet.
        unsafe { place.cast::<u64>().write_unaligned(word) };
    }
    let mut index = 0;
    while index < TTLS && index < answer.ttls as usize {
        let at = answer.ttl_at[index] as usize & (BODY - 1);
        let place = frame.place::<4>(frame.blur(begin + at))?.cast::<u32>();
        // SAFETY: inside the packet.
        let ttl = u32::from_be(unsafe { place.read_unaligned() });
        // SAFETY: inside the packet.
        unsafe { place.write_unaligned((ttl - age).to_be()) };
        index += 1;
    }
    if answer.turns > 1 {
        turn(frame, asked, answer, begin, uses)?;
    }
    Some(())
}

/// Lets another record come first.
#[inline(always)]
fn turn(frame: &Frame, asked: &Asked, answer: &AnswerSlot, begin: usize, uses: *const AnswerUse) -> Option<()> {
    let body = (&raw const answer.body).cast::<u8>();
    let turns = answer.turns as u32;
    // SAFETY: inside the array; a word that user space may be changing.
    let lead = unsafe { (&raw const (*uses).first).read_volatile() } as u32;
    let id = be16(frame.window::<2>(asked.at)?, 0);
    let first = if lead != 0 { lead - 1 } else { u32::from(id) };
    let mut from = frame.blur((first % turns) as usize);
    let wide = frame.blur_flag(answer.turn_size == 16);
    let mut index = 0;
    while index < TURNS && index < turns as usize {
        let source = frame.blur(answer.turn_at as usize + from * answer.turn_stride as usize) & (BODY - 1);
        let target = (answer.turn_at as usize + index * answer.turn_stride as usize) & (BODY - 1);
        let target = frame.blur(begin + target);
        // SAFETY: the mask keeps it inside the body, behind which there is a word more.
        let low = unsafe { body.add(source).cast::<u64>().read_unaligned() };
        if wide {
            let place = frame.place::<16>(target)?.cast::<[u64; 2]>();
            let behind = frame.blur(source + 8) & (BODY - 1);
            // SAFETY: as above.
            let high = unsafe { body.add(behind).cast::<u64>().read_unaligned() };
            // SAFETY: inside the packet.
            unsafe { place.write_unaligned([low, high]) };
        } else {
            let place = frame.place::<4>(target)?.cast::<u32>();
            // SAFETY: inside the packet.
            unsafe { place.write_unaligned(low as u32) };
        }
        from = frame.blur(if from + 1 >= turns as usize { 0 } else { from + 1 });
        index += 1;
    }
    Some(())
}

/// The sum of an answer's body after so many seconds: each TTL is that much less, which in a sum of 16-bit words counts
/// by where it stands alone.
#[inline(always)]
pub(crate) fn aged(answer: &AnswerSlot, age: u32) -> u64 {
    let less = u64::from(folded(u64::from(age) * u64::from(answer.ageing)));
    u64::from(answer.sum) + 0xffff - less
}

/// Whole seconds of so many nanoseconds, of a day at most: a multiplication, which is wrong by 0.1 ms at the edge.
#[inline(always)]
pub(crate) const fn seconds(nanos: u64) -> u32 {
    (((nanos >> 16) * 4_611_686_018) >> 46) as u32
}

/// A sum of 16-bit words in one (RFC 1071).
#[inline(always)]
const fn folded(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}
