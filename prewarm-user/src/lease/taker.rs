//! Who asks for a lease, as far as a lease is only for some.
//!
//! Comes in: what is known of a program's socket. Goes out: whether a lease fits it. Never here: how that became known.

use std::net::IpAddr;

/// Where a lease's own end is: what it was dialled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    /// The network namespace, as `SO_NETNS_COOKIE` numbers it.
    pub(crate) netns: u64,
    /// The source address; the kernel chose it.
    pub(crate) source: IpAddr,
    /// The mark.
    pub(crate) mark: u32,
}

impl Local {
    /// Whether a program's own connection would have begun in the same place, as far as is known of it.
    pub(crate) fn fits(&self, taker: &Taker) -> bool {
        taker.netns.is_none_or(|netns| netns == self.netns)
            && taker.source.is_none_or(|source| source.to_canonical() == self.source.to_canonical())
            && taker.mark == self.mark
    }
}

/// What a lease must match. `None` stands for "whatever": nothing is known that speaks against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taker {
    /// The network namespace of the socket, as `SO_NETNS_COOKIE` numbers it.
    pub netns: Option<u64>,
    /// The address that the socket was bound to before it connects; a lease must have the same.
    pub source: Option<IpAddr>,
    /// The socket's mark (`SO_MARK`), by which its packets may be routed; a lease must have the same. Zero is none.
    pub mark: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_place_fits() {
        let lease = Local { netns: 7, source: [192, 0, 2, 7].into(), mark: 0 };
        let fits = |change: fn(&mut Taker)| {
            let mut taker = Taker::default();
            change(&mut taker);
            lease.fits(&taker)
        };
        assert!(fits(|_| {}));
        assert!(fits(|taker| taker.netns = Some(7)) && !fits(|taker| taker.netns = Some(8)));
        assert!(fits(|taker| taker.source = Some([192, 0, 2, 7].into())));
        assert!(fits(|taker| taker.source = Some("::ffff:192.0.2.7".parse().unwrap())));
        assert!(!fits(|taker| taker.source = Some([192, 0, 2, 8].into())));
        assert!(!fits(|taker| taker.mark = 1));
        assert!(!Local { mark: 1, ..lease }.fits(&Taker::default()), "no mark is another mark than one");
    }
}
