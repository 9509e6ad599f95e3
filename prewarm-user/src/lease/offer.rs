//! Leases that are claimed elsewhere than in the pool: in the kernel, at the moment a program connects.
//!
//! Comes in: leases that wait. Goes out: which of them the pool still has. Never here: how a claim is made.

use std::{io, net::SocketAddr};

/// What names an offered lease to whoever claims it: random, good for one claim, never used again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u32);

impl Token {
    /// Bits of a token that count: those that a loopback address has room for.
    pub const BITS: u32 = 22;
}

/// Whose an offered lease is when it is called back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// The pool's again; nobody can claim it any more.
    Ours,
    /// Somebody has claimed it and will come with its token.
    Claimed,
}

/// Where leases are offered to those who claim without asking the pool. Calls must not block.
pub trait Offers: Send + Sync {
    /// Offers a lease to whoever connects to there.
    ///
    /// # Errors
    /// When it can't be offered, because there are too many to the same destination, for example: the pool keeps it.
    fn offer(&self, token: Token, destination: SocketAddr) -> io::Result<()>;

    /// Takes an offer back. Exactly one of the pool and a claimer gets the lease.
    fn recall(&self, token: Token, destination: SocketAddr) -> Recalled;
}
