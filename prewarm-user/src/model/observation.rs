//! What the sensing parts report, from whatever source.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Connection, Name, ResourceId, Timestamp};

/// Which way a message crossed the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Arriving (seen by XDP).
    Ingress,
    /// Leaving (seen by tcx or clsact).
    Egress,
}

/// One thing that happened on the network, as far as prewarm is concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When, on the kernel's monotonic clock.
    pub at: Timestamp,
    /// Who asked or is answered. A host's own questions carry its own address.
    pub client: IpAddr,
    /// What.
    pub seen: Seen,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A question. A, AAAA and HTTPS questions for one name within a short window are one.
    Question {
        /// The name's ID.
        resource: ResourceId,
        /// The name, when the kernel had no sign that it is known here.
        name: Option<Name>,
        /// The type asked first (RFC 1035, 3.2.2).
        qtype: u16,
        /// Which way it crossed.
        direction: Direction,
        /// The interface's index.
        interface: u32,
    },
    /// An answer to a question.
    Answer {
        /// The ID of the name that was asked for.
        resource: ResourceId,
        /// Its name, when the kernel had no sign that it is known here.
        name: Option<Name>,
        /// The type asked for.
        qtype: u16,
        /// The response code (RFC 1035, 4.1.1).
        rcode: u8,
        /// The least TTL of the records on the way to the addresses.
        ttl: Duration,
        /// The addresses that the answer gave, in its order; several may have been left out.
        addresses: Vec<IpAddr>,
        /// Whether an HTTPS or SVCB record was present (RFC 9460).
        service_binding: bool,
    },
    /// A program connected, or is about to.
    Connect {
        /// Where to.
        destination: SocketAddr,
        /// Whether it got a lease.
        leased: bool,
    },
    /// A client named whom it wants to be connected to.
    Named {
        /// The name's ID.
        resource: ResourceId,
        /// The name.
        name: Name,
        /// The port.
        port: u16,
        /// Whether it got a lease.
        leased: bool,
    },
    /// The kernel tells of a connection that was opened from this host, by a program or by the daemon itself.
    Connection(Connection),
}
