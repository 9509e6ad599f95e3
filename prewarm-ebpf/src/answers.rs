//! The contract about answers that the kernel gives: which it holds, for whom, and what it counts.
//!
//! A question leads to a bucket of [`INDEX`], which names slots of [`SLOTS`]; a slot says in full which question it
//! answers, so a bucket may be wrong or out of date and no harm is done. User space alone writes both, and never writes
//! a slot that a processor may still be reading: one that is given up rests for [`REST`] first.

use bytemuck::{Pod, Zeroable};

use crate::counters::counters;

/// The array of buckets: each names up to [`BUCKET`] slots.
pub const INDEX: &str = "ANSWER_INDEX";
/// The array of [`AnswerSlot`]s.
pub const SLOTS: &str = "ANSWER_SLOTS";
/// The array of [`AnswerUse`]s, one for each slot.
pub const USES: &str = "ANSWER_USES";
/// The hash of servers whose answers may be given: [`ServerKey`] to nothing much.
pub const SERVERS: &str = "ANSWER_SERVERS";
/// The one-entry array of [`AnswerRules`].
pub const RULES: &str = "ANSWER_RULES";
/// The direct-mapped array of clients that a server has answered: [`ClientSlot`].
pub const CLIENTS: &str = "ANSWER_CLIENTS";
/// The direct-mapped array of what client networks may still have: [`LimitSlot`].
pub const LIMITS: &str = "ANSWER_LIMITS";
/// The direct-mapped array of questions without an answer that were seen: [`SightSlot`].
pub const SIGHTS: &str = "ANSWER_SIGHTS";
/// The ring of questions that were seen twice and had no answer: [`WantedRecord`].
pub const WANTED: &str = "ANSWER_WANTED";
/// The per-CPU array of what is counted, by [`AnswerCounter`].
pub const COUNTERS: &str = "ANSWER_COUNTERS";
/// The global that switches all of this on (`u32`, 0: off).
pub const ANSWERING: &str = "ANSWERING";

/// The XDP program of benches that makes a question of the answer before, and asks it again.
pub const BENCH_ANSWER: &str = "bench_answer";
/// The XDP program of benches that only grows and shrinks the packet and writes the question.
pub const BENCH_RESTORE: &str = "bench_restore";
/// The XDP program of benches that only grows and shrinks the packet.
pub const BENCH_TAIL: &str = "bench_tail";

/// The XDP program of benches that drops every datagram: what is left is the generator's own.
pub const BENCH_DROP: &str = "bench_drop";

/// Slots that a bucket names.
pub const BUCKET: usize = 4;
/// Buckets; a power of two.
pub const INDEX_ENTRIES: u32 = 1 << 13;
/// Slots at most.
pub const SLOT_ENTRIES: u32 = 1 << 14;
/// Servers at most.
pub const SERVER_ENTRIES: u32 = 64;
/// Entries of [`CLIENTS`]; a power of two.
pub const CLIENT_ENTRIES: u32 = 1 << 14;
/// Entries of [`LIMITS`]; a power of two.
pub const LIMIT_ENTRIES: u32 = 1 << 14;
/// Entries of [`SIGHTS`]; a power of two.
pub const SIGHT_ENTRIES: u32 = 1 << 14;
/// Bytes of [`WANTED`]; a power of two.
pub const WANTED_BYTES: u32 = 1 << 20;
/// Bytes that an answer may have behind its question.
pub const BODY: usize = 512;
/// TTLs that an answer may have.
pub const TTLS: usize = 24;
/// Records that may take turns.
pub const TURNS: usize = 16;
/// Nanoseconds for which a slot that was given up must rest before it is written again: no program runs for as long.
pub const REST: u64 = 5_000_000_000;
/// How many nanoseconds the clock that answers are aged by is behind at most: a tick of the slowest kernel.
pub const COARSE: u64 = 10_000_000;
/// Nanoseconds for which a question that was told of is not told of again.
pub const TOLD: u64 = 1_000_000_000;

/// The type A.
pub const A: u16 = 1;
/// The type AAAA.
pub const AAAA: u16 = 28;
/// The type HTTPS.
pub const HTTPS: u16 = 65;

/// In a kind: recursion is desired (RD).
pub const KIND_RECURSION: u8 = 1 << 0;
/// In a kind: authentic data is understood (AD).
pub const KIND_AUTHENTIC: u8 = 1 << 1;
/// In a kind: there is an OPT record, with nothing in it.
pub const KIND_EDNS: u8 = 1 << 2;

/// The DNS flag RD.
pub const FLAG_RD: u16 = 0x0100;
/// The DNS flag AD.
pub const FLAG_AD: u16 = 0x0020;
/// The DNS flag TC.
pub const FLAG_TC: u16 = 0x0200;

/// A server of this host whose answers may be given, at one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ServerKey {
    /// Its address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u64; 2],
    /// The index of the interface.
    pub interface: u32,
    /// Zero.
    pub reserved: u32,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct AnswerSlot {
    /// The ID of the name.
    pub resource: u64,
    /// The address that is asked; IPv4 as `::ffff:a.b.c.d`.
    pub server: [u64; 2],
    /// When it was given: the begin of the second in which TTLs were counted, in nanoseconds on the monotonic clock.
    pub base: u64,
    /// From when on it isn't given any more.
    pub expires: u64,
    /// The index of the interface.
    pub interface: u32,
    /// The type.
    pub qtype: u16,
    /// The kind of question (`KIND_…`).
    pub kind: u8,
    /// The length of the name in wire format.
    pub name_length: u8,
    /// What an age of one second takes from the sum of `body`, modulo 65535.
    pub ageing: u32,
    /// The length of `body`.
    pub body_length: u16,
    /// The flags of the answer's header, in network order.
    pub flags: u16,
    /// How many answer, authority and additional records there are, in network order.
    pub counts: [u16; 3],
    /// The sum of `body` in 16-bit words as they lie in memory, as if it began at an even place.
    pub sum: u16,
    /// How many of `ttl_at` are set.
    pub ttls: u8,
    /// How many records take turns; 0 or 1 for none.
    pub turns: u8,
    /// How many bytes of each: 4 or 16.
    pub turn_size: u8,
    /// Zero.
    pub reserved: u8,
    /// Where in `body` the first of these begins.
    pub turn_at: u16,
    /// How far it is to the next.
    pub turn_stride: u16,
    /// The size that the server's own OPT record has, in network order.
    pub edns_size: u16,
    /// Zero.
    pub reserved_too: [u16; 3],
    /// Where the TTLs are in `body`.
    pub ttl_at: [u16; TTLS],
    /// The question, in lower case (its type and class too): name, type, class, zeros.
    pub question: [u64; 33],
    /// What follows the question, with the TTLs as they were given; zeros.
    pub body: [u64; BODY / 8 + 1],
}

/// How an answer is used; the kernel writes `hits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct AnswerUse {
    /// How often it was given. Processors that count at once may lose one.
    pub hits: u64,
    /// The record that comes first, counted from 1; 0: they take turns.
    pub first: u64,
}

/// What holds for every answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct AnswerRules {
    /// The port that the daemon asks from, in network order: its own questions pass.
    pub own_port: u16,
    /// The longest DNS message.
    pub longest: u16,
    /// How many times as long as its question an answer may be.
    pub ratio: u16,
    /// Of the answers that a network may not have any more, one in so many is truncated; 0 for none. All others pass.
    pub truncate: u16,
    /// A question passes where the count of its answer's uses has all of these bits set; the greatest number for never.
    pub audit: u64,
    /// Nanoseconds for which a client is known after the server itself has answered it.
    pub client: u64,
    /// Nanoseconds that an answer costs a network; 0: no limit.
    pub cost: u64,
    /// Nanoseconds that a network may have saved up.
    pub burst: u64,
    /// What of an IPv4 client's address (as it stands in records) is its network.
    pub network4: [u64; 2],
    /// The same of IPv6.
    pub network6: [u64; 2],
}

/// A client that a server has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ClientSlot {
    /// Its address.
    pub client: [u64; 2],
    /// The server's.
    pub server: [u64; 2],
    /// When, in nanoseconds on the monotonic clock.
    pub time: u64,
}

/// What a network may still have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LimitSlot {
    /// The network.
    pub network: [u64; 2],
    /// When all that it had is paid for, in nanoseconds on the monotonic clock.
    pub paid: u64,
    /// How many answers it was denied.
    pub denied: u64,
}

/// A question without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SightSlot {
    /// Which.
    pub place: u64,
    /// When user space was told of it, or 0.
    pub told: u64,
}

/// A question that was seen twice and had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct WantedRecord {
    /// The ID of the name.
    pub resource: u64,
    /// The address that was asked.
    pub server: [u64; 2],
    /// Who asked.
    pub client: [u64; 2],
    /// The index of the interface.
    pub interface: u32,
    /// The type.
    pub qtype: u16,
    /// The kind of question (`KIND_…`).
    pub kind: u8,
    /// The length of the name in wire format.
    pub name_length: u8,
    /// The name in lower case; what lies behind `name_length` means nothing, and labels were not walked.
    pub name: [u64; 32],
}

const _: () = {
    assert!(size_of::<AnswerSlot>() == 80 + 2 * TTLS + 264 + BODY + 8);
    assert!(INDEX_ENTRIES.is_power_of_two() && CLIENT_ENTRIES.is_power_of_two());
    assert!(LIMIT_ENTRIES.is_power_of_two() && SIGHT_ENTRIES.is_power_of_two() && WANTED_BYTES.is_power_of_two());
};

/// Where a question lies: the lower bits are its bucket, the upper ones its tag there. The ID is uniform and secret, so
/// nobody can aim at a bucket.
#[inline(always)]
#[must_use]
pub const fn place(resource: u64, server: [u64; 2], interface: u32, qtype: u16, kind: u8) -> u64 {
    let about = (interface as u64) << 32 | (qtype as u64) << 8 | kind as u64;
    let mixed = (spread(server) ^ about).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    resource ^ mixed ^ mixed >> 32
}

/// What a bucket says of a slot: the tag of its question above, its number and one below; 0 for none.
#[inline(always)]
#[must_use]
pub const fn entry(place: u64, slot: u32) -> u64 {
    (place & 0xffff_ffff_0000_0000) | (slot as u64 + 1)
}

/// An address in one word.
#[inline(always)]
#[must_use]
pub const fn spread(address: [u64; 2]) -> u64 {
    (address[0] ^ address[1].rotate_left(29)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// How many of [`AnswerCounter`] there may be.
pub const COUNTERS_LENGTH: usize = 32;

counters! {
    /// What is counted: answers, and each reason why a question was left to the server.
    pub enum AnswerCounter: COUNTERS_LENGTH;

    /// Questions answered.
    Answered = 0, "answered";
    /// Answers cut to their question (TC), because the client's network had its share.
    Truncated = 1, "truncated";
    /// Questions told to user space.
    Wanted = 2, "wanted";
    /// The same that there was no room for.
    WantedLost = 3, "wanted_lost";
    /// Clients that a server has answered.
    Vouched = 4, "vouched";
    /// Clients that a server has refused.
    Refused = 5, "refused";
    /// No answer is at hand.
    Missing = 6, "missing";
    /// The answer is too old.
    Expired = 7, "expired";
    /// The daemon has not beaten.
    Stale = 8, "stale_daemon";
    /// To an address that is no configured server of this host.
    Elsewhere = 9, "elsewhere";
    /// The daemon's own question.
    Own = 10, "own";
    /// CD, or flags that questions don't have.
    Flags = 11, "flags";
    /// A class other than IN, or a type other than A, AAAA and HTTPS.
    Type = 12, "type";
    /// More records than an OPT record, or bytes behind the last; TSIG is among them.
    Records = 13, "records";
    /// EDNS options: client subnet, cookie, padding, any.
    EdnsOption = 14, "edns_option";
    /// DNSSEC records are wanted (DO).
    Dnssec = 15, "dnssec";
    /// Another version of EDNS, or unknown flags there.
    EdnsVersion = 16, "edns_version";
    /// IP options, extension headers, or lengths that differ.
    IpHeader = 17, "ip_header";
    /// Sent to many, or without an address or port to answer to.
    Unicast = 18, "not_unicast";
    /// Longer than the client takes.
    TooLong = 19, "too_long";
    /// Longer than policy allows.
    Policy = 20, "policy";
    /// The server has not answered this client itself lately.
    NewClient = 21, "new_client";
    /// The client's network had its share.
    Limited = 22, "limited";
    /// Passed to compare what the server says.
    Audit = 23, "audit";
    /// The packet could not be made longer.
    NoRoom = 24, "no_room";
}

impl AnswerCounter {
    /// Whether it says why a question was left to the server.
    #[must_use]
    pub const fn is_reason(self) -> bool {
        self as u8 >= 6
    }
}
