//! What the deciding parts want done, and what became of it.

use std::time::Duration;

use super::{Name, Origin, ResourceId, Timestamp};

/// The number of an intent, unique while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId(pub u64);

/// Something worth making ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Its number.
    pub id: IntentId,
    /// The resource whose access was predicted.
    pub resource: ResourceId,
    /// What to do.
    pub action: Action,
    /// The probability that it will be used before it expires, 0 to 1.
    pub probability: f64,
    /// What doing it is worth, in milliseconds: `p × saved − (1 − p) × cost`.
    pub value: f64,
    /// When to begin; an intent of the far future waits.
    pub start: Timestamp,
    /// Until when it is of use; after that it is thrown away undone.
    pub deadline: Timestamp,
    /// When the event that caused it was seen, in the kernel where it came from there.
    pub cause: Timestamp,
}

/// The three things that can be made ready, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Look the name up so that the resolver's cache is hot.
    Resolve {
        /// The name.
        name: Name,
    },
    /// Open a connection and keep it until somebody wants it.
    Lease {
        /// Where to.
        origin: Origin,
    },
    /// Send a safe request over a leased connection so that caches at the origin are hot.
    Warm {
        /// Where to.
        origin: Origin,
        /// The path of the configured request.
        path: String,
    },
}

/// The kinds of action, for budgets and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActionKind {
    /// A name looked up.
    Resolve,
    /// A connection opened.
    Lease,
    /// A request sent.
    Warm,
}

impl Action {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> ActionKind {
        match self {
            Self::Resolve { .. } => ActionKind::Resolve,
            Self::Lease { .. } => ActionKind::Lease,
            Self::Warm { .. } => ActionKind::Warm,
        }
    }

    /// The name it is about.
    #[must_use]
    pub const fn name(&self) -> &Name {
        match self {
            Self::Resolve { name } => name,
            Self::Lease { origin } | Self::Warm { origin, .. } => &origin.name,
        }
    }
}

/// What became of an intent, reported once for each that was started or refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Which one.
    pub intent: IntentId,
    /// The resource it was about.
    pub resource: ResourceId,
    /// What kind of action it was.
    pub kind: ActionKind,
    /// When this was known.
    pub at: Timestamp,
    /// What became of it.
    pub verdict: Verdict,
}

/// The fate of an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody got it.
    Used {
        /// What that saved.
        saved: Duration,
    },
    /// It expired, or died, unused.
    Wasted,
    /// It was asked for while it was still being made.
    Late,
    /// It could not be made.
    Failed,
    /// The origin asked to be left alone (status 429 or 503).
    PushedBack {
        /// For how long, if it said so (RFC 9110, 10.2.3).
        retry_after: Option<Duration>,
    },
    /// A guard rail, a budget or a breaker kept it from being tried.
    Refused,
}
