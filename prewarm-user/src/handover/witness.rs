//! Who is told what programs connect to: the port by which the ways out teach the deciding parts.

use std::net::{IpAddr, SocketAddr};

use crate::{model::Name, resolve::Resolved};

/// Hears of connections. Calls must not block.
pub trait Witness: Send + Sync {
    /// A program of this host connected to there, or is about to; `leased` when it got a lease.
    fn connected(&self, destination: SocketAddr, leased: bool);

    /// The same of a client that need not be on this host.
    fn connected_from(&self, _client: IpAddr, destination: SocketAddr, leased: bool) {
        self.connected(destination, leased);
    }

    /// A client named whom it wants to be connected to; `leased` when it got a lease.
    fn named(&self, client: IpAddr, name: &Name, port: u16, leased: bool);

    /// A name that a client gave was looked up; told after [`Self::named`].
    fn resolved(&self, _name: &Name, _answer: &Resolved) {}
}
