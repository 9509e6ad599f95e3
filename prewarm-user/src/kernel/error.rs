//! What can go wrong between user space and the kernel.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

/// Why the kernel side could not be loaded, attached, or talked to.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary was built without the kernel programs.
    #[error("this binary was built without the kernel programs (hint: cargo xtask build)")]
    NoObject,
    /// The kernel programs are of another version than user space.
    #[error("the kernel programs speak version {found:?} of the contract, user space speaks {wanted}")]
    Abi {
        /// What the object says, if anything.
        found: Option<u32>,
        /// What user space speaks.
        wanted: u32,
    },
    /// The object could not be taken apart, or its maps not created.
    #[error("the kernel programs can't be prepared: {0}")]
    Prepare(#[source] EbpfError),
    /// The kernel refused a program.
    #[error("the kernel refused the program `{program}`: {source}")]
    Refused {
        /// Its name.
        program: &'static str,
        /// What the kernel says.
        source: Box<ProgramError>,
    },
    /// There is no such interface in this network namespace.
    #[error("there is no interface `{0}` in this network namespace (hint: ip link)")]
    NoInterface(String),
    /// Packets on the interface don't begin with an Ethernet header.
    #[error("packets on `{interface}` have no Ethernet header (link type {link_type}), so nothing could be read there")]
    NotEthernet {
        /// Its name.
        interface: String,
        /// `ARPHRD_…`.
        link_type: u16,
    },
    /// The programs are on the interface already.
    #[error("`{0}` is attached already")]
    AlreadyAttached(String),
    /// The programs are not on the interface.
    #[error("`{0}` is not attached")]
    NotAttached(String),
    /// A program could not be attached.
    #[error("`{program}` can't be attached to `{interface}`: {source}")]
    Attach {
        /// Its name.
        program: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel says.
        source: Box<ProgramError>,
    },
    /// A program could not be attached to a cgroup.
    #[error("`{program}` can't be attached to the cgroup {}: {source}", path.display())]
    AttachCgroup {
        /// Its name.
        program: &'static str,
        /// The cgroup's folder.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// No C library was found whose look-ups could be watched.
    #[error("no C library is found (hint: name it, as in getaddrinfo:/lib/x86_64-linux-gnu/libc.so.6)")]
    NoLibrary,
    /// A program could not be detached.
    #[error("`{program}` can't be detached from `{interface}`: {source}")]
    Detach {
        /// Its name.
        program: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel says.
        source: Box<ProgramError>,
    },
    /// A map is missing from the object or was taken before.
    #[error("the map `{0}` is missing or in use")]
    NoMap(&'static str),
    /// A map could not be read or written.
    #[error("the map `{map}` can't be used: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What the kernel says.
        source: MapError,
    },
    /// A test run failed.
    #[error("a test run of `{program}` failed: {source}")]
    TestRun {
        /// Its name.
        program: &'static str,
        /// What the kernel says.
        source: Box<ProgramError>,
    },
    /// Another system call failed.
    #[error("{context}: {source}")]
    System {
        /// What was tried.
        context: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

impl KernelError {
    /// Whether the same call may succeed with the capabilities that the daemon asks for.
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        let error: &(dyn std::error::Error + 'static) = self;
        std::iter::successors(Some(error), |error| error.source()).any(|error| {
            error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)))
        })
    }

    pub(super) fn system(context: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { context, source }
    }

    pub(super) fn errno(context: &'static str) -> impl FnOnce(nix::Error) -> Self {
        move |errno| Self::System { context, source: errno.into() }
    }
}
