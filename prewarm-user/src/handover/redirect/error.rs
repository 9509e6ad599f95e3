//! Why connections can't be redirected.

use std::{io, path::PathBuf};

use crate::kernel::KernelError;

/// What is missing. None of it goes away by itself.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// The kernel refuses a program or a map.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A cgroup can't be used.
    #[error("handover.redirect: the cgroup {}: {source} (hint: mount | grep cgroup2)", path.display())]
    Cgroup {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The root of all cgroups can't be seen, so a cgroup below can't be told from others.
    #[error(
        "handover.redirect.exclude_cgroups: {} can't be left out from inside a container (hint: run prewarm in the \
         host's cgroup namespace)", path.display()
    )]
    Level {
        /// Its folder.
        path: PathBuf,
    },
    /// The daemon could not tell its own connections from others.
    #[error(
        "the daemon's own connections can't be told from others: it is in a PID namespace, and in no cgroup of its own \
         (hint: run prewarm in the host's PID namespace)"
    )]
    Own,
    /// A namespace can't be entered.
    #[error("handover.redirect.namespaces: {}: {source} (hint: ip netns; entering needs CAP_SYS_ADMIN)", path.display())]
    Namespace {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Loopback can't be listened on.
    #[error(
        "could not listen on loopback for redirected connections: {0} (hint: ip link set lo up, and let a firewall pass 127.64.0.0/10 and ::1 on lo)"
    )]
    Listen(#[source] io::Error),
    /// The kernel doesn't say whose a connection is.
    #[error("the kernel does not say whose socket a connection comes from: {0} (hint: modprobe tcp_diag)")]
    Identity(#[source] io::Error),
}
