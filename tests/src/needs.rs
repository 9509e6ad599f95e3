//! What a test stands on, and skipping with the reason where it is missing.

use std::io::{Write as _, stderr};

use crate::{daemon, packages};

/// Something not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// For namespaces and devices.
    Root,
    /// The programs of [`packages::PACKAGES`].
    Packages,
    /// The programs of [`packages::ORIGINS`].
    Origins,
    /// The programs of [`packages::RESOLVERS`].
    Resolvers,
    /// The programs of [`packages::NAME_SERVERS`].
    NameServers,
    /// The binary under test.
    Binary,
}

/// What the namespaces, the servers and a lab without prewarm need.
pub const WORLD: &[Need] = &[Need::Root, Need::Packages];

/// What everything that involves the daemon needs.
pub const DAEMON: &[Need] = &[Need::Root, Need::Packages, Need::Binary];

/// What tests need that have origins of every kind.
pub const ORIGINS: &[Need] = &[Need::Root, Need::Packages, Need::Origins, Need::Binary];

/// What tests need that have name servers tell of their clients.
pub const NAME_SERVERS: &[Need] = &[Need::Root, Need::Packages, Need::NameServers, Need::Binary];

/// Whether something is missing; says what, also when the test's output is captured.
pub fn skip(needs: &[Need]) -> bool {
    let Some(reason) = needs.iter().find_map(|need| need.obstacle()) else { return false };
    // A closed standard error doesn't make the test possible.
    let _written = writeln!(stderr(), "skipped: {reason}");
    true
}

impl Need {
    fn obstacle(self) -> Option<String> {
        match self {
            Self::Root => (!nix::unistd::geteuid().is_root()).then(|| "network namespaces need root".to_owned()),
            Self::Packages => absent(packages::PACKAGES),
            Self::Origins => absent(packages::ORIGINS),
            Self::Resolvers => absent(packages::RESOLVERS),
            Self::NameServers => absent(packages::NAME_SERVERS),
            Self::Binary => daemon::binary().is_none().then(|| format!("{} is not set", daemon::BINARY_VARIABLE)),
        }
    }
}

fn absent(packages: &[packages::Package]) -> Option<String> {
    let missing = packages::missing(packages);
    (!missing.is_empty()).then(|| format!("packages are missing: {}", missing.join(" ")))
}
