//! dnstap: what a DNS server writes down of its own traffic, also of what reaches it encrypted (dnstap.info).
//!
//! Comes in: payloads, from a file or from a socket that a server writes to ([`Frames`]). Goes out: [`Event`]s: who
//! asked for what, and what the answer was. Never here: a server's own questions to others, which would make two
//! accesses of one.
//!
//! | types | who asks | taken |
//! | --- | --- | --- |
//! | `CLIENT_…` | a client of a resolver or forwarder | yes |
//! | `AUTH_…` | whoever asks an authoritative server | yes |
//! | `STUB_…` | a program on the host of the stub that wrote it | yes |
//! | `RESOLVER_…`, `FORWARDER_…` | the server itself, for a client that was written down | no, counted as upstream |
//! | `TOOL_…`, `UPDATE_…` | somebody testing; somebody changing a zone | no, counted as other |

mod file;
mod frames;
mod proto;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use prost::Message as _;

pub use file::{DnstapError, DnstapFile};
pub use frames::{CONTENT_TYPE, FrameError, Frames, Item, LONGEST};

use super::message::{Message, MessageError};
use crate::model::{Direction, Name, Observation, ResourceId, Timestamp};

/// A message that a client sent or was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who asked, where the server says it.
    pub client: Option<IpAddr>,
    /// From which port, where the server says it.
    pub port: Option<u16>,
    /// When the question came, since 1970, where the server says it.
    pub asked: Option<Duration>,
    /// When the answer left, since 1970, where the server says it; only answers have it.
    pub answered: Option<Duration>,
    /// Whether it was encrypted on the way (DoT, DoH, DoQ, DNSCrypt), so that nobody else saw it.
    pub encrypted: bool,
    /// What wrote it.
    pub writer: Writer,
    /// The message: an answer, if it has one.
    pub message: Message,
}

/// What a message was written down by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A resolver or forwarder: it may ask others for its clients.
    Resolver,
    /// An authoritative server.
    Authority,
    /// A stub resolver: the client is a program on its host.
    Stub,
}

/// Why a payload is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// It is no dnstap at all.
    #[error("not a dnstap payload")]
    Garbled,
    /// The server asks another one.
    #[error("a server's own question, or the answer to it")]
    Upstream,
    /// It is of a type that no client has part in.
    #[error("of another type than clients' questions and answers")]
    Other,
    /// The DNS message in it says nothing here.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// What the types stand for.
enum Role {
    Query(Writer),
    Response(Writer),
    Upstream,
    Other,
}

impl Role {
    const fn of(kind: i32) -> Self {
        match kind {
            1 => Self::Query(Writer::Authority),
            2 => Self::Response(Writer::Authority),
            5 => Self::Query(Writer::Resolver),
            6 => Self::Response(Writer::Resolver),
            9 => Self::Query(Writer::Stub),
            10 => Self::Response(Writer::Stub),
            3 | 4 | 7 | 8 => Self::Upstream,
            _ => Self::Other,
        }
    }
}

impl Event {
    /// Reads a payload.
    ///
    /// # Errors
    /// When it is none, or nothing that a client has part in.
    pub fn read(payload: &[u8]) -> Result<Self, Skipped> {
        let outer = proto::Dnstap::decode(payload).map_err(|_| Skipped::Garbled)?;
        let (Some(1), Some(inner)) = (outer.kind, outer.message) else { return Err(Skipped::Garbled) };
        let (writer, bytes, responded) = match Role::of(inner.kind.ok_or(Skipped::Garbled)?) {
            Role::Upstream => return Err(Skipped::Upstream),
            Role::Other => return Err(Skipped::Other),
            Role::Query(writer) => (writer, inner.query, false),
            Role::Response(writer) => (writer, inner.response, true),
        };
        let message = Message::read(&bytes.ok_or(Skipped::Garbled)?)?;
        if message.answer.is_some() != responded {
            return Err(Skipped::Message(MessageError::Broken));
        }
        Ok(Self {
            client: inner.query_address.as_deref().and_then(address),
            port: inner.query_port.and_then(|port| u16::try_from(port).ok()),
            asked: time(inner.query_seconds, inner.query_nanoseconds),
            answered: time(inner.response_seconds, inner.response_nanoseconds).filter(|_| responded),
            encrypted: inner.protocol.is_some_and(|protocol| protocol >= 3),
            writer,
            message,
        })
    }

    /// When this happened, since 1970, if the server says it.
    #[must_use]
    pub fn time(&self) -> Option<Duration> {
        self.answered.or(self.asked)
    }

    /// The question, asked at `at` by `client`. An answer repeats its question: of servers that write down answers
    /// alone it tells the access too.
    #[must_use]
    pub fn question(&self, at: Timestamp, client: IpAddr, identify: impl Fn(&Name) -> ResourceId) -> Observation {
        let direction = if self.writer == Writer::Stub { Direction::Egress } else { Direction::Ingress };
        Observation { at, client, seen: self.message.question(identify(&self.message.name), direction) }
    }

    /// The answer, given at `at`; none for questions and for answers that say nothing of the name.
    #[must_use]
    pub fn answer(&self, at: Timestamp, client: IpAddr, identify: impl Fn(&Name) -> ResourceId) -> Option<Observation> {
        let seen = self.message.answer(identify(&self.message.name))?;
        Some(Observation { at, client, seen })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(four)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|six| IpAddr::V6(Ipv6Addr::from(six)).to_canonical())
}

fn time(seconds: Option<u64>, nanoseconds: Option<u32>) -> Option<Duration> {
    let nanoseconds = nanoseconds.unwrap_or(0).min(999_999_999);
    // What lies beyond the year 9999 is none.
    seconds.filter(|&seconds| seconds > 0 && seconds < 253_402_300_800).map(|s| Duration::new(s, nanoseconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Seen;

    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01";
    const RESPONSE: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01\
                              \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";

    fn written(kind: i32, query: Option<&[u8]>, response: Option<&[u8]>) -> Vec<u8> {
        let message = proto::Message {
            kind: Some(kind),
            protocol: Some(3),
            query_address: Some(vec![192, 0, 2, 1]),
            query_port: Some(40_000),
            query_seconds: Some(1_700_000_000),
            query_nanoseconds: Some(5),
            query: query.map(<[u8]>::to_vec),
            response_seconds: Some(1_700_000_001),
            response_nanoseconds: None,
            response: response.map(<[u8]>::to_vec),
        };
        proto::Dnstap { message: Some(message), kind: Some(1) }.encode_to_vec()
    }

    #[test]
    fn clients_are_told_from_upstreams() {
        for kind in [1, 5, 9] {
            let event = Event::read(&written(kind, Some(QUERY), None)).unwrap();
            assert_eq!(event.client, Some("192.0.2.1".parse().unwrap()));
            assert_eq!(event.time(), Some(Duration::new(1_700_000_000, 5)));
            assert!(event.encrypted && (event.writer == Writer::Stub) == (kind == 9));
            assert_eq!(event.message.name.to_string(), "www.example.org");
        }
        for kind in [2, 6, 10] {
            // Some servers repeat the question beside the answer.
            let event = Event::read(&written(kind, Some(QUERY), Some(RESPONSE))).unwrap();
            assert_eq!(event.time(), Some(Duration::from_secs(1_700_000_001)));
            let client = event.client.unwrap();
            let answer = event.answer(Timestamp::ZERO, client, |_| ResourceId(9)).unwrap();
            assert!(matches!(&answer.seen, Seen::Answer { addresses, .. } if addresses.len() == 1));
            let question = event.question(Timestamp::ZERO, client, |_| ResourceId(9));
            assert!(matches!(question.seen, Seen::Question { resource: ResourceId(9), qtype: 1, .. }));
        }
        for kind in [3, 4, 7, 8] {
            assert_eq!(Event::read(&written(kind, Some(QUERY), Some(RESPONSE))), Err(Skipped::Upstream));
        }
        for kind in [11, 12, 13, 14, 99, -1] {
            assert_eq!(Event::read(&written(kind, Some(QUERY), Some(RESPONSE))), Err(Skipped::Other));
        }
    }

    #[test]
    fn what_is_none_is_told() {
        assert_eq!(Event::read(b""), Err(Skipped::Garbled));
        assert_eq!(Event::read(b"\xff\xff\xff"), Err(Skipped::Garbled));
        assert_eq!(Event::read(&written(5, None, Some(RESPONSE))), Err(Skipped::Garbled));
        let broken = Err(Skipped::Message(MessageError::Broken));
        assert_eq!(Event::read(&written(5, Some(RESPONSE), None)), broken, "an answer where a question should be");
        assert_eq!(Event::read(&written(6, None, Some(&RESPONSE[..40]))), broken);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _outcome = Event::read(&bytes);
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0..200_usize, byte in any::<u8>(), kind in 1..11) {
            let mut bytes = written(kind, Some(QUERY), Some(RESPONSE));
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            if let Ok(event) = Event::read(&bytes) {
                let client = event.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                let _seen = event.answer(Timestamp::ZERO, client, |_| ResourceId(0));
            }
        }
    }
}
