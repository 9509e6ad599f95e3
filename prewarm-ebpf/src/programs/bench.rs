//! XDP for benches: another name in each packet, because a test run repeats one packet. Never attached.
//!
//! `bench_new` changes the name and sees the packet, `bench_vary` only changes it; the difference is what seeing a
//! new name costs. The packet is an untagged IPv4 datagram without options.
//!
//! `bench_answer` makes a question of the answer that the packet became in the run before, and answers it; the length of
//! the question is the number of the IP packet. `bench_restore` does the same without answering, on a packet that it makes
//! longer first, and `bench_tail` only makes it longer and shorter.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::bpf_xdp_adjust_tail,
    macros::xdp,
    programs::XdpContext,
};

use prewarm_ebpf::Packet as _;

use crate::{frame::Frame, ingress};

/// Behind Ethernet, IPv4, UDP and DNS headers, and the first label's length.
const LABEL: usize = 14 + 20 + 8 + 12 + 1;

#[xdp]
fn bench_new(ctx: XdpContext) -> u32 {
    vary(&ctx);
    ingress::observe(&ctx);
    XDP_PASS
}

#[xdp]
fn bench_vary(ctx: XdpContext) -> u32 {
    vary(&ctx);
    XDP_PASS
}

/// Counts the first label's first four bytes up in base 16, as letters.
#[inline(always)]
fn vary(ctx: &XdpContext) {
    let start = ctx.data() + LABEL;
    if start + 8 > ctx.data_end() {
        return;
    }
    let label = start as *mut [u8; 8];
    // SAFETY: inside the packet, as checked above.
    let letters = unsafe { &mut *label };
    let mut carry = true;
    for letter in letters.iter_mut().take(4) {
        if carry {
            *letter += 1;
            carry = *letter > b'p';
            if carry {
                *letter = b'a';
            }
        }
    }
}

/// The headers before the DNS message.
const HEADERS: usize = 14 + 20 + 8;
/// What an answer with one address is longer than its question.
const GROWTH: i32 = 16;

#[xdp]
fn bench_answer(ctx: XdpContext) -> u32 {
    restore(&ctx);
    ingress::observe(&ctx)
}

#[xdp]
fn bench_restore(ctx: XdpContext) -> u32 {
    resize(&ctx, GROWTH);
    restore(&ctx);
    XDP_PASS
}

/// Neighbours still find each other.
#[xdp]
fn bench_drop(ctx: XdpContext) -> u32 {
    let frame = Frame::new(ctx.data(), ctx.data_end());
    let is_datagram = frame.window::<24>(0).is_some_and(|bytes| bytes[12] == 8 && bytes[13] == 0 && bytes[23] == 17);
    if is_datagram { XDP_DROP } else { XDP_PASS }
}

#[xdp]
fn bench_tail(ctx: XdpContext) -> u32 {
    resize(&ctx, GROWTH);
    resize(&ctx, -GROWTH);
    XDP_PASS
}

#[inline(always)]
fn resize(ctx: &XdpContext, difference: i32) {
    // SAFETY: the context is that of this run. Where it fails the verdict is not what the bench wants to see.
    unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), difference) };
}

/// Makes the packet a question again, whose ends are the same, so that it doesn't matter that they changed places.
#[inline(always)]
fn restore(ctx: &XdpContext) {
    let frame = Frame::new(ctx.data(), ctx.data_end());
    let Some(ip) = frame.place::<{ HEADERS + 12 - 14 }>(14) else { return };
    // SAFETY: inside the packet.
    let bytes = unsafe { &mut *ip };
    let length = u16::from_be_bytes([bytes[4], bytes[5]]);
    let [a, b] = (length - 14).to_be_bytes();
    (bytes[2], bytes[3]) = (a, b);
    let [a, b] = (length - 34).to_be_bytes();
    (bytes[24], bytes[25]) = (a, b);
    // RD, one question.
    let mut index = 0;
    let header = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    while index < 10 {
        bytes[30 + index] = header[index];
        index += 1;
    }
    let difference = i32::from(length) - (ctx.data_end() - ctx.data()) as i32;
    if difference != 0 {
        resize(ctx, difference);
    }
}
