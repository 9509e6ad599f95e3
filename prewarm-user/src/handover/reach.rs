//! Getting a client the connection that it names: a lease where there is one, else a fresh connection.
//!
//! Comes in: a client and whom it wants. Goes out: a connection, or why there is none. Never here: a connection to an
//! address that this client may not reach; the address is judged, just before the connection, and not the name.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpStream, time::sleep};

use super::{
    relay::{Client, Pipes, Upstream, relay},
    way::Way,
    witness::Witness,
};
use crate::{
    lease::{DialError, Dialer, Guard, Pacing, Pool, Take, Taker, interleave, race},
    model::{Name, Origin},
    resolve::{Lookups, ResolveError, Resolved, Resolver},
};

/// Whom a client wants to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(SocketAddr),
    /// A name, and a port there.
    Name(Origin),
}

impl Target {
    /// An address as a target; an IPv4 address in the form of IPv6 is what it means.
    #[must_use]
    pub const fn address(address: IpAddr, port: u16) -> Self {
        Self::Address(SocketAddr::new(address.to_canonical(), port))
    }

    /// A target from its text; an address may stand where a name is expected.
    ///
    /// # Errors
    /// When it is neither.
    pub fn new(host: &str, port: u16) -> Result<Self, ReachError> {
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if port == 0 {
            return Err(ReachError::Senseless);
        }
        match literal.parse::<IpAddr>() {
            Ok(address) => Ok(Self::address(address, port)),
            Err(_) if literal.len() != host.len() => Err(ReachError::Senseless),
            Err(_) => {
                let name: Name = host.parse().map_err(|_| ReachError::Senseless)?;
                if name.is_root() { Err(ReachError::Senseless) } else { Ok(Self::Name(Origin { name, port })) }
            }
        }
    }
}

/// Why a client gets no connection.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// What it asks for is neither a name nor an address with a port.
    #[error("that is neither a name nor an address with a port")]
    Senseless,
    /// It may not go there.
    #[error("no connection to there is allowed: {0}")]
    Forbidden(String),
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// The name could not be looked up.
    #[error("the name could not be looked up: {0}")]
    Lookup(#[source] ResolveError),
    /// Nobody answers there.
    #[error("no address could be connected to: {0}")]
    Unreachable(#[source] io::Error),
}

impl From<ResolveError> for ReachError {
    fn from(error: ResolveError) -> Self {
        if error == ResolveError::NoSuchName { Self::NoAddress } else { Self::Lookup(error) }
    }
}

impl From<DialError> for ReachError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Guarded(reason) => Self::Forbidden(reason),
            DialError::Unreachable(error) => Self::Unreachable(error),
        }
    }
}

/// Says whether a client may be connected to an address and port, or why not.
pub type Admission = Arc<dyn Fn(IpAddr, IpAddr, u16) -> Result<(), String> + Send + Sync>;

/// What connections are got with.
pub struct Reach<R> {
    /// Looks names up.
    pub lookups: Arc<Lookups<R>>,
    /// Has leases.
    pub pool: Pool,
    /// Opens fresh connections.
    pub dialer: Arc<dyn Dialer>,
    /// How long to wait for which.
    pub pacing: Pacing,
    /// Which client may go where.
    pub admission: Admission,
    /// Learns from what clients ask for.
    pub witness: Arc<dyn Witness>,
    /// For relays with much to carry.
    pub pipes: Arc<Pipes>,
}

impl<R> std::fmt::Debug for Reach<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reach").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// A connection for a client.
#[derive(Debug)]
pub struct Reached {
    upstream: Upstream,
    target: Target,
    client: IpAddr,
    /// Where it leads, for a second try.
    destination: Option<SocketAddr>,
}

impl Reached {
    /// The address that the connection has on our side.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.upstream.stream().local_addr()
    }
}

/// How long a client's look-up waits for others to end, and how often it tries.
const LOOKUP_TRIES: u32 = 100;
const LOOKUP_PAUSE: Duration = Duration::from_millis(20);

impl<R: Resolver> Reach<R> {
    /// Gets a client its connection.
    ///
    /// # Errors
    /// When it may have none, or none can be had.
    pub async fn connect(&self, client: IpAddr, target: Target, way: &Way) -> Result<Reached, ReachError> {
        let client = client.to_canonical();
        let found = match &target {
            Target::Address(destination) => {
                (self.admission)(client, destination.ip(), destination.port()).map_err(ReachError::Forbidden)?;
                let lease = self.lease_to(*destination);
                self.witness.connected_from(client, *destination, lease.is_some());
                match lease {
                    Some(upstream) => Ok((upstream, Some(*destination))),
                    None => self.dial(client, &[*destination]).await.map(|stream| (Upstream::fresh(stream), None)),
                }
            }
            Target::Name(origin) => self.connect_by_name(client, origin).await,
        };
        let (upstream, destination) = found.inspect_err(|error| match error {
            ReachError::Forbidden(_) | ReachError::Senseless => way.refused(),
            _ => way.failed(),
        })?;
        way.found(upstream.is_lease());
        Ok(Reached { upstream, target, client, destination })
    }

    /// Carries a client's bytes until the end.
    pub async fn carry(&self, stream: impl Into<Client>, reached: Reached, way: &Way) {
        let Reached { upstream, target, client, destination } = reached;
        let redial = || async {
            let again = match &target {
                Target::Address(destination) => self.dial(client, &[*destination]).await,
                Target::Name(origin) => match self.lookup(origin).await {
                    Ok(resolved) => self.dial(client, &destinations(origin, &resolved)).await,
                    // It was good for a lease.
                    Err(error) => match destination {
                        Some(destination) => self.dial(client, &[destination]).await,
                        None => Err(error),
                    },
                },
            };
            again.map_err(io::Error::other)
        };
        let relayed = relay(stream, upstream, redial, &self.pipes, way.bytes()).await;
        tracing::debug!(%client, ?target, ?relayed, "a relay has ended");
        way.ended(&relayed);
    }

    async fn connect_by_name(
        &self,
        client: IpAddr,
        origin: &Origin,
    ) -> Result<(Upstream, Option<SocketAddr>), ReachError> {
        // Not even the name has to be looked up.
        if let Take::Lease(taken) = self.pool.take_from(origin, &Taker::default()) {
            let destination = taken.destination;
            let upstream = Upstream::lease(taken, &self.pool);
            if (self.admission)(client, destination.ip(), destination.port()).is_ok()
                && let Ok(upstream) = upstream
            {
                self.witness.named(client, &origin.name, origin.port, true);
                return Ok((upstream, Some(destination)));
            }
        }
        let resolved = self.lookup(origin).await;
        let destinations = resolved.as_ref().map(|resolved| destinations(origin, resolved)).unwrap_or_default();
        let allowed = |to: &&SocketAddr| (self.admission)(client, to.ip(), to.port()).is_ok();
        // A lease that was opened for another name of the same host is as good.
        let lease = destinations.iter().filter(allowed).find_map(|to| Some((self.lease_to(*to)?, Some(*to))));
        self.witness.named(client, &origin.name, origin.port, lease.is_some());
        self.witness.resolved(&origin.name, &resolved?);
        match lease {
            Some(lease) => Ok(lease),
            None if destinations.is_empty() => Err(ReachError::NoAddress),
            None => self.dial(client, &destinations).await.map(|stream| (Upstream::fresh(stream), None)),
        }
    }

    fn lease_to(&self, destination: SocketAddr) -> Option<Upstream> {
        match self.pool.take(destination, &Taker::default()) {
            Take::Lease(taken) => Upstream::lease(taken, &self.pool).ok(),
            Take::Miss { .. } => None,
        }
    }

    async fn lookup(&self, origin: &Origin) -> Result<Resolved, ReachError> {
        let mut tries = 0;
        loop {
            match self.lookups.lookup(&origin.name).await {
                // Look-ups ahead of time have no claim to the places; a client that waits does.
                Err(ResolveError::Busy) if tries < LOOKUP_TRIES => {
                    tries += 1;
                    sleep(LOOKUP_PAUSE).await;
                }
                result => return Ok(result?),
            }
        }
    }

    async fn dial(&self, client: IpAddr, destinations: &[SocketAddr]) -> Result<TcpStream, ReachError> {
        let admission = Arc::clone(&self.admission);
        let guard: Guard = Arc::new(move |address, port| admission(client, address, port));
        let won = race(Arc::clone(&self.dialer), destinations, self.pacing, &guard).await?;
        let stream = std::net::TcpStream::from(won.dialled.socket);
        stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).map_err(ReachError::Unreachable)
    }
}

/// The addresses of a name in the order in which they are tried.
fn destinations(origin: &Origin, resolved: &Resolved) -> Vec<SocketAddr> {
    interleave(&resolved.addresses).into_iter().map(|address| SocketAddr::new(address, origin.port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_by_their_text() {
        let address = |text: &str| Target::Address(text.parse().unwrap());
        assert_eq!(Target::new("192.0.2.1", 80).unwrap(), address("192.0.2.1:80"));
        assert_eq!(Target::new("[2001:db8::1]", 443).unwrap(), address("[2001:db8::1]:443"));
        assert_eq!(Target::new("::ffff:192.0.2.1", 80).unwrap(), address("192.0.2.1:80"));
        assert_eq!(Target::new("2001:db8::1", 443).unwrap(), address("[2001:db8::1]:443"));
        assert_eq!(Target::new("WWW.example.org.", 443).unwrap(), Target::Name("www.example.org:443".parse().unwrap()));
        for (host, port) in [("", 80), (".", 80), ("a..b", 80), ("www.example.org", 0), ("[www.example.org]", 80)] {
            assert!(matches!(Target::new(host, port), Err(ReachError::Senseless)), "{host}:{port}");
        }
    }
}
