//! The fields of dnstap.proto (dnstap.info, version of 2023) that are read here; prost passes over the others.

/// The outermost message: one event.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Dnstap {
    #[prost(message, optional, tag = "14")]
    pub(super) message: Option<Message>,
    /// 1: `message` is there. There is no other type.
    #[prost(int32, optional, tag = "15")]
    pub(super) kind: Option<i32>,
}

/// A DNS message and where it went.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    /// Who wrote it down, and which way it went: see [`super::Role`].
    #[prost(int32, optional, tag = "1")]
    pub(super) kind: Option<i32>,
    /// 1: UDP, 2: TCP, 3: DoT, 4: DoH, 5 and 6: DNSCrypt, 7: DoQ.
    #[prost(int32, optional, tag = "3")]
    pub(super) protocol: Option<i32>,
    /// Who asked, 4 or 16 bytes.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(super) query_address: Option<Vec<u8>>,
    /// From which port.
    #[prost(uint32, optional, tag = "6")]
    pub(super) query_port: Option<u32>,
    #[prost(uint64, optional, tag = "8")]
    pub(super) query_seconds: Option<u64>,
    #[prost(fixed32, optional, tag = "9")]
    pub(super) query_nanoseconds: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "10")]
    pub(super) query: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "12")]
    pub(super) response_seconds: Option<u64>,
    #[prost(fixed32, optional, tag = "13")]
    pub(super) response_nanoseconds: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "14")]
    pub(super) response: Option<Vec<u8>>,
}
