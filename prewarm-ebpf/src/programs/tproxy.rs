//! tcx or clsact at the ingress of a gateway: a connection that this host would forward to where a lease waits is given
//! to the daemon instead, which has the lease. Without a lease that this very packet could claim, nothing is touched.
//!
//! Comes in: packets that arrive. Goes out: the same; those of a connection that was taken over with the daemon's socket
//! and the mark by which this host routes them to itself. Never here: a verdict other than "next", a claim without a
//! first packet, or one for a connection that is taken over already.

use core::ptr;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC, bpf_sock, bpf_sock_tuple},
    helpers::{bpf_ktime_get_ns, bpf_sk_assign, bpf_sk_release, bpf_skc_lookup_tcp},
    macros::classifier,
    programs::TcContext,
};
use prewarm_ebpf::{
    Packet,
    redirect::{Destination, OfferKey, SLOT_USED, SLOTS, Slots},
    tproxy::{Flow, Place, Taken, TproxyCounter as Counter, YOUNG},
};

use crate::{
    frame::Frame,
    heartbeat,
    maps::{FLOWS, PLACE, TPROXY_COUNTERS, TPROXY_DESTINATIONS, TPROXY_OFFERS},
};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const ETHERNET: usize = 14;
/// The longest headers that are looked at: no more need be brought into reach.
const REACH: u32 = 94;
/// The third word of an IPv4 address in IPv6 form.
const MAPPED: u32 = 0xffff_u32.to_be();
/// The first words of 127.0.0.1 and ::1, as they stand in a packet.
const LOOPBACK4: u32 = 0x7f00_0001_u32.to_be();
const LOOPBACK6: u32 = 1_u32.to_be();
/// `PACKET_HOST`: sent to this host's link address.
const TO_US: u32 = 0;
/// States of a socket (`include/net/tcp_states.h`).
const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;
/// `BPF_F_CURRENT_NETNS`.
const THIS_NAMESPACE: u64 = u64::MAX;

// "Next" at tcx, "what is configured" at clsact: other programs and filters see the packet.
#[classifier]
fn tproxy(ctx: TcContext) -> i32 {
    take_over(&ctx);
    TC_ACT_UNSPEC
}

/// A TCP segment on its way.
struct Segment {
    flow: Flow,
    v6: bool,
    /// The first of its connection.
    opens: bool,
}

#[inline(always)]
fn take_over(ctx: &TcContext) {
    let Some(segment) = segment(ctx) else { return };
    let known = FLOWS.get_ptr(&segment.flow);
    let (since, known) = match known {
        // SAFETY: inside the map; an entry that is overwritten meanwhile is as good.
        Some(taken) => (unsafe { (&raw const (*taken).time).read_volatile() }, true),
        None => (0, false),
    };
    if known {
        // SAFETY: the helper only reads a clock.
        let now = unsafe { bpf_ktime_get_ns() };
        let young = now.saturating_sub(since) < YOUNG;
        match to_socket(ctx, &segment) {
            Met::Taken => return count(Counter::Packets),
            // An answer to a first packet may be lost with the socket that waited for it (SYN cookies).
            Met::Nobody if young => {
                if to_listener(ctx, &segment) {
                    count(Counter::Packets);
                }
                return;
            }
            Met::Nobody | Met::Remains if !segment.opens => return,
            Met::Nobody | Met::Remains => {}
        }
    }
    if segment.opens && !claim(ctx, &segment) && known {
        // It goes its own way from here, and so do the packets behind it.
        let _absent = FLOWS.remove(&segment.flow);
    }
}

/// Reads a segment that could be one of a forwarded connection.
#[inline(always)]
fn segment(ctx: &TcContext) -> Option<Segment> {
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid while the program runs; each is an access of its own size.
    let (kind, tagged) = unsafe { ((*skb).pkt_type, (*skb).vlan_present) };
    if kind != TO_US || tagged != 0 {
        return None;
    }
    let reachable = (ctx.data_end() - ctx.data()) as u32;
    if reachable < REACH && reachable < ctx.len() {
        let length = ctx.len();
        ctx.pull_data(if length > REACH { REACH } else { length }).ok()?;
    }
    let frame = Frame::new(ctx.data(), ctx.data_end());
    let ethernet = frame.window::<ETHERNET>(0)?;
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        IPV4 => {
            let header = frame.window::<20>(ETHERNET)?;
            let length = (header[0] & 0x0f) as usize * 4;
            // Of a fragment nobody knows the ports.
            let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
            if header[0] >> 4 != 4 || length < 20 || header[9] != TCP || fragment != 0 {
                return None;
            }
            let client = [0, 0, MAPPED, word([header[12], header[13], header[14], header[15]])];
            let origin = [0, 0, MAPPED, word([header[16], header[17], header[18], header[19]])];
            let (ports, opens) = tcp(&frame, frame.blur(ETHERNET + length))?;
            Some(Segment { flow: Flow { client, origin, ports, reserved: 0 }, v6: false, opens })
        }
        IPV6 => {
            let header = frame.window::<40>(ETHERNET)?;
            if header[0] >> 4 != 6 || header[6] != TCP {
                return None;
            }
            let mut client = [0; 4];
            let mut origin = [0; 4];
            let mut index = 0;
            while index < 4 {
                let (from, to) = (8 + index * 4, 24 + index * 4);
                client[index] = word([header[from], header[from + 1], header[from + 2], header[from + 3]]);
                origin[index] = word([header[to], header[to + 1], header[to + 2], header[to + 3]]);
                index += 1;
            }
            let (ports, opens) = tcp(&frame, ETHERNET + 40)?;
            Some(Segment { flow: Flow { client, origin, ports, reserved: 0 }, v6: true, opens })
        }
        _ => None,
    }
}

/// The ports in one word, and whether it opens a connection.
#[inline(always)]
fn tcp(frame: &Frame, at: usize) -> Option<(u32, bool)> {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let header = frame.window::<14>(at)?;
    Some((word([header[0], header[1], header[2], header[3]]), header[13] & (SYN | ACK) == SYN))
}

#[inline(always)]
const fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

/// What a packet of a connection that was taken over meets on this host.
enum Met {
    /// The socket of its connection, which has it now.
    Taken,
    /// What is left of a connection that has ended.
    Remains,
    /// Nothing.
    Nobody,
}

/// Gives a packet to the socket of its connection.
#[inline(always)]
fn to_socket(ctx: &TcContext, segment: &Segment) -> Met {
    let Flow { client, origin, ports, .. } = segment.flow;
    let socket = lookup(ctx, segment.v6, client, origin, ports);
    if socket.is_null() {
        return Met::Nobody;
    }
    // SAFETY: a socket that was found and not released yet.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    let met = if state == LISTEN {
        // Somebody on this host listens at that port of all addresses: not for this connection.
        Met::Nobody
    } else if state == TIME_WAIT && segment.opens {
        Met::Remains
    } else if assign(ctx, socket) {
        Met::Taken
    } else {
        Met::Remains
    };
    release(socket);
    met
}

/// Gives a packet to the daemon's listener.
#[inline(always)]
fn to_listener(ctx: &TcContext, segment: &Segment) -> bool {
    let Some(port) = port(segment) else { return false };
    let address = if segment.v6 { [0, 0, 0, LOOPBACK6] } else { [0, 0, MAPPED, LOOPBACK4] };
    // The client's port, then ours.
    let [a, b, ..] = segment.flow.ports.to_ne_bytes();
    let [c, d, ..] = port.to_ne_bytes();
    let socket = lookup(ctx, segment.v6, segment.flow.client, address, word([a, b, c, d]));
    if socket.is_null() {
        return false;
    }
    // SAFETY: a socket that was found and not released yet.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    let taken = state == LISTEN && assign(ctx, socket);
    release(socket);
    taken
}

/// The port of the daemon's listener of a segment's family, where there is one.
#[inline(always)]
fn port(segment: &Segment) -> Option<u32> {
    let place = place()?;
    // SAFETY: inside the map; a word that user space may be changing.
    let (port4, port6) =
        unsafe { ((&raw const (*place).port4).read_volatile(), (&raw const (*place).port6).read_volatile()) };
    let port = if segment.v6 { port6 } else { port4 };
    if port == 0 { None } else { Some(port) }
}

/// Claims a lease for a connection that begins, and takes it over.
#[inline(always)]
fn claim(ctx: &TcContext, segment: &Segment) -> bool {
    let Flow { origin, ports, .. } = segment.flow;
    let [_, _, c, d] = ports.to_ne_bytes();
    let destination = Destination { address: origin, port: word([c, d, 0, 0]) };
    let Some(slots) = TPROXY_DESTINATIONS.get_ptr(destination) else { return false };
    if !heartbeat::is_fresh() {
        return refuse(Counter::Stale);
    }
    if port(segment).is_none() {
        return false;
    }
    let Some(token) = token(&destination, slots) else { return refuse(Counter::Missed) };
    // SAFETY: the helper only reads a clock.
    let time = unsafe { bpf_ktime_get_ns() };
    // Written down before the first packet can reach the daemon.
    if FLOWS.insert(&segment.flow, Taken { time, token, spent: 0 }, 0).is_err() {
        return refuse(Counter::Forgotten);
    }
    if !to_listener(ctx, segment) {
        let _absent = FLOWS.remove(&segment.flow);
        return refuse(Counter::Forgotten);
    }
    count(Counter::Claimed);
    true
}

/// Claims one lease to there: whoever deletes its entry has it.
#[inline(always)]
fn token(destination: &Destination, slots: *const Slots) -> Option<u32> {
    let mut key = OfferKey { destination: *destination, token: 0 };
    let mut index = 0;
    while index < SLOTS {
        // SAFETY: inside the map; a word that user space may be changing.
        let slot = unsafe { (&raw const (*slots).tokens[index]).read_volatile() };
        if slot == 0 {
            break;
        }
        key.token = slot & !SLOT_USED;
        if TPROXY_OFFERS.remove(key).is_ok() {
            return Some(key.token);
        }
        index += 1;
    }
    None
}

/// Words that the compiler may write in pairs.
#[repr(C, align(8))]
struct Tuple<const N: usize>([u32; N]);

/// Looks a socket of this host up by a packet's ends; what is found must be released.
#[inline(always)]
fn lookup(ctx: &TcContext, v6: bool, from: [u32; 4], to: [u32; 4], ports: u32) -> *mut bpf_sock {
    let context = ctx.skb.skb.cast();
    if v6 {
        let mut tuple = Tuple([from[0], from[1], from[2], from[3], to[0], to[1], to[2], to[3], ports]);
        let at: *mut bpf_sock_tuple = (&raw mut tuple).cast();
        // SAFETY: the nine words lie as the members of the tuple for IPv6 do, and the helper copies them.
        unsafe { bpf_skc_lookup_tcp(context, at, size_of_val(&tuple.0) as u32, THIS_NAMESPACE, 0) }
    } else {
        let mut tuple = Tuple([from[3], to[3], ports]);
        let at: *mut bpf_sock_tuple = (&raw mut tuple).cast();
        // SAFETY: as above, for IPv4.
        unsafe { bpf_skc_lookup_tcp(context, at, size_of_val(&tuple.0) as u32, THIS_NAMESPACE, 0) }
    }
}

/// Gives the packet to a socket, and marks it so that it is routed to this host.
#[inline(always)]
fn assign(ctx: &TcContext, socket: *mut bpf_sock) -> bool {
    let Some(place) = place() else { return false };
    let skb: *mut __sk_buff = ctx.skb.skb;
    // SAFETY: a socket that was found and not released yet; the helper takes a reference of its own.
    if unsafe { bpf_sk_assign(skb.cast(), socket.cast(), 0) } != 0 {
        return false;
    }
    // SAFETY: inside the map; a word that is written before the program is attached.
    let mark = unsafe { (&raw const (*place).mark).read_volatile() };
    // SAFETY: the context is valid while the program runs, and the mark may be written.
    unsafe { (&raw mut (*skb).mark).write_volatile(mark) };
    true
}

#[inline(always)]
fn release(socket: *mut bpf_sock) {
    // SAFETY: it was found, and this is the only release on every way.
    let _always_zero = unsafe { bpf_sk_release(socket.cast()) };
}

/// Where connections are taken to; the record itself stays where it is, since a copy would be made in words of a size
/// that its place on the stack does not allow.
#[inline(always)]
fn place() -> Option<*const Place> {
    PLACE.get_ptr(0)
}

#[inline(always)]
fn refuse(reason: Counter) -> bool {
    count(reason);
    false
}

#[inline(always)]
fn count(counter: Counter) {
    if let Some(counters) = TPROXY_COUNTERS.get_ptr_mut(0) {
        // SAFETY: the entry is this processor's; a preempted addition loses a count at worst.
        let cell = unsafe { &raw mut (*counters)[counter as usize] };
        // SAFETY: inside the entry.
        unsafe { ptr::write(cell, ptr::read(cell).wrapping_add(1)) };
    }
}
