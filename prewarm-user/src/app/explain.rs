//! Errors of the kernel's parts as those who started the daemon should read them.

use crate::{cli::MissingPrivilege, kernel::KernelError};

/// A refusal for want of a privilege gets its own exit code.
pub(super) fn explain(error: KernelError) -> anyhow::Error {
    if error.is_privilege() && !nix::unistd::Uid::effective().is_root() {
        let missing = MissingPrivilege {
            what: "loading and attaching kernel programs",
            needs: "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        };
        return anyhow::Error::new(missing);
    }
    anyhow::Error::new(error)
}
