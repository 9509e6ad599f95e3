//! Leases where `connect()` finds them: the pool's offers, as entries of the kernel's maps.

use std::{collections::HashMap, io, net::SocketAddr, sync::Mutex};

use super::lock;
use crate::{
    kernel::RedirectOffers,
    lease::{Offers, Recalled, Token},
};

/// The leases that are on offer in the kernel.
pub(in crate::handover) struct KernelOffers(Mutex<Table>);

struct Table {
    kernel: RedirectOffers,
    /// What the kernel has been told of each destination.
    listed: HashMap<SocketAddr, Vec<u32>>,
    closed: bool,
}

impl KernelOffers {
    pub(in crate::handover) fn new(kernel: RedirectOffers) -> Self {
        Self(Mutex::new(Table { kernel, listed: HashMap::new(), closed: false }))
    }

    /// From now on nothing is taken on offer.
    pub(in crate::handover) fn close(&self) {
        lock(&self.0).closed = true;
    }

    /// A lease was claimed: nobody need try it any more.
    pub(in crate::handover) fn claimed(&self, token: u32, destination: SocketAddr) {
        lock(&self.0).unlist(token, destination);
    }
}

impl Table {
    fn list(&mut self, destination: SocketAddr) -> io::Result<()> {
        let tokens = self.listed.get(&destination).map_or(&[][..], Vec::as_slice);
        let listed = self.kernel.list(destination, tokens).map_err(io::Error::other);
        if tokens.is_empty() {
            self.listed.remove(&destination);
        }
        listed
    }

    fn unlist(&mut self, token: u32, destination: SocketAddr) {
        let Some(tokens) = self.listed.get_mut(&destination) else { return };
        let before = tokens.len();
        tokens.retain(|listed| *listed != token);
        if tokens.len() != before
            && let Err(error) = self.list(destination)
        {
            // The entry is gone all the same, and only that is claimed.
            tracing::debug!(%error, "a list of offers is out of date");
        }
    }
}

impl Offers for KernelOffers {
    fn offer(&self, token: Token, destination: SocketAddr) -> io::Result<()> {
        let destination = canonical(destination);
        let mut table = lock(&self.0);
        if table.closed {
            return Err(io::Error::other("this way out is closing"));
        }
        let tokens = table.listed.entry(destination).or_default();
        if tokens.len() >= RedirectOffers::PER_DESTINATION {
            return Err(io::Error::other("as many leases to one destination as can be on offer"));
        }
        tokens.push(token.0);
        let offered = table.kernel.insert(token.0, destination).map_err(io::Error::other);
        let offered = offered.and_then(|()| table.list(destination));
        if let Err(error) = offered {
            table.unlist(token.0, destination);
            // Somebody may have claimed it in between: then it is on offer for good.
            return match table.kernel.remove(token.0, destination) {
                Ok(false) => Ok(()),
                _ => Err(error),
            };
        }
        Ok(())
    }

    fn recall(&self, token: Token, destination: SocketAddr) -> Recalled {
        let destination = canonical(destination);
        let mut table = lock(&self.0);
        let removed = table.kernel.remove(token.0, destination);
        table.unlist(token.0, destination);
        match removed {
            Ok(true) => Recalled::Ours,
            Ok(false) => Recalled::Claimed,
            Err(error) => {
                // Whoever may have claimed it gets the time to come.
                tracing::warn!(%error, "a lease could not be called back");
                Recalled::Claimed
            }
        }
    }
}

/// The kernel programs know a mapped address as the IPv4 address that it is.
fn canonical(destination: SocketAddr) -> SocketAddr {
    SocketAddr::new(destination.ip().to_canonical(), destination.port())
}
