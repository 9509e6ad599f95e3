//! Looking predicted names up, so that the cache that programs will ask is hot.
//!
//! Comes in: a name. Goes out: its addresses, how long they are good for, and what asking cost. Never here: a cache of
//! our own (the resolver's is the one to warm), a question without prewarm's mark, or the choice of what to look up.

pub mod answers;
mod hickory;
mod lookups;
mod ports;

use std::{net::IpAddr, time::Duration};

pub use hickory::HostResolver;
pub use lookups::{LookupCounters, Lookups};
pub use ports::OwnPorts;

use crate::model::Name;

/// What a look-up gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// In the resolver's order; empty where the name exists without addresses.
    pub addresses: Vec<IpAddr>,
    /// How long they are good for.
    pub ttl: Duration,
    /// How long the look-up took.
    pub took: Duration,
}

/// Why a look-up gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist (RFC 2308); asking again within its negative TTL is no use.
    #[error("the name does not exist")]
    NoSuchName,
    /// No answer in time; a later try may do.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The resolver could not be asked, or said that it failed; a later try may do.
    #[error("{0}")]
    Failed(String),
    /// As many look-ups as allowed are under way.
    #[error("too many look-ups are under way")]
    Busy,
}

/// Asks the resolver.
pub trait Resolver: Send + Sync + 'static {
    /// Looks `name` up for A and AAAA.
    ///
    /// # Errors
    /// When there is no usable answer.
    fn lookup(&self, name: &Name) -> impl Future<Output = Result<Resolved, ResolveError>> + Send;
}
