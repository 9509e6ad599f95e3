//! cgroup getpeername and getsockname: a redirected socket shows the addresses it would have had.
//!
//! Comes in: the addresses of loopback that such a socket really has. Goes out: where its program connected to, and the
//! lease's own address. Never here: a look at any other socket than those on loopback.

use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::bpf_get_socket_cookie, macros::cgroup_sock_addr, programs::SockAddrContext,
};
use prewarm_ebpf::redirect::{Destination, Redirected, TOKEN_MASK, TOKEN_NETWORK};

use crate::{
    connect::{MAPPED, field, set},
    maps::REDIRECTED,
};

/// The only answer: the call goes on.
const PROCEED: i32 = 1;
const LOOPBACK: u32 = 0x7f00_0001;

#[cgroup_sock_addr(getpeername4)]
fn peername4(ctx: SockAddrContext) -> i32 {
    let sock = ctx.sock_addr;
    if let Some(token) = token(field!(sock, user_ip4))
        && let Some(entry) = redirected(sock)
        && entry.token == token
    {
        put4(sock, &entry.peer);
    }
    PROCEED
}

#[cgroup_sock_addr(getpeername6)]
fn peername6(ctx: SockAddrContext) -> i32 {
    let sock = ctx.sock_addr;
    let last = field!(sock, user_ip6[3]);
    let token = match prefix(sock) {
        Prefix::Mapped => match token(last) {
            Some(token) => Some(token),
            None => return PROCEED,
        },
        Prefix::Zero if last == 1_u32.to_be() => None,
        _ => return PROCEED,
    };
    if let Some(entry) = redirected(sock)
        && token.is_none_or(|token| token == entry.token)
    {
        put6(sock, &entry.peer);
    }
    PROCEED
}

#[cgroup_sock_addr(getsockname4)]
fn sockname4(ctx: SockAddrContext) -> i32 {
    let sock = ctx.sock_addr;
    if field!(sock, user_ip4) == LOOPBACK.to_be()
        && let Some(entry) = redirected(sock)
        && entry.local.port != 0
    {
        put4(sock, &entry.local);
    }
    PROCEED
}

#[cgroup_sock_addr(getsockname6)]
fn sockname6(ctx: SockAddrContext) -> i32 {
    let sock = ctx.sock_addr;
    let last = field!(sock, user_ip6[3]);
    let on_loopback = match prefix(sock) {
        Prefix::Mapped => last == LOOPBACK.to_be(),
        Prefix::Zero => last == 1_u32.to_be(),
        Prefix::Other => false,
    };
    if on_loopback
        && let Some(entry) = redirected(sock)
        && entry.local.port != 0
    {
        put6(sock, &entry.local);
    }
    PROCEED
}

/// The first three words of an IPv6 address.
enum Prefix {
    Mapped,
    Zero,
    Other,
}

#[inline(always)]
fn prefix(sock: *mut bpf_sock_addr) -> Prefix {
    if field!(sock, user_ip6[0]) | field!(sock, user_ip6[1]) != 0 {
        return Prefix::Other;
    }
    match field!(sock, user_ip6[2]) {
        0 => Prefix::Zero,
        MAPPED => Prefix::Mapped,
        _ => Prefix::Other,
    }
}

/// The token in an address of 127.64.0.0/10.
#[inline(always)]
fn token(address: u32) -> Option<u32> {
    let address = u32::from_be(address);
    (address & !TOKEN_MASK == TOKEN_NETWORK).then_some(address & TOKEN_MASK)
}

#[inline(always)]
fn redirected(sock: *mut bpf_sock_addr) -> Option<Redirected> {
    // SAFETY: the helper takes the context.
    let cookie = unsafe { bpf_get_socket_cookie(sock.cast()) };
    // SAFETY: inside the map; an entry that is evicted while it is copied shows a wrong address, nothing else.
    REDIRECTED.get_ptr(cookie).map(|entry| unsafe { *entry })
}

#[inline(always)]
fn put4(sock: *mut bpf_sock_addr, place: &Destination) {
    set!(place.address[3] => sock, user_ip4);
    set!(place.port => sock, user_port);
}

#[inline(always)]
fn put6(sock: *mut bpf_sock_addr, place: &Destination) {
    set!(place.address[0] => sock, user_ip6[0]);
    set!(place.address[1] => sock, user_ip6[1]);
    set!(place.address[2] => sock, user_ip6[2]);
    set!(place.address[3] => sock, user_ip6[3]);
    set!(place.port => sock, user_port);
}
