//! Who asks for a lease, as the kernel says, and whether they may have one.
//!
//! Comes in: a connection of the control socket, the operator's rule. Goes out: the user and the network namespace at its
//! other end. Never here: anything that the other end says about itself.
//!
//! Both are the kernel's word. The user is the one that connected (`SO_PEERCRED`). The namespace is that of the socket
//! that connected: the kernel makes the accepted end in the same one, so its `SO_NETNS_COOKIE` tells. A program can't
//! choose it without having been there. What a process does later, changing its user, entering another namespace,
//! handing its connection on, is not seen; it passes on no more than the leases that it could have taken itself.

use std::{io, os::fd::AsFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::{config::HandoverSettings, lease::netns_cookie};

/// Which users get leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    only: Vec<u32>,
    never: Vec<u32>,
}

impl Rule {
    /// The operator's rule.
    #[must_use]
    pub fn new(settings: &HandoverSettings) -> Self {
        Self { only: settings.uids.clone(), never: settings.exclude_uids.clone() }
    }

    /// Whether a program of this user gets leases. Nobody is special, the superuser neither.
    #[must_use]
    pub fn allows(&self, uid: u32) -> bool {
        !self.never.contains(&uid) && (self.only.is_empty() || self.only.contains(&uid))
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The effective user at the time it connected; one that this user namespace does not know is 65534.
    pub uid: u32,
    /// The network namespace of its socket, as `SO_NETNS_COOKIE` numbers it.
    pub netns: u64,
}

impl Peer {
    /// Who is at the other end of an accepted connection.
    ///
    /// # Errors
    /// When the kernel does not say; nobody unknown gets a lease.
    pub fn of(stream: &impl AsFd) -> io::Result<Self> {
        let uid = getsockopt(stream, PeerCredentials)?.uid();
        Ok(Self { uid, netns: netns_cookie(stream.as_fd())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusion_goes_before_inclusion() {
        let rule = |uids: &[u32], exclude_uids: &[u32]| {
            Rule::new(&HandoverSettings {
                uids: uids.to_vec(),
                exclude_uids: exclude_uids.to_vec(),
                ..HandoverSettings::default()
            })
        };
        let allowed = |rule: Rule| [0, 1000, 1001].map(|uid| rule.allows(uid));
        assert_eq!(allowed(rule(&[], &[])), [true; 3]);
        assert_eq!(allowed(rule(&[1000], &[])), [false, true, false]);
        assert_eq!(allowed(rule(&[], &[1000])), [true, false, true]);
        assert_eq!(allowed(rule(&[1000, 1001], &[1001])), [false, true, false]);
    }
}
