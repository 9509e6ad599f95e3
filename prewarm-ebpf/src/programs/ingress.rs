//! XDP: what arrives.

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use prewarm_ebpf::abi::COUNTERS_INGRESS;

use crate::{
    count::Counters,
    frame::Frame,
    sense::{self, Hook, Passage},
};

#[xdp]
fn ingress(ctx: XdpContext) -> u32 {
    observe(&ctx);
    XDP_PASS
}

/// Sees one frame.
#[inline(always)]
pub(crate) fn observe(ctx: &XdpContext) {
    if let Some(counters) = Counters::of(COUNTERS_INGRESS) {
        if let Some(first) = sense::frame(&passage(ctx, counters)) {
            sense::stream(first, |at| ingress_message(ctx.ctx, at as u64) as usize);
        }
    }
}

#[inline(always)]
fn passage(ctx: &XdpContext, counters: Counters) -> Passage {
    let frame = Frame::new(ctx.data(), ctx.data_end());
    Passage { frame, counters, hook: Hook::Ingress, interface: ctx.ingress_ifindex() as u32 }
}

/// One message of a TCP segment; a function of its own, so that the verifier follows it once for all of them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ingress_message(ctx: *mut xdp_md, at: u64) -> u64 {
    let Some(counters) = Counters::of(COUNTERS_INGRESS) else { return 0 };
    sense::message_in_stream(&passage(&XdpContext::new(ctx), counters), at as usize) as u64
}
