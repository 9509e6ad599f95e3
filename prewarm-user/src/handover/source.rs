//! Where the supervisor gets leases from: the port, so that it can be run without a daemon.

use std::{
    net::SocketAddr,
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};

use super::protocol::{Granted, Settled, Want};
use crate::model::Timestamp;

/// An answer to a question.
#[derive(Debug)]
pub enum Answer {
    /// A connection, established and proven alive a moment ago, and what is known of it.
    Lease(OwnedFd, Granted),
    /// None; `late` when one is being dialled.
    Nothing {
        /// Whether a dial is in flight.
        late: bool,
    },
    /// The source will not say.
    Refused,
}

/// Why questions got no answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// What can be said without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// There may be a lease, and it would save this much; nothing where that is not known.
    Perhaps(Duration),
    /// There is none.
    Nothing,
    /// Nobody can be asked just now.
    Absent,
}

/// How long a program may wait for the answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// So long.
    Fixed(Duration),
    /// As long as the lease saves: whoever waited that long in vain has lost what the next one wins, and the daemon is
    /// left alone after that. A busy machine may need some milliseconds to run it.
    Worth,
}

impl Patience {
    const LEAST: Duration = Duration::from_millis(2);
    const MOST: Duration = Duration::from_millis(50);
    const UNKNOWN: Duration = Duration::from_millis(5);

    /// How long, for a lease that saves this much.
    #[must_use]
    pub fn of(self, saves: Duration) -> Duration {
        match self {
            Self::Fixed(time) => time,
            Self::Worth if saves.is_zero() => Self::UNKNOWN,
            Self::Worth => saves.clamp(Self::LEAST, Self::MOST),
        }
    }
}

/// Somebody who has leases. Nothing here blocks; questions are answered in any order.
pub trait LeaseSource {
    /// Does what would only cost time when the first program asks.
    fn prepare(&mut self, now: Timestamp);

    /// Whether it makes sense to ask.
    fn prospect(&mut self, destination: SocketAddr, now: Timestamp) -> Prospect;

    /// Asks; `false` when nobody can be asked just now.
    fn ask(&mut self, id: u64, want: &Want, now: Timestamp) -> bool;

    /// What becomes readable when there are answers.
    fn wake(&self) -> Option<BorrowedFd<'_>>;

    /// Collects the answers that have come.
    ///
    /// # Errors
    /// When the source has gone: no question that is open will be answered.
    fn collect(&mut self, answers: &mut Vec<(u64, Answer)>, now: Timestamp) -> Result<(), Lost>;

    /// Reports what became of a lease; one that was not fit goes back.
    fn settle(&mut self, id: u64, result: Settled, lease: Option<BorrowedFd<'_>>);

    /// Tells that a program connects to there without having been offered a lease.
    fn passed(&mut self, destination: SocketAddr);

    /// Forgets all open questions, because an answer is overdue.
    fn give_up(&mut self, now: Timestamp);
}
