//! XDP: what arrives.

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use prewarm_ebpf::abi::COUNTERS_INGRESS;

use crate::{
    answer,
    count::Counters,
    frame::Frame,
    maps::ANSWERING,
    sense::{self, Hook, Message, Passage},
};

#[xdp]
fn ingress(ctx: XdpContext) -> u32 {
    observe(&ctx)
}

/// Sees one frame, and answers it where that is switched on.
#[inline(always)]
pub(crate) fn observe(ctx: &XdpContext) -> u32 {
    let Some(counters) = Counters::of(COUNTERS_INGRESS) else { return XDP_PASS };
    let seen = sense::frame(&passage(ctx, counters), |message| {
        let id = message.scanned.map_or(0, |scan| scan.id);
        ingress_message(ctx.ctx, message.segment.pack(), message.place(), id);
    });
    if ANSWERING.load() == 0 {
        return XDP_PASS;
    }
    let Some(message) = seen else { return XDP_PASS };
    let Some(scan) = message.scanned else { return XDP_PASS };
    ingress_answer(ctx.ctx, message.segment.pack(), message.place(), scan.id) as u32
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

/// Answers a question, or lets it pass: a function of its own for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ingress_answer(ctx: *mut xdp_md, segment: u64, place: u64, id: u64) -> u64 {
    u64::from(answer::answer(&XdpContext::new(ctx), &Message::unpack(segment, place, id)))
}
