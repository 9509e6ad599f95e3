//! XDP for benches: another name in each packet, because a test run repeats one packet. Never attached.
//!
//! `bench_new` changes the name and sees the packet, `bench_vary` only changes it; the difference is what seeing a
//! new name costs. The packet is an untagged IPv4 datagram without options.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};

use crate::ingress;

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
