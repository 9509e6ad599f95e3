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

/// The units that those packages enable.
pub const SERVICES: &[&str] = &["nginx", "unbound", "unbound-resolvconf", "nsd"];

/// The packages whose program isn't there.
pub fn missing() -> Vec<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    let found = |program: &str| folders.iter().any(|folder| Path::new(folder).join(program).is_file());
    PACKAGES.iter().filter(|package| !found(package.program)).map(|package| package.package).collect()
}
