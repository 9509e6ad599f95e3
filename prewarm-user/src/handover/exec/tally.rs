//! What supervisor and guardian count: every call ends in exactly one of these.

use std::collections::BTreeMap;

use super::board::Board;

macro_rules! tallies {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Tally {
            $($(#[$doc])* $variant,)*
        }

        const ALL: &[(Tally, &str)] = &[$((Tally::$variant, $name),)*];
    };
}

tallies! {
    /// The program got a lease.
    Replaced = "replaced",
    /// There was no lease.
    NoLease = "no_lease",
    /// A lease to there is being dialled.
    Late = "late",
    /// Not an internet address, no port, or one whose scope or flow label matters.
    Address = "left_address",
    /// The program's memory or descriptors can't be read.
    Access = "left_access",
    /// Not a plain TCP socket of the address's family.
    Kind = "left_kind",
    /// Connected or listening already.
    State = "left_state",
    /// Bound to a source address, port, interface or mark.
    Bound = "left_bound",
    /// An option that can only be set before the handshake, or that we can't carry over.
    Option = "left_option",
    /// In an epoll set, which would go on watching the old socket.
    Epoll = "left_epoll",
    /// Known under a second descriptor, which would keep the old socket.
    Duplicate = "left_duplicate",
    /// The daemon is not there.
    Absent = "daemon_absent",
    /// The daemon did not answer in time.
    Slow = "daemon_slow",
    /// The daemon answered with an error.
    Refused = "daemon_refused",
    /// The program had gone, or the kernel refused the replacement.
    Gone = "gone",
    /// The guardian let a call go on.
    Guarded = "guardian_let_go_on",
    /// The guardian finished a replacement that the supervisor had begun.
    Finished = "guardian_finished",
    /// Supervisors that were started.
    Started = "supervisors_started",
    /// Supervisors that were stopped by a signal.
    Stopped = "supervisors_stopped",
    /// Guardians that died.
    Orphaned = "guardians_lost",
    /// Leases given back because the program could not use them.
    GivenBack = "leases_given_back",
}

/// How many there are.
pub(super) const TALLIES: usize = ALL.len();

/// All counts by name.
pub(super) fn report(board: &Board) -> BTreeMap<&'static str, u64> {
    ALL.iter().map(|&(tally, name)| (name, board.counted(tally))).collect()
}
