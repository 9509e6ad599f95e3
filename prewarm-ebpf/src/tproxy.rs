//! The contract of the program that takes over forwarded connections: its maps, and what stands in them.
//!
//! Comes in: nothing. Goes out: names, sizes, records. Never here: which interfaces, or who is served.
//!
//! Leases that can be claimed stand in two maps of the same form as those of [`crate::redirect`].

use bytemuck::{Pod, Zeroable};

/// The program at the ingress of an interface.
pub const TPROXY: &str = "tproxy";

/// The hash of leases that can be claimed: [`crate::redirect::OfferKey`] to nothing much.
pub const TPROXY_OFFERS: &str = "TPROXY_OFFERS";
/// The hash of destinations with leases: [`crate::redirect::Destination`] to [`crate::redirect::Slots`].
pub const TPROXY_DESTINATIONS: &str = "TPROXY_DESTINATIONS";
/// The least-recently-used hash of connections that were taken over: [`Flow`] to [`Taken`].
pub const FLOWS: &str = "FLOWS";
/// The one-entry array of [`Place`].
pub const PLACE: &str = "PLACE";
/// The per-CPU array of what the program counts, by [`TproxyCounter`].
pub const TPROXY_COUNTERS: &str = "TPROXY_COUNTERS";

/// Entries of [`FLOWS`].
pub const FLOW_ENTRIES: u32 = 1 << 15;
/// Entries of the maps of leases at most.
pub const TPROXY_OFFER_ENTRIES: u32 = 1 << 14;
/// How long after a claim, in nanoseconds, its first packet may come again without a second claim.
pub const YOUNG: u64 = 3_000_000_000;

/// A connection by its ends, as they stand in a packet of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Flow {
    /// The client's address; IPv4 as `::ffff:a.b.c.d`.
    pub client: [u32; 4],
    /// Whom it wants, in the same form.
    pub origin: [u32; 4],
    /// The client's port, then the other, in the order of packets.
    pub ports: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a connection was taken over with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Taken {
    /// When, in nanoseconds on the monotonic clock.
    pub time: u64,
    /// The token of the lease.
    pub token: u32,
    /// Not 0 once the daemon has fetched the lease or given it back.
    pub spent: u32,
}

/// Where connections are taken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Place {
    /// The mark that routes a packet to this host.
    pub mark: u32,
    /// The port of the listener on 127.0.0.1, in the order of packets; 0 for none.
    pub port4: u32,
    /// The port of the listener on ::1.
    pub port6: u32,
}

const _: () = {
    assert!(size_of::<Flow>() == 40);
    assert!(size_of::<Taken>() == 16);
    assert!(size_of::<Place>() == 12);
};

/// What the program counts. Packets to destinations without leases are not counted: they pay one look into a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TproxyCounter {
    /// Connections taken over.
    Claimed = 0,
    /// Every lease was claimed by somebody else, or called back.
    Missed = 1,
    /// The daemon has not beaten for [`crate::redirect::STALE`].
    Stale = 2,
    /// The claim could not be remembered or the listener not found; the lease comes back to the pool by itself.
    Forgotten = 3,
    /// Packets of connections that were taken over.
    Packets = 4,
}

/// How many counters there is room for.
pub const TPROXY_COUNTERS_LENGTH: usize = 8;
