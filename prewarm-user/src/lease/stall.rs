//! Which leases are on offer outside the pool, under which token.
//!
//! Comes in: leases that begin or end to wait. Goes out: offers made and recalled, and whose a token is. Never here: who
//! may have a lease.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    net::SocketAddr,
    sync::Arc,
};

use super::{
    ledger::LeaseId,
    offer::{Offers, Recalled, Token},
};

/// Tokens that are not used again: whoever comes late with one shall not get somebody else's lease.
const REMEMBERED: usize = 4096;
/// Outlets at most: one bit each.
const OUTLETS: usize = 8;

/// All offers.
#[derive(Default)]
pub(crate) struct Stall {
    outlets: Vec<Arc<dyn Offers>>,
    leases: HashMap<Token, LeaseId>,
    recent: VecDeque<Token>,
}

/// Where a lease is on offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Under which name.
    pub(crate) token: Token,
    /// One bit for each outlet that took it.
    outlets: u8,
}

impl fmt::Debug for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stall").field("outlets", &self.outlets.len()).field("leases", &self.leases).finish()
    }
}

impl Stall {
    /// One more place to offer leases at; `false` when there are too many.
    pub(crate) fn add(&mut self, outlet: Arc<dyn Offers>) -> bool {
        let room = self.outlets.len() < OUTLETS;
        if room {
            self.outlets.push(outlet);
        }
        room
    }

    /// Offers a lease everywhere, under a token that nobody can guess. `None` when nobody takes the offer.
    pub(crate) fn offer(&mut self, id: LeaseId, destination: SocketAddr) -> Option<Offer> {
        if self.outlets.is_empty() {
            return None;
        }
        let token = self.token()?;
        let mut outlets = 0;
        for (bit, outlet) in self.outlets.iter().enumerate() {
            match outlet.offer(token, destination) {
                Ok(()) => outlets |= 1 << bit,
                Err(error) => tracing::debug!(lease = id.0, %error, "a lease could not be offered"),
            }
        }
        if outlets == 0 {
            return None;
        }
        self.leases.insert(token, id);
        Some(Offer { token, outlets })
    }

    /// Takes an offer back from everywhere. Where somebody has claimed it, its token stays good for one redemption.
    pub(crate) fn recall(&mut self, offer: Offer, destination: SocketAddr) -> Recalled {
        let mut recalled = Recalled::Ours;
        for (bit, outlet) in self.outlets.iter().enumerate() {
            // An outlet that never had it would say that it is gone.
            if offer.outlets & (1 << bit) != 0 && outlet.recall(offer.token, destination) == Recalled::Claimed {
                recalled = Recalled::Claimed;
            }
        }
        if recalled == Recalled::Ours {
            self.forget(offer.token);
        }
        recalled
    }

    /// Whose token this is.
    pub(crate) fn lease(&self, token: Token) -> Option<LeaseId> {
        self.leases.get(&token).copied()
    }

    /// A token that means nothing any more.
    pub(crate) fn forget(&mut self, token: Token) {
        if self.leases.remove(&token).is_some() {
            self.recent.push_back(token);
            if self.recent.len() > REMEMBERED {
                self.recent.pop_front();
            }
        }
    }

    /// A token that is not in use and was not lately; none when the kernel has no randomness for us.
    fn token(&self) -> Option<Token> {
        // One in four hundred draws is taken at worst (4096 leases and as many memories of 4 million).
        (0..16).find_map(|_| {
            let token = Token(getrandom::u32().ok()? >> (u32::BITS - Token::BITS));
            (!self.leases.contains_key(&token) && !self.recent.contains(&token)).then_some(token)
        })
    }
}
