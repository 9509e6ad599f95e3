//! Descriptors: how many leases there may be without taking them from others.
//!
//! Comes in: the limits of this process. Goes out: a number. Never here: a descriptor.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// One in so many stays free: for the control socket, look-ups, and programs' ends of relayed connections.
const FREE: u64 = 4;

/// Raises the soft limit on descriptors to the hard one, as far as that is allowed, and says how many leases fit.
pub(crate) fn leases() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usize::MAX };
    let limit = if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    share(limit)
}

fn share(limit: u64) -> usize {
    usize::try_from(limit - limit / FREE).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_stays_free() {
        assert_eq!((share(1024), share(3), share(0)), (768, 3, 0));
    }

    #[test]
    fn the_limit_is_raised() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let leases = leases();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, hard);
        assert_eq!(leases, share(hard));
    }
}
