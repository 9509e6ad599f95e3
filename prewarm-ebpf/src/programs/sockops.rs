//! sock_ops on the root of the cgroups: how long the handshakes of this host's connections took, and what became of
//! them.
//!
//! Only watches: it answers nothing, so the kernel goes on as without it, and whatever goes wrong here is left out.
//! This runs in the path of every connection, so it returns at once from all calls but three: a connection that was
//! established from here, one that ends, and the first bytes that one of the daemon's own carried. Those of other
//! directions, and to this host itself, cost a comparison.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, bpf_sock_ops,
    },
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns},
    macros::sock_ops,
    programs::SockOpsContext,
};
use prewarm_ebpf::{
    Counter,
    abi::{COUNTERS_SOCKOPS, FLAG_OWN, FLAG_RETRANSMITTED, KIND_CARRIED, KIND_CLOSED, KIND_CONNECTED},
};

use crate::{count::Counters, emit, maps::DIALLED};

/// The state that a connection ends in (`include/net/tcp_states.h`).
const TCP_CLOSE: u32 = 7;
const AF_INET6: u32 = 10;
/// What stands before the address in `::ffff:a.b.c.d`, as a word in network order.
const MAPPED: u32 = 0xffff_u32.to_be();

/// Reads a field of the context by one instruction with a constant offset. The verifier allows no other: neither the
/// wider loads that the compiler makes of neighbours, nor an address that it chose between two fields.
macro_rules! load {
    ($width:literal, $ctx:expr, $offset:expr) => {{
        let context: *const bpf_sock_ops = $ctx.ops;
        let value: u64;
        // SAFETY: the context is valid while the program runs, and the offset is that of a field of this width.
        unsafe {
            asm!(
                concat!("{value} = *(", $width, " *)({context} + {offset})"),
                value = out(reg) value,
                context = in(reg) context,
                offset = const $offset,
                options(readonly, nostack)
            );
        };
        value
    }};
}

/// A field of 32 bits.
macro_rules! field {
    ($ctx:expr, $field:ident) => {
        load!("u32", $ctx, offset_of!(bpf_sock_ops, $field)) as u32
    };
    ($ctx:expr, $field:ident[$index:literal]) => {
        load!("u32", $ctx, offset_of!(bpf_sock_ops, $field) + 4 * $index) as u32
    };
}

/// A field of 64 bits.
macro_rules! wide {
    ($ctx:expr, $field:ident) => {
        load!("u64", $ctx, offset_of!(bpf_sock_ops, $field))
    };
}

/// Writes a field of a record in the ring.
macro_rules! put {
    ($place:expr, $field:ident, $value:expr) => {{
        let value = $value;
        // SAFETY: reserved with the size of the record.
        let field = unsafe { &raw mut (*$place).$field };
        // SAFETY: as above.
        unsafe { field.write(value) };
    }};
}

/// Writes an address of a record in the ring.
macro_rules! words {
    ($place:expr, $field:ident, $value:expr) => {{
        // SAFETY: reserved with the size of the record.
        let field = unsafe { (&raw mut (*$place).$field).cast::<[u32; 4]>() };
        // SAFETY: as above; addresses are aligned to 8 bytes.
        unsafe { field.write($value) };
    }};
}

/// Nothing that the kernel acts on: it goes on as without us.
const GO_ON: u32 = 1;

// The section is called `sockops` already.
#[sock_ops]
fn sock_watch(ctx: SockOpsContext) -> u32 {
    match field!(ctx, op) {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(&ctx),
        BPF_SOCK_OPS_STATE_CB if new_state(&ctx) == TCP_CLOSE => closed(&ctx),
        BPF_SOCK_OPS_RTT_CB => measured(&ctx),
        _ => {}
    }
    GO_ON
}

#[inline(always)]
fn established(ctx: &SockOpsContext) {
    let destination = remote(ctx);
    if is_here(destination) {
        return;
    }
    let Some(counters) = Counters::of(COUNTERS_SOCKOPS) else { return };
    let socket = cookie(ctx);
    // SAFETY: the entry is not read, only whether it is there.
    let own = unsafe { DIALLED.get(socket) }.is_some();
    let mut wanted = BPF_SOCK_OPS_STATE_CB_FLAG;
    if own {
        // Whether a lease is ever used is worth a call a round trip until it is.
        wanted |= BPF_SOCK_OPS_RTT_CB_FLAG;
        // One that is gone already was pushed out, which changes nothing.
        let _gone = DIALLED.remove(socket);
    }
    // Where the kernel refuses, the end of this one stays unknown.
    let _refused = ctx.set_cb_flags((field!(ctx, bpf_sock_ops_cb_flags) | wanted) as i32);
    counters.one(if own { Counter::Dialled } else { Counter::Connected });
    let again = field!(ctx, total_retrans) != 0;
    let flags = if own { FLAG_OWN } else { 0 } | if again { FLAG_RETRANSMITTED } else { 0 };
    record(ctx, counters, KIND_CONNECTED, flags, socket, destination);
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let Some(counters) = Counters::of(COUNTERS_SOCKOPS) else { return };
    // Another program may have asked for this call, for connections that this one leaves out.
    let destination = remote(ctx);
    if is_here(destination) {
        return;
    }
    counters.one(Counter::Closed);
    record(ctx, counters, KIND_CLOSED, 0, cookie(ctx), destination);
}

#[inline(always)]
fn measured(ctx: &SockOpsContext) {
    if field!(ctx, data_segs_out) == 0 {
        return;
    }
    let Some(counters) = Counters::of(COUNTERS_SOCKOPS) else { return };
    // On a socket of the daemon's, nobody else is expected to want these calls.
    let _refused = ctx.set_cb_flags((field!(ctx, bpf_sock_ops_cb_flags) & !BPF_SOCK_OPS_RTT_CB_FLAG) as i32);
    record(ctx, counters, KIND_CARRIED, FLAG_OWN, cookie(ctx), remote(ctx));
}

#[inline(always)]
fn record(ctx: &SockOpsContext, counters: Counters, kind: u8, flags: u16, socket: u64, destination: [u32; 4]) {
    // SAFETY: the context is valid while the program runs.
    let namespace = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let source = local(ctx);
    // SAFETY: the helper takes nothing and only reads a clock.
    let time = unsafe { bpf_ktime_get_ns() };
    emit::connection(counters, kind == KIND_CONNECTED, |place| {
        let head = u64::from(kind) | u64::from(flags) << 16 | u64::from(port(ctx)) << 32;
        // SAFETY: reserved with the size of the record, whose first five fields fill one aligned word.
        unsafe { place.cast::<u64>().write(head) };
        put!(place, time, time);
        put!(place, socket, socket);
        put!(place, namespace, namespace);
        words!(place, source, source);
        words!(place, destination, destination);
        put!(place, round_trip, field!(ctx, srtt_us) >> 3);
        put!(place, data_segments, field!(ctx, data_segs_out));
        put!(place, sent, wide!(ctx, bytes_acked));
        put!(place, received, wide!(ctx, bytes_received));
    });
}

#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the context is valid while the program runs.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// The second argument of the call; the first is the old state.
#[inline(always)]
fn new_state(ctx: &SockOpsContext) -> u32 {
    load!("u32", ctx, offset_of!(bpf_sock_ops, __bindgen_anon_1) + 4) as u32
}

/// The context has the port in the upper half of a word, in network order.
#[inline(always)]
fn port(ctx: &SockOpsContext) -> u16 {
    u32::from_be(field!(ctx, remote_port)) as u16
}

#[inline(always)]
fn remote(ctx: &SockOpsContext) -> [u32; 4] {
    if field!(ctx, family) != AF_INET6 {
        return [0, 0, MAPPED, field!(ctx, remote_ip4)];
    }
    [field!(ctx, remote_ip6[0]), field!(ctx, remote_ip6[1]), field!(ctx, remote_ip6[2]), field!(ctx, remote_ip6[3])]
}

#[inline(always)]
fn local(ctx: &SockOpsContext) -> [u32; 4] {
    if field!(ctx, family) != AF_INET6 {
        return [0, 0, MAPPED, field!(ctx, local_ip4)];
    }
    [field!(ctx, local_ip6[0]), field!(ctx, local_ip6[1]), field!(ctx, local_ip6[2]), field!(ctx, local_ip6[3])]
}

/// Whether this is 127.0.0.0/8 or ::1.
#[inline(always)]
fn is_here(address: [u32; 4]) -> bool {
    let [first, second, third, last] = address;
    first | second == 0 && (third == MAPPED && last.to_ne_bytes()[0] == 127 || third == 0 && last == 1_u32.to_be())
}
