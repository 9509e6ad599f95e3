//! Answers that the kernel gives: which are laid ready, for how long, and where they come from.
//!
//! Comes in: questions that the kernel had no answer to and that were seen twice, names that are expected, and what the
//! server on this host answers to the daemon itself. Goes out: slots of the kernel's map. Never here: an answer from a
//! packet that merely arrived, one that can't be told exactly, or one beyond its TTL.

mod asking;
mod build;
mod handle;
mod numbers;
mod service;
mod stale;
mod store;
mod wire;

pub use asking::{Asking, Pending, Why};
pub use build::{Answer, Question, Turns};
pub use handle::{Command, Flush, Handle, Told};
pub use numbers::{AnswerView, Numbers, ServerView};
pub use service::{Parts, Ready, Service, socket};
pub use store::{Asked, Fresh, Held, Lead, Refused, Server, Store, Table, address};

/// Why an answer can't be given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Unfit {
    /// It is no DNS message, or not to its end.
    #[error("not a whole DNS message")]
    Malformed,
    /// It answers something else.
    #[error("an answer to another question")]
    Question,
    /// It is cut, or has flags that are not understood.
    #[error("flags that can't be given again")]
    Flags,
    /// SERVFAIL: the server could not learn it.
    #[error("the server failed")]
    Failed,
    /// Another response code than NOERROR, NXDOMAIN and SERVFAIL.
    #[error("a response code other than NOERROR and NXDOMAIN")]
    Rcode,
    /// It has more than there is room for.
    #[error("too long")]
    TooLong,
    /// It has records of types that are not understood, none at all, or too many.
    #[error("records that are not understood, or too many")]
    Records,
    /// Its OPT record is missing, not asked for, or has something in it.
    #[error("EDNS that can't be given again")]
    Edns,
    /// It has records of other names.
    #[error("records of names that were not asked for")]
    Bailiwick,
    /// It writes the asked name out.
    #[error("the asked name is written out, in a case that may be the asker's")]
    Case,
    /// It says that there is nothing, without saying for how long.
    #[error("a negative answer without SOA")]
    Negative,
    /// A TTL of zero.
    #[error("a TTL of zero")]
    Ttl,
}

impl Unfit {
    /// Its name in statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Question => "question",
            Self::Flags => "flags",
            Self::Failed => "failed",
            Self::Rcode => "rcode",
            Self::TooLong => "too_long",
            Self::Records => "records",
            Self::Edns => "edns",
            Self::Bailiwick => "bailiwick",
            Self::Case => "case",
            Self::Negative => "negative",
            Self::Ttl => "ttl",
        }
    }
}
