//! What the policy decided, in numbers.

use std::time::Duration;

use super::Refusals;
use crate::model::ActionKind;

/// What became of one kind of action. Every intent taken in is waiting, dropped, or started; every one started is
/// open, or in exactly one of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindCounters {
    /// Intents taken into the queue.
    pub queued: u64,
    /// Taken out of the queue undone.
    pub dropped: u64,
    /// Handed out.
    pub started: u64,
    /// Somebody got it.
    pub used: u64,
    /// Nobody did.
    pub wasted: u64,
    /// Asked for while it was being made.
    pub late: u64,
    /// It could not be made.
    pub failed: u64,
    /// Whoever was to do it refused.
    pub refused: u64,
    /// Accesses that nothing was ready for.
    pub missed: u64,
    /// Times that a budget made a ready intent wait.
    pub held_back: u64,
    /// The time saved.
    pub saved: Duration,
}

/// All numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    kinds: [KindCounters; 3],
    /// Why something was not done.
    pub refusals: Refusals,
    /// Predictions looked at.
    pub predictions: u64,
    /// Outcomes of intents that are not open.
    pub unknown_outcomes: u64,
    /// Leases given up because no outcome came.
    pub lost: u64,
    /// Times a breaker opened.
    pub breakers_opened: u64,
}

impl Counters {
    /// The numbers of a kind of action.
    #[must_use]
    pub const fn kind(&self, kind: ActionKind) -> &KindCounters {
        &self.kinds[kind as usize]
    }

    pub(super) const fn kind_mut(&mut self, kind: ActionKind) -> &mut KindCounters {
        &mut self.kinds[kind as usize]
    }
}
