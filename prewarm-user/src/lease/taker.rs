//! Who asks for a lease, as far as a lease is only for some.
//!
//! Comes in: what is known of a program's socket. Goes out: whether a lease fits it. Never here: how that became known.

use std::net::IpAddr;

/// What a lease must match. `None` and zero stand for "whatever": nothing is known that speaks against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taker {
    /// The network namespace of the socket, as `SO_NETNS_COOKIE` numbers it.
    pub netns: Option<u64>,
    /// The address that the socket was bound to before it connects; a lease must have the same.
    pub source: Option<IpAddr>,
    /// The socket's mark (`SO_MARK`), by which its packets may be routed; a lease must have the same.
    pub mark: u32,
}
