//! The contract between the kernel programs and user space: records, maps, globals, counters.
//!
//! Every record is plain old data without padding; a change to anything here raises [`ABI_VERSION`], and user space
//! refuses an object with another one.

use bytemuck::{Pod, Zeroable};

use crate::counters::counters;

/// The version of this contract.
pub const ABI_VERSION: u32 = 4;
/// What stands in an object right before its [`ABI_VERSION`] (little-endian).
pub const ABI_MARK: [u8; 12] = *b"prewarm-abi:";

/// The XDP program for what arrives.
pub const INGRESS: &str = "ingress";
/// The tcx or clsact program for what leaves.
pub const EGRESS: &str = "egress";
/// The sock_ops program that watches the connections of the host.
pub const SOCKOPS: &str = "sock_watch";
/// The XDP program that does nothing: the baseline of measurements, and for the far end of a veth.
pub const PASS: &str = "pass";
/// The XDP program of benches that gives each packet another name and sends it through `ingress`.
pub const BENCH_NEW: &str = "bench_new";
/// The XDP program of benches that only gives each packet another name.
pub const BENCH_VARY: &str = "bench_vary";

/// The ring buffer of records.
pub const RING: &str = "RING";
/// The direct-mapped array of IDs that user space knows the names of.
pub const KNOWN: &str = "KNOWN";
/// The direct-mapped array of recent questions.
pub const RECENT: &str = "RECENT";
/// The per-CPU array of counters, one entry a program.
pub const COUNTERS: &str = "COUNTERS";
/// The LRU hash of the cookies of sockets that the daemon is about to connect.
pub const DIALLED: &str = "DIALLED";
/// The one-entry array that says that user space sleeps and wants a wake-up.
pub const SLEEPING: &str = "SLEEPING";

/// The global with the hash key ([`crate::HashKey`]).
pub const KEY: &str = "KEY";
/// The global with the mark of packets that are the daemon's own (`u32`, 0: none).
pub const OWN_MARK: &str = "OWN_MARK";
/// The global with the folding window in jiffies (`u64`, 0: fold nothing).
pub const WINDOW: &str = "WINDOW";
/// The global with the ticks of a second (`u64`), for rate limits.
pub const TICKS: &str = "TICKS";

/// Entries of [`KNOWN`]; a power of two.
pub const KNOWN_ENTRIES: u32 = 1 << 15;
/// Entries of [`RECENT`]; a power of two.
pub const RECENT_ENTRIES: u32 = 1 << 13;
/// Entries of [`DIALLED`]: sockets between their making and their connection, not those that are open.
pub const DIALLED_ENTRIES: u32 = 1 << 12;
/// Bytes of [`RING`]; a power of two.
pub const RING_BYTES: u32 = 1 << 20;
/// Addresses that an answer record holds; the rest are counted.
pub const ADDRESSES: usize = 8;
/// DNS messages looked at in one TCP segment; a segment with more is counted.
pub const STREAM_MESSAGES: usize = 32;

/// [`Head::kind`] of a [`QuestionRecord`], or of a [`NamedQuestionRecord`] when [`FLAG_NAMED`] is set.
pub const KIND_QUESTION: u8 = 1;
/// [`Head::kind`] of an [`AnswerRecord`].
pub const KIND_ANSWER: u8 = 2;
/// The first byte of a [`ConnectionRecord`] of a connection that was established from this host.
pub const KIND_CONNECTED: u8 = 3;
/// The same of one of the daemon's own whose first bytes have reached the other side.
pub const KIND_CARRIED: u8 = 4;
/// The same of one that is over.
pub const KIND_CLOSED: u8 = 5;

/// The name is there.
pub const FLAG_NAMED: u16 = 1 << 0;
/// Seen on egress.
pub const FLAG_EGRESS: u16 = 1 << 1;
/// Came over TCP.
pub const FLAG_TCP: u16 = 1 << 2;
/// The frame is IPv6.
pub const FLAG_V6: u16 = 1 << 3;
/// The question has an OPT record.
pub const FLAG_EDNS: u16 = 1 << 4;
/// The question wants DNSSEC records (DO).
pub const FLAG_DNSSEC: u16 = 1 << 5;
/// The question carries a client subnet.
pub const FLAG_SUBNET: u16 = 1 << 6;
/// The answer was cut to fit (TC).
pub const FLAG_TRUNCATED: u16 = 1 << 7;
/// The answer has an HTTPS or SVCB record.
pub const FLAG_SERVICE_BINDING: u16 = 1 << 8;
/// The answer has more records than were looked at.
pub const FLAG_MORE_RECORDS: u16 = 1 << 9;
/// The connection is the daemon's own.
pub const FLAG_OWN: u16 = 1 << 10;
/// A segment of the handshake was sent again, so its round trip says little.
pub const FLAG_RETRANSMITTED: u16 = 1 << 11;

/// What every record begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Head {
    /// `KIND_…`.
    pub kind: u8,
    /// The length of the name in wire format, also when it does not follow.
    pub name_length: u8,
    /// `FLAG_…`.
    pub flags: u16,
    /// The index of the interface.
    pub interface: u32,
    /// Nanoseconds on the monotonic clock.
    pub time: u64,
    /// The name's ID.
    pub resource: u64,
    /// Who asked or is answered; IPv4 as `::ffff:a.b.c.d`.
    pub client: [u8; 16],
    /// The type asked for.
    pub qtype: u16,
    /// The class asked for.
    pub qclass: u16,
    /// The DNS message's number.
    pub message: u16,
    /// The size of answers that a question allows; zero without EDNS.
    pub edns_size: u16,
}

/// A question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct QuestionRecord {
    /// What and who.
    pub head: Head,
}

/// An answer of NOERROR or NXDOMAIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct AnswerRecord {
    /// What and who.
    pub head: Head,
    /// The least TTL in the answer section, in seconds.
    pub ttl: u32,
    /// The response code.
    pub rcode: u8,
    /// How many of `addresses` are set.
    pub addresses_held: u8,
    /// How many addresses the answer had.
    pub addresses_seen: u8,
    /// Zero.
    pub reserved: u8,
    /// The addresses in the answer's order; IPv4 as `::ffff:a.b.c.d`. What lies behind `addresses_held` means nothing.
    pub addresses: [[u8; 16]; ADDRESSES],
    /// The name, if [`FLAG_NAMED`] is set.
    pub name: NameField,
}

/// The name of a record whose [`FLAG_NAMED`] is set: lower-cased wire format, of which `name_length` bytes count and
/// the others mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NameField {
    /// The bytes.
    pub wire: [u8; 256],
}

/// A question with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NamedQuestionRecord {
    /// The question.
    pub question: QuestionRecord,
    /// Its name.
    pub name: NameField,
}

/// A connection: established, used, or over. It does not begin with a [`Head`]: it names no resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ConnectionRecord {
    /// `KIND_CONNECTED`, `KIND_CARRIED` or `KIND_CLOSED`.
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
    /// `FLAG_OWN`, `FLAG_RETRANSMITTED`.
    pub flags: u16,
    /// The port it goes to.
    pub port: u16,
    /// Zero.
    pub reserved_too: u16,
    /// Nanoseconds on the monotonic clock.
    pub time: u64,
    /// The socket's cookie (`SO_COOKIE`).
    pub socket: u64,
    /// The cookie of its network namespace (`SO_NETNS_COOKIE`).
    pub namespace: u64,
    /// Where it comes from; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Where it goes to.
    pub destination: [u8; 16],
    /// The smoothed round trip in microseconds; right after the handshake, the handshake's.
    pub round_trip: u32,
    /// Segments with data that were sent, also those that nobody acknowledged.
    pub data_segments: u32,
    /// Bytes that the other side acknowledged.
    pub sent: u64,
    /// Bytes that came from there.
    pub received: u64,
}

/// A slot of [`RECENT`]: a question that an event went out for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RecentSlot {
    /// The name's ID.
    pub resource: u64,
    /// Who asked.
    pub client: [u64; 2],
    /// When, in jiffies, cut to 32 bits.
    pub ticks: u32,
    /// Zero for A, AAAA and HTTPS, else the type.
    pub group: u16,
    /// Of A (1), AAAA (2) and HTTPS (4), which were asked for; 0x8000: any other type.
    pub types: u16,
}

const _: () = {
    assert!(size_of::<Head>() == 48);
    assert!(size_of::<QuestionRecord>() == 48);
    assert!(size_of::<AnswerRecord>() == 56 + 16 * ADDRESSES + 256);
    assert!(size_of::<NamedQuestionRecord>() == 48 + 256);
    assert!(size_of::<RecentSlot>() == 32);
    assert!(size_of::<ConnectionRecord>() == 88);
    assert!(KNOWN_ENTRIES.is_power_of_two() && RECENT_ENTRIES.is_power_of_two() && RING_BYTES.is_power_of_two());
};

/// Entry of [`COUNTERS`] for `ingress`.
pub const COUNTERS_INGRESS: u32 = 0;
/// Entry of [`COUNTERS`] for `egress`.
pub const COUNTERS_EGRESS: u32 = 1;
/// Entry of [`COUNTERS`] for `sockops`.
pub const COUNTERS_SOCKOPS: u32 = 2;
/// Entries of [`COUNTERS`].
pub const COUNTERS_ENTRIES: u32 = 3;
/// How many counters a program has.
pub const COUNTERS_LENGTH: usize = 40;

counters! {
    /// What the programs count: their work, and each reason why a frame or a message was left alone.
    pub enum Counter: COUNTERS_LENGTH;

    /// Frames that came by.
    Packets = 0, "packets";
    /// Questions read to their end.
    Questions = 1, "questions";
    /// Answers read to the end of their question.
    Answers = 2, "answers";
    /// Questions folded into an earlier event.
    Folded = 3, "folded";
    /// Records handed to the ring.
    Events = 4, "events";
    /// Of these, records with a name.
    NamedEvents = 5, "named_events";
    /// Records the ring had no room for.
    RingLost = 6, "ring_lost";
    /// Wake-ups of a sleeping reader.
    WakeUps = 7, "wake_ups";
    /// Packets with the daemon's own mark.
    Own = 8, "own";
    /// Answers with a response code other than NOERROR and NXDOMAIN.
    OtherRcode = 9, "other_rcode";
    /// Frames that are neither IPv4 nor IPv6.
    NotIp = 10, "not_ip";
    /// Frames with more than two VLAN tags.
    TooManyTags = 11, "too_many_tags";
    /// Frames that end inside a header.
    Truncated = 12, "truncated";
    /// An IP header with the wrong version or a length below its least.
    BadIpHeader = 13, "bad_ip_header";
    /// A length in a header that contradicts another.
    LyingLength = 14, "lying_length";
    /// Fragments of IPv4 or IPv6.
    Fragment = 15, "fragment";
    /// More than six IPv6 extension headers.
    TooManyExtensions = 16, "too_many_extensions";
    /// Neither UDP nor TCP; tunnels are among them.
    OtherTransport = 17, "other_transport";
    /// Neither from nor to port 53.
    OtherPort = 18, "other_port";
    /// TCP segments without payload.
    TcpEmpty = 19, "tcp_empty";
    /// TCP segments in which a message does not sit whole.
    TcpPartial = 20, "tcp_partial";
    /// TCP segments with more messages than are looked at.
    TcpMoreMessages = 21, "tcp_more_messages";
    /// Messages without a whole header.
    ShortMessage = 22, "short_message";
    /// Questions that don't go to port 53, answers that don't come from there.
    WrongDirection = 23, "wrong_direction";
    /// Opcodes other than QUERY.
    Opcode = 24, "opcode";
    /// Messages with no question, or several.
    QuestionCount = 25, "question_count";
    /// Question names with a compression pointer.
    NameCompressed = 26, "name_compressed";
    /// Question names with a label type that nobody uses (RFC 6891, 5).
    LabelType = 27, "label_type";
    /// Question names of more than 255 bytes.
    NameTooLong = 28, "name_too_long";
    /// Questions that don't end before their message does.
    NameOverrun = 29, "name_overrun";
    /// Answers whose records don't end before their message does, or whose addresses have another length.
    BadAnswer = 30, "bad_answer";
    /// Answers with more records than are looked at.
    MoreRecords = 31, "more_records";
    /// Addresses in answers for which the record had no room.
    MoreAddresses = 32, "more_addresses";
    /// Packets whose payload could not be brought into reach of the program.
    Unreachable = 33, "unreachable";
    /// Connections that programs established from this host, to another.
    Connected = 34, "connected";
    /// Connections that the daemon established.
    Dialled = 35, "dialled";
    /// Of all these, those that are over.
    Closed = 36, "closed";
    /// First segments of TCP connections to port 853: DNS over TLS (RFC 7858). Their later segments are of another port.
    EncryptedTcp = 37, "encrypted_tcp";
    /// UDP packets to port 853: DNS over QUIC (RFC 9250).
    EncryptedUdp = 38, "encrypted_udp";
}

impl Counter {
    /// Whether it says why a frame or message was left alone.
    #[must_use]
    pub const fn is_reason(self) -> bool {
        matches!(self as u8, 8..=30 | 33 | 37..=38)
    }
}
