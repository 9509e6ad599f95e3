//! The contract of the programs that watch a C library's `getaddrinfo`: their maps, and what stands in the records.
//!
//! Comes in: nothing. Goes out: names, sizes, records. Never here: which libraries, or what a record means.

use bytemuck::{Pod, Zeroable};

use crate::abi::ADDRESSES;

/// The program at the function's entry.
pub const LOOKUP_ASKED: &str = "lookup_asked";
/// The program at its return.
pub const LOOKUP_ANSWERED: &str = "lookup_answered";
/// The function.
pub const GETADDRINFO: &str = "getaddrinfo";

/// The ring of [`LookupRecord`]; each wakes its reader, since a look-up takes longer than that.
pub const LOOKUP_RING: &str = "LOOKUP_RING";
/// The least-recently-used hash of calls under way, by thread.
pub const LOOKUPS: &str = "LOOKUPS";
/// The per-CPU array of what the programs count, by [`LookupCounter`].
pub const LOOKUP_COUNTERS: &str = "LOOKUP_COUNTERS";
/// The global with the daemon's own process (`u32`, in its PID namespace, 0: none), which nothing is learnt from.
pub const OWN_PROCESS: &str = "OWN_PROCESS";
/// The globals with the device and inode of that namespace (`u64` each).
pub const OWN_PROCESSES: [&str; 2] = ["OWN_PROCESSES_DEVICE", "OWN_PROCESSES_INODE"];

/// The bytes of [`LOOKUP_RING`]: some hundred and fifty look-ups until the daemon reads.
pub const LOOKUP_RING_BYTES: u32 = 1 << 16;
/// Entries of [`LOOKUPS`]: threads that look something up at the same time.
pub const LOOKUP_ENTRIES: u32 = 1 << 12;
/// Entries of the list of results that are looked at. A library lists each address up to three times.
pub const RESULTS: usize = 32;

/// A call under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Asked {
    /// Where the caller keeps the name.
    pub node: u64,
    /// Where it wants the list of results to be put.
    pub result: u64,
    /// When it asked, in nanoseconds on the monotonic clock.
    pub time: u64,
}

/// A look-up that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LookupRecord {
    /// When it was asked, in nanoseconds on the monotonic clock.
    pub asked: u64,
    /// When it came back.
    pub answered: u64,
    /// Who asked, as numbered in the daemon's PID namespace; 0 for a process of another one.
    pub process: u32,
    /// What the function returned: 0, or one of the library's error numbers.
    pub code: i32,
    /// How many bytes of `name` count.
    pub name_length: u16,
    /// How many of `addresses` are set.
    pub addresses_held: u16,
    /// Zero.
    pub reserved: u32,
    /// The addresses in the list's order; IPv4 as `::ffff:a.b.c.d`.
    pub addresses: [[u8; 16]; ADDRESSES],
    /// The name as the caller wrote it, without its terminating zero; what lies behind it means nothing.
    pub name: [u8; 256],
}

const _: () = assert!(size_of::<LookupRecord>() == 32 + 16 * ADDRESSES + 256);

/// What the programs count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LookupCounter {
    /// Look-ups that came back.
    Seen,
    /// Records that the ring had no room for.
    RingLost,
    /// Names and lists that could not be read, or names longer than any.
    Unreadable,
    /// Look-ups of the daemon itself.
    Own,
}

/// How many counters there are.
pub const LOOKUP_COUNTERS_LENGTH: usize = 4;
