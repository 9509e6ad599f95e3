//! A TCP connection of this host, as the kernel saw it.

use std::{net::SocketAddr, time::Duration};

/// What was seen of one connection that was opened from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The socket, as `SO_COOKIE` numbers it.
    pub socket: u64,
    /// The network namespace, as `SO_NETNS_COOKIE` numbers it.
    pub namespace: u64,
    /// Where to.
    pub destination: SocketAddr,
    /// What.
    pub phase: Phase,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It was established.
    Established {
        /// What the handshake took; unknown where a segment of it was sent again.
        round_trip: Option<Duration>,
        /// Whether the daemon dialled it.
        own: bool,
    },
    /// One that the daemon dialled has carried its first bytes.
    Carried,
    /// It is over.
    Closed {
        /// The smoothed round trip at its end.
        round_trip: Duration,
        /// Whether anything was sent over it.
        carried: bool,
        /// Bytes that the other side acknowledged.
        sent: u64,
        /// Bytes that came from there.
        received: u64,
    },
}
