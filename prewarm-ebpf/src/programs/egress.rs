//! tcx or clsact: what leaves.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use prewarm_ebpf::{Counter, abi::COUNTERS_EGRESS, locate};

use crate::{
    count::Counters,
    frame::Frame,
    maps::{ANSWERING, OWN_MARK},
    sense::{self, Hook, Message, Passage},
    vouch,
};

/// How much of a packet is brought into reach at most.
const REACH: u32 = 4096;

// `TC_ACT_UNSPEC` is "next" at tcx and "what is configured" at clsact: other programs and filters see the packet.
#[classifier]
fn egress(ctx: TcContext) -> i32 {
    observe(&ctx);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn observe(ctx: &TcContext) {
    let Some(counters) = Counters::of(COUNTERS_EGRESS) else { return };
    // SAFETY: the context is valid while the program runs.
    let mark = unsafe { (*ctx.skb.skb).mark };
    if mark != 0 && mark == OWN_MARK.load() {
        counters.one(Counter::Packets);
        counters.one(Counter::Own);
        return;
    }
    let passage = passage(ctx, counters);
    // What a stack sends over TCP lies in pages that a program can't read until they are pulled into the first part,
    // which may hold no more than the headers.
    let length = ctx.len();
    if (length as usize) > ctx.data_end() - ctx.data()
        && matches!(locate(&passage.frame), Ok(_) | Err(Counter::TcpEmpty | Counter::Truncated))
        && ctx.pull_data(if length > REACH { REACH } else { length }).is_err()
    {
        counters.one(Counter::Packets);
        counters.one(Counter::Unreachable);
        return;
    }
    let _question = sense::frame(&self::passage(ctx, counters), |message| {
        let id = message.scanned.map_or(0, |scan| scan.id);
        egress_message(ctx.skb.skb, message.segment.pack(), message.place(), id);
        if ANSWERING.load() != 0 {
            egress_answered(ctx.skb.skb, message.segment.pack(), message.place());
        }
    });
}

#[inline(always)]
fn passage(ctx: &TcContext, counters: Counters) -> Passage {
    // SAFETY: the context is valid while the program runs.
    let interface = unsafe { (*ctx.skb.skb).ifindex };
    Passage { frame: Frame::new(ctx.data(), ctx.data_end()), counters, hook: Hook::Egress, interface }
}

/// One message, from its packed place.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn egress_message(skb: *mut __sk_buff, segment: u64, place: u64, id: u64) -> u64 {
    let Some(counters) = Counters::of(COUNTERS_EGRESS) else { return 0 };
    sense::whole(&passage(&TcContext::new(skb), counters), &Message::unpack(segment, place, id));
    0
}

/// Whom a server of this host answered: a function of its own for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn egress_answered(skb: *mut __sk_buff, segment: u64, place: u64) -> u64 {
    let Some(counters) = Counters::of(COUNTERS_EGRESS) else { return 0 };
    // What the name's ID is matters to nobody here.
    vouch::answered(&passage(&TcContext::new(skb), counters), &Message::unpack(segment, place, 0));
    0
}
