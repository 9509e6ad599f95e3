//! The kernel side as user space sees it: load, attach, read the ring, keep the table of known names.
//!
//! Comes in: records from the ring. Goes out: observations, counters, what is attached where. Never here: a wait for
//! whoever reads, a link that outlives this process, or a packet that is held up.

mod attach;
mod counters;
mod hooks;
mod known;
mod object;
mod record;
mod ring;
mod source;
mod ticks;

use std::io;

pub use attach::{Attachment, Egress, Ingress};
pub use counters::KernelCounters;
pub use hooks::{Hooks, HooksOptions};
pub use known::KnownNames;
pub use object::object;
pub use record::{RecordError, observation};
pub use ring::RingSource;
pub use source::{EventSource, Script};

/// What can go wrong between user space and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary carries no kernel programs.
    #[error("this binary was built without the kernel programs\nhint: build it with `cargo xtask build`")]
    NoObject,
    /// The programs were built from other sources than this binary.
    #[error(
        "the kernel programs speak version {found:?} of the contract, this binary {}",
        prewarm_ebpf::abi::ABI_VERSION
    )]
    Version {
        /// What stands in the object, if anything.
        found: Option<u32>,
    },
    /// The kernel refused an object, a program or a map.
    #[error("the kernel refused to {action}")]
    Refused {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such interface.
    #[error("there is no interface {0}\nhint: `ip link` lists them")]
    NoInterface(String),
    /// Attached there already, or not at all.
    #[error("{interface} is {state} attached")]
    State {
        /// The interface.
        interface: String,
        /// "already" or "not".
        state: &'static str,
    },
    /// A descriptor failed.
    #[error("could not {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl KernelError {
    /// A refusal, with its cause.
    fn refused(action: impl Into<String>) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        let action = action.into();
        move |source| Self::Refused { action, source }
    }

    /// Whether root could have done it.
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>()
                && matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
            {
                return true;
            }
            cause = error.source();
        }
        false
    }
}
