//! cgroup connect4 and connect6: a program that connects to where a lease waits gets the daemon instead, which has the
//! lease. Without a lease that this very call could claim, nothing is touched.
//!
//! Comes in: the address that a program asks to be connected to. Goes out: the same, or the daemon's listener on
//! loopback, and in a map whom the socket believes it is connected to. Never here: a refusal; whatever happens, the
//! call goes on.

use core::ptr;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_pid_tgid,
        bpf_get_current_uid_gid, bpf_get_netns_cookie, bpf_get_socket_cookie,
    },
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use prewarm_ebpf::redirect::{
    Destination, EXCLUDED_CGROUPS, Listener, ONLY_THIS, OfferKey, RedirectCounter as Counter, Redirected, Rules,
    SLOT_USED, SLOTS, Slots, TOKEN_MASK, TOKEN_NETWORK, USER_EXCLUDED, USER_INCLUDED,
};

use crate::{
    heartbeat,
    maps::{DESTINATIONS, LISTENERS, OFFERS, REDIRECT_COUNTERS, REDIRECTED, RULES, USERS},
};

/// The only answer: the call goes on.
const PROCEED: i32 = 1;
/// `IPPROTO_TCP`.
const TCP: u32 = 6;
/// The third word of an IPv4 address in IPv6 form.
pub(crate) const MAPPED: u32 = 0xffff_u32.to_be();

/// Reads a field of the context, as one access of its own size: the verifier knows no other.
macro_rules! field {
    ($context:expr, $($path:tt)+) => {
        // SAFETY: the context is valid while the program runs, and the kernel rewrites the access.
        unsafe { (&raw const (*$context).$($path)+).read_volatile() }
    };
}
/// Writes a field of the context, as one access of its own size.
macro_rules! set {
    ($value:expr => $context:expr, $($path:tt)+) => {
        // SAFETY: as for reading.
        unsafe { (&raw mut (*$context).$($path)+).write_volatile($value) }
    };
}
pub(crate) use {field, set};

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    let sock = ctx.sock_addr;
    if field!(sock, protocol) != TCP {
        return PROCEED;
    }
    let destination = Destination { address: [0, 0, MAPPED, field!(sock, user_ip4)], port: field!(sock, user_port) };
    let Some(slots) = DESTINATIONS.get_ptr(destination) else { return PROCEED };
    let sk = socket(sock);
    let Some(listener) = admit(sock, sk, field!(sk, src_ip4)) else { return PROCEED };
    if listener.port4 == 0 {
        count(Counter::Namespace);
    } else if let Some(token) = claim(sock, &destination, slots) {
        set!((TOKEN_NETWORK | token).to_be() => sock, user_ip4);
        set!(listener.port4 => sock, user_port);
    }
    PROCEED
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    let sock = ctx.sock_addr;
    if field!(sock, protocol) != TCP {
        return PROCEED;
    }
    let address =
        [field!(sock, user_ip6[0]), field!(sock, user_ip6[1]), field!(sock, user_ip6[2]), field!(sock, user_ip6[3])];
    let destination = Destination { address, port: field!(sock, user_port) };
    let Some(slots) = DESTINATIONS.get_ptr(destination) else { return PROCEED };
    let sk = socket(sock);
    let bound = field!(sk, src_ip6[0]) | field!(sk, src_ip6[1]) | field!(sk, src_ip6[2]) | field!(sk, src_ip6[3]);
    let Some(listener) = admit(sock, sk, bound) else { return PROCEED };
    let mapped = address[0] | address[1] == 0 && address[2] == MAPPED;
    let port = if mapped { listener.port4 } else { listener.port6 };
    if port == 0 {
        count(Counter::Namespace);
    } else if let Some(token) = claim(sock, &destination, slots) {
        // A socket that takes only IPv6 can't be sent to 127.64.0.0/10, and of ::1 there is but one: there the daemon
        // learns the token from the socket's cookie alone.
        let last = if mapped { (TOKEN_NETWORK | token).to_be() } else { 1_u32.to_be() };
        set!(0 => sock, user_ip6[0]);
        set!(0 => sock, user_ip6[1]);
        set!(if mapped { MAPPED } else { 0 } => sock, user_ip6[2]);
        set!(last => sock, user_ip6[3]);
        set!(port => sock, user_port);
    }
    PROCEED
}

#[inline(always)]
fn socket(sock: *mut bpf_sock_addr) -> *mut bpf_sock {
    // SAFETY: the context is valid while the program runs, and this member of the union is what the kernel sets.
    unsafe { (*sock).__bindgen_anon_1.sk }
}

/// Whether this caller may have a lease, and where its namespace's listener is.
#[inline(always)]
fn admit(sock: *mut bpf_sock_addr, sk: *mut bpf_sock, source: u32) -> Option<Listener> {
    if !heartbeat::is_fresh() {
        return refuse(Counter::Stale);
    }
    if source | field!(sk, src_port) | field!(sk, mark) | field!(sk, bound_dev_if) != 0 {
        return refuse(Counter::Bound);
    }
    // SAFETY: the helper takes the context.
    let namespace = unsafe { bpf_get_netns_cookie(sock.cast()) };
    let Some(listener) = LISTENERS.get_ptr(namespace) else { return refuse(Counter::Namespace) };
    // SAFETY: inside the map, whose entries are written as a whole and stay until the program ends.
    let listener = unsafe { *listener };
    let Some(rules) = RULES.get_ptr(0) else { return refuse(Counter::Own) };
    if (bpf_get_current_pid_tgid() >> 32) as u32 == field!(rules, own_process) {
        return refuse(Counter::Own);
    }
    let user = bpf_get_current_uid_gid() as u32;
    // SAFETY: inside the map; one word.
    let named = USERS.get_ptr(user).map_or(0, |named| unsafe { named.read_volatile() });
    if named == USER_EXCLUDED || (named != USER_INCLUDED && field!(rules, named_users_only) != 0) {
        return refuse(Counter::User);
    }
    if in_excluded_cgroup(rules) {
        return refuse(Counter::Cgroup);
    }
    Some(listener)
}

#[inline(always)]
fn in_excluded_cgroup(rules: *const Rules) -> bool {
    let count = field!(rules, excluded_count) as usize;
    let mut index = 0;
    while index < EXCLUDED_CGROUPS && index < count {
        let (id, level) = (field!(rules, excluded[index].id), field!(rules, excluded[index].level));
        let own = if level == ONLY_THIS {
            // SAFETY: the helper only looks at the current task.
            unsafe { bpf_get_current_cgroup_id() }
        } else {
            // SAFETY: as above.
            unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }
        };
        if own == id {
            return true;
        }
        index += 1;
    }
    false
}

/// Claims one lease to there: whoever deletes its entry has it.
#[inline(always)]
fn claim(sock: *mut bpf_sock_addr, destination: &Destination, slots: *const Slots) -> Option<u32> {
    let mut key = OfferKey { destination: *destination, token: 0 };
    let mut index = 0;
    while index < SLOTS {
        let slot = field!(slots, tokens[index]);
        if slot == 0 {
            break;
        }
        key.token = slot & !SLOT_USED;
        // The key names destination and token, so a list that user space is just changing leads to nothing wrong.
        if OFFERS.remove(key).is_ok() {
            let token = key.token & TOKEN_MASK;
            return remember(sock, destination, token);
        }
        index += 1;
    }
    refuse(Counter::Missed)
}

/// Writes down who has claimed what, before the first packet can reach the daemon.
#[inline(always)]
fn remember(sock: *mut bpf_sock_addr, destination: &Destination, token: u32) -> Option<u32> {
    let entry = Redirected { peer: *destination, token, local: Destination::default(), spent: 0 };
    // SAFETY: the helper takes the context.
    let cookie = unsafe { bpf_get_socket_cookie(sock.cast()) };
    if REDIRECTED.insert(cookie, entry, 0).is_err() {
        return refuse(Counter::Forgotten);
    }
    count(Counter::Claimed);
    Some(token)
}

#[inline(always)]
fn refuse<T>(reason: Counter) -> Option<T> {
    count(reason);
    None
}

#[inline(always)]
fn count(counter: Counter) {
    if let Some(counters) = REDIRECT_COUNTERS.get_ptr_mut(0) {
        // SAFETY: the entry is this processor's; a preempted addition loses a count at worst.
        let cell = unsafe { &raw mut (*counters)[counter as usize] };
        // SAFETY: inside the entry.
        unsafe { ptr::write(cell, ptr::read(cell).wrapping_add(1)) };
    }
}
