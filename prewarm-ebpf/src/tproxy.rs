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

/// The ring of [`Opened`]; nobody is woken for it, and what it has no room for is lost.
pub const OPENED: &str = "OPENED";

/// The bytes of [`OPENED`]: some three hundred connections until the daemon looks again.
pub const OPENED_BYTES: u32 = 1 << 14;
/// Of how many first packets it is remembered that they were told.
pub const OPENED_SEEN: u32 = 1 << 11;
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
    /// Not [`UNSPENT`] once the daemon has fetched the lease or given it back.
    pub spent: u32,
}

/// [`Taken::spent`]: the lease waits for its connection.
pub const UNSPENT: u32 = 0;
/// [`Taken::spent`]: the daemon has fetched the lease.
pub const FETCHED: u32 = 1;
/// [`Taken::spent`]: the daemon has given the lease back.
pub const GIVEN_BACK: u32 = 2;
/// [`Taken::spent`]: another connection has the same ends now, and goes its own way past what is left of this one.
pub const ASIDE: u32 = 3;

/// A connection that began and was left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Opened {
    /// As in [`Flow`].
    pub client: [u32; 4],
    /// As in [`Flow`].
    pub origin: [u32; 4],
    /// As in [`Flow`].
    pub ports: u32,
    /// The number of its first packet, as it stands there.
    pub sequence: u32,
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
    assert!(size_of::<Opened>() == 40);
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
    /// Packets of connections that go their own way past what is left of one that was taken over.
    Passed = 5,
}

/// How many counters there is room for.
pub const TPROXY_COUNTERS_LENGTH: usize = 8;
