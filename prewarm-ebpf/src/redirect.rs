//! The contract of the connect redirect: its programs, its maps, and what stands in them.
//!
//! Comes in: nothing. Goes out: names, sizes, records. Never here: who may be redirected.
//!
//! A lease that waits is in two maps. [`OFFERS`] has it under its token and its destination; whoever deletes that entry
//! has claimed it, and there is exactly one who does. [`DESTINATIONS`] only says which tokens to try.

use bytemuck::{Pod, Zeroable};

use crate::counters::counters;

/// The programs at `connect()`, for IPv4 and IPv6 sockets.
pub const CONNECT4: &str = "connect4";
/// See [`CONNECT4`].
pub const CONNECT6: &str = "connect6";
/// The programs that tell a redirected socket whom it is connected to.
pub const PEERNAME4: &str = "peername4";
/// See [`PEERNAME4`].
pub const PEERNAME6: &str = "peername6";
/// The programs that tell a redirected socket its own address.
pub const SOCKNAME4: &str = "sockname4";
/// See [`SOCKNAME4`].
pub const SOCKNAME6: &str = "sockname6";
/// All programs of the redirect.
pub const REDIRECT_PROGRAMS: [&str; 6] = [CONNECT4, CONNECT6, PEERNAME4, PEERNAME6, SOCKNAME4, SOCKNAME6];

/// The hash of leases that can be claimed: [`OfferKey`] to nothing much.
pub const OFFERS: &str = "OFFERS";
/// The hash of destinations with leases: [`Destination`] to [`Slots`].
pub const DESTINATIONS: &str = "DESTINATIONS";
/// The least-recently-used hash of sockets that were redirected: socket cookie to [`Redirected`].
pub const REDIRECTED: &str = "REDIRECTED";
/// The hash of network namespaces that take part: namespace cookie to [`Listener`].
pub const LISTENERS: &str = "LISTENERS";
/// The hash of users that the rules name: user to [`USER_INCLUDED`] or [`USER_EXCLUDED`].
pub const USERS: &str = "USERS";
/// The one-entry array of [`Rules`].
pub const RULES: &str = "RULES";
/// The one-entry array with the time of the daemon's last beat, in nanoseconds on the monotonic clock.
pub const HEARTBEAT: &str = "HEARTBEAT";
/// The per-CPU array of what the redirect counts, by [`RedirectCounter`].
pub const REDIRECT_COUNTERS: &str = "REDIRECT_COUNTERS";

/// Entries of [`OFFERS`] and of [`DESTINATIONS`] at most.
pub const OFFER_ENTRIES: u32 = 1 << 14;
/// Entries of [`REDIRECTED`].
pub const REDIRECTED_ENTRIES: u32 = 1 << 14;
/// Entries of [`LISTENERS`] at most.
pub const LISTENER_ENTRIES: u32 = 256;
/// Entries of [`USERS`] at most.
pub const USER_ENTRIES: u32 = 1024;
/// Leases to one destination at most.
pub const SLOTS: usize = 64;
/// Excluded cgroups at most.
pub const EXCLUDED_CGROUPS: usize = 16;
/// A level in [`Cgroup`] that stands for that one alone, not those below.
pub const ONLY_THIS: u32 = u32::MAX;
/// How old the last beat may be, in nanoseconds, for a program that changes anything to do so.
pub const STALE: u64 = 2_000_000_000;

/// In [`USERS`]: has leases.
pub const USER_INCLUDED: u32 = 1;
/// In [`USERS`]: has none.
pub const USER_EXCLUDED: u32 = 2;

/// The network of loopback addresses that carry a token in their low bits: 127.64.0.0/10.
pub const TOKEN_NETWORK: u32 = 0x7f40_0000;
/// The bits of such an address that are the token.
pub const TOKEN_MASK: u32 = (1 << 22) - 1;
/// Set in every used one of [`Slots`], since zero is a token too.
pub const SLOT_USED: u32 = 1 << 31;

/// Where a connection goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Destination {
    /// The address as it stands in a packet; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u32; 4],
    /// The port in the order of packets, in the first two bytes.
    pub port: u32,
}

/// What a claim deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct OfferKey {
    /// Where the lease leads.
    pub destination: Destination,
    /// Its token.
    pub token: u32,
}

/// The tokens that are worth trying for a destination, with [`SLOT_USED`]; zeros stand behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Slots {
    /// The tokens.
    pub tokens: [u32; SLOTS],
}

/// What became of a socket's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Redirected {
    /// Where its program believes it to lead.
    pub peer: Destination,
    /// The token it claimed.
    pub token: u32,
    /// The lease's own address; zeros until user space knows it.
    pub local: Destination,
    /// Not 0 once it has come for its lease: it may not come again.
    pub spent: u32,
}

/// Where connections of a network namespace are redirected to, by ports in the order of packets; zero for nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Listener {
    /// On 127.64.0.0/10.
    pub port4: u32,
    /// On ::1.
    pub port6: u32,
}

/// A cgroup by its number, and how deep below the root it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Cgroup {
    /// Its inode's number.
    pub id: u64,
    /// 1 for a child of the root; [`ONLY_THIS`] where that is not known.
    pub level: u32,
    /// Zero.
    pub reserved: u32,
}

/// Who is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Rules {
    /// The daemon's own process, as the kernel numbers it; 0 for none.
    pub own_process: u32,
    /// Not 0 when only the users that [`USERS`] includes take part.
    pub named_users_only: u32,
    /// How many of `excluded` count.
    pub excluded_count: u32,
    /// Zero.
    pub reserved: u32,
    /// Cgroups that are left alone, with all below them.
    pub excluded: [Cgroup; EXCLUDED_CGROUPS],
}

const _: () = {
    assert!(size_of::<Destination>() == 20);
    assert!(size_of::<OfferKey>() == 24);
    assert!(size_of::<Redirected>() == 48);
    assert!(size_of::<Rules>() == 16 + 16 * EXCLUDED_CGROUPS);
};

counters! {
    /// What became of connections to destinations that have leases. Others are not counted: they pay nothing.
    pub enum RedirectCounter: REDIRECT_COUNTERS_LENGTH;

    /// Redirected.
    Claimed = 0, "claimed";
    /// Every lease was claimed by somebody else, or called back.
    Missed = 1, "missed";
    /// The daemon has not beaten for [`STALE`].
    Stale = 2, "stale";
    /// From a network namespace that does not take part, or has no listener of that family.
    Namespace = 3, "namespace";
    /// From a socket with a source address, a port, a mark, or a device.
    Bound = 4, "bound";
    /// Of the daemon itself.
    Own = 5, "own";
    /// Of a user who gets no leases.
    User = 6, "user";
    /// From an excluded cgroup.
    Cgroup = 7, "cgroup";
    /// The claim could not be remembered; the lease comes back to the pool by itself.
    Forgotten = 8, "forgotten";
}

/// How many counters there is room for.
pub const REDIRECT_COUNTERS_LENGTH: usize = 16;
