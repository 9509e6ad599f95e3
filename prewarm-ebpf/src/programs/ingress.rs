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
    sense::{self, Hook, Message, Passage},
};

#[xdp]
fn ingress(ctx: XdpContext) -> u32 {
    observe(&ctx);
    XDP_PASS
}

/// Sees one frame.
#[inline(always)]
pub(crate) fn observe(ctx: &XdpContext) {
    let Some(counters) = Counters::of(COUNTERS_INGRESS) else { return };
    sense::frame(&passage(ctx, counters), |message| {
        let id = message.scanned.map_or(0, |scan| scan.id);
        ingress_message(ctx.ctx, message.segment.pack(), message.place(), id);
    });
}

#[inline(always)]
fn passage(ctx: &XdpContext, counters: Counters) -> Passage {
    let frame = Frame::new(ctx.data(), ctx.data_end());
    Passage { frame, counters, hook: Hook::Ingress, interface: ctx.ingress_ifindex() as u32 }
}

/// One message, from its packed place.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ingress_message(ctx: *mut xdp_md, segment: u64, place: u64, id: u64) -> u64 {
    let Some(counters) = Counters::of(COUNTERS_INGRESS) else { return 0 };
    sense::whole(&passage(&XdpContext::new(ctx), counters), &Message::unpack(segment, place, id));
    0
}
