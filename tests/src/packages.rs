//! The Debian packages that the harness and the lab run, in one place.
//!
//! Maintainer scripts start what they install. A host that only wants the programs puts a `policy-rc.d` that exits
//! with 101 in `/usr/sbin` while `apt-get install` runs, and runs `systemctl disable --now` on [`SERVICES`] it did not
//! have before: nothing of ours listens outside the namespaces.

use std::env;
use std::path::Path;

/// A program the harness runs, and the package that brings it.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// The program that must be found in `PATH` (or `/usr/sbin`).
    pub program: &'static str,
    /// The Debian package.
    pub package: &'static str,
}

/// All of them.
pub const PACKAGES: &[Package] = &[
    Package { program: "ip", package: "iproute2" },
    Package { program: "curl", package: "curl" },
    Package { program: "nginx", package: "nginx" },
    Package { program: "unbound", package: "unbound" },
    Package { program: "nsd", package: "nsd" },
    // The program alone; the package `tinyproxy` adds a service.
    Package { program: "tinyproxy", package: "tinyproxy-bin" },
];

/// Origins of other kinds, for what they do with connections on which nothing is said; the lab needs none of them.
pub const ORIGINS: &[Package] = &[
    // The program and its modules alone; the package `apache2` adds a service.
    Package { program: "apache2", package: "apache2-bin" },
    Package { program: "node", package: "nodejs" },
    Package { program: "sshd", package: "openssh-server" },
    Package { program: "postfix", package: "postfix" },
];

/// Resolvers whose answers are compared with the kernel's, and what they are measured against.
pub const RESOLVERS: &[Package] = &[
    Package { program: "kresd", package: "knot-resolver" },
    Package { program: "dnsdist", package: "dnsdist" },
    // The program alone; the package `dnsmasq` adds a service.
    Package { program: "dnsmasq", package: "dnsmasq-base" },
    Package { program: "knotd", package: "knot" },
    Package { program: "kxdpgun", package: "knot-dnsutils" },
    Package { program: "dnsperf", package: "dnsperf" },
];

/// Name servers that write down what they are asked, and what asks them encrypted; `unbound` is in [`PACKAGES`]. And a
/// second C library.
pub const NAME_SERVERS: &[Package] = &[
    Package { program: "knotd", package: "knot" },
    // A module has no program; the one file of a package that no system leaves out is its licence.
    Package { program: "/usr/share/doc/knot-module-dnstap/copyright", package: "knot-module-dnstap" },
    Package { program: "kdig", package: "knot-dnsutils" },
    Package { program: "musl-gcc", package: "musl-tools" },
];

/// The units that those packages enable, each after its package.
pub const SERVICES: &[(&str, &str)] = &[
    ("nginx", "nginx"),
    ("unbound", "unbound"),
    ("unbound", "unbound-resolvconf"),
    ("nsd", "nsd"),
    ("knot", "knot"),
    ("dnsdist", "dnsdist"),
    ("openssh-server", "ssh"),
    ("postfix", "postfix"),
];

/// The packages of the list whose program isn't there.
pub fn missing(packages: &[Package]) -> Vec<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    let found = |program: &str| folders.iter().any(|folder| Path::new(folder).join(program).is_file());
    packages.iter().filter(|package| !found(package.program)).map(|package| package.package).collect()
}
