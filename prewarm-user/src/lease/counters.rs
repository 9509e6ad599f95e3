//! What the pool counts and shows.
//!
//! Comes in: what happened. Goes out: plain numbers and rows. Never here: a decision.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::model::IntentId;

/// Everything that happened to leases, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseCounters {
    /// Dials that were started.
    pub opened: u64,
    /// Connections that were established.
    pub ready: u64,
    /// Leases that a program got.
    pub taken: u64,
    /// Leases that nobody wanted in their time.
    pub expired: u64,
    /// Expired leases that were dialled again because somebody still expects to use them.
    pub renewed: u64,
    /// Leases that died while they waited; the four reasons below add up to it.
    pub dead: u64,
    /// Closed by the origin.
    pub dead_closed: u64,
    /// Reset by the origin.
    pub dead_reset: u64,
    /// The origin said something that nobody had asked for.
    pub dead_spoke: u64,
    /// Keepalive probes went unanswered.
    pub dead_unanswered: u64,
    /// Dials that failed.
    pub failed: u64,
    /// Of those, the ones that this host had no descriptor, port or memory for.
    pub failed_here: u64,
    /// Leases to an address that a look-up no longer gave; another was dialled.
    pub readdressed: u64,
    /// Leases to a name that a look-up no longer found.
    pub cancelled: u64,
    /// Dials that were not started; the reasons below add up to it.
    pub refused: u64,
    /// Enough leases are open, in all, to the origin or to its addresses.
    pub refused_limit: u64,
    /// Enough dials were started in this second.
    pub refused_pace: u64,
    /// The origin failed a moment ago.
    pub refused_backoff: u64,
    /// The guard allows none of the addresses.
    pub refused_guard: u64,
    /// The daemon is stopping.
    pub refused_draining: u64,
    /// Programs that came while their connection was being dialled.
    pub late: u64,
    /// Leases that a program could not use and that came back.
    pub given_back: u64,
    /// Leases that were lost on their way to a program.
    pub lost: u64,
    /// Leases that were claimed outside the pool, in the kernel.
    pub claimed: u64,
    /// Claimed leases that nobody fetched in time; they waited again.
    pub unredeemed: u64,
    /// Tokens of leases that nobody had claimed.
    pub guessed: u64,
    /// Leases that were closed because the daemon stopped.
    pub drained: u64,
    /// Outcomes that nobody read in time.
    pub outcomes_dropped: u64,
}

/// Why a lease exists.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reason {
    /// Its use was predicted.
    Predicted {
        /// The intent's number.
        intent: u64,
        /// With this probability.
        probability: f64,
    },
    /// It was asked for.
    Wanted,
    /// Programs have come for such connections lately, at this rate or so many at a time.
    Demanded,
}

impl Reason {
    /// The reason of an intent.
    #[must_use]
    pub const fn predicted(intent: IntentId, probability: f64) -> Self {
        Self::Predicted { intent: intent.0, probability }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Predicted { probability, .. } => write!(f, "predicted, p = {probability:.2}"),
            Self::Wanted => f.write_str("wanted"),
            Self::Demanded => f.write_str("in demand"),
        }
    }
}

/// Where a lease is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Being opened.
    Dialling,
    /// Open, and waiting for a program.
    Ready,
    /// On its way to a program.
    Handed,
    /// Claimed in the kernel, by a program that will come for it.
    Claimed,
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dialling => "dialling",
            Self::Ready => "ready",
            Self::Handed => "handed",
            Self::Claimed => "claimed",
        })
    }
}

/// One lease, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Its number.
    pub id: u64,
    /// Whom it is to.
    pub origin: String,
    /// Its address, once one has answered.
    pub destination: Option<SocketAddr>,
    /// Where it is in its life.
    pub state: LeaseState,
    /// Seconds since the dial began, or since it was established.
    pub age_seconds: f64,
    /// Seconds until it is closed unused.
    pub expires_in_seconds: Option<f64>,
    /// What its handshake took.
    pub rtt_ms: Option<f64>,
    /// Why it exists.
    pub reason: Reason,
}
