//! Frames made by hand: DNS in any wrapping, right or wrong, without a network.
//!
//! Comes in: a [`Question`]. Goes out: the bytes of a frame. Never here: sockets, or reading a frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use prewarm_user::model::Name;

/// The flags of a DNS header that say "answer".
const ANSWER: u16 = 0x8180;

/// A question and what it travels in.
#[derive(Clone, Debug)]
pub struct Question {
    /// The name; its wire format is sent as `wire` if that is set.
    pub name: Name,
    /// Other bytes in the place of the name.
    pub wire: Option<Vec<u8>>,
    /// The type.
    pub qtype: u16,
    /// The DNS number.
    pub id: u16,
    /// Whether there is an OPT record.
    pub edns: bool,
    /// Who asks; the family decides the IP version.
    pub client: IpAddr,
    /// VLAN tags: their types, outermost first.
    pub tags: Vec<u16>,
    /// Options of IPv4, or extension headers of IPv6 as (type, body); lengths must be right.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl Question {
    /// A question for A, without EDNS, by 192.0.2.1, in plain Ethernet.
    #[must_use]
    pub fn new(name: Name) -> Self {
        Self {
            name,
            wire: None,
            qtype: 1,
            id: 0x1234,
            edns: false,
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            tags: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// The DNS message.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put16(&mut bytes, &[self.id, 0x0100, 1, 0, 0, u16::from(self.edns)]);
        bytes.extend(self.wire.as_deref().unwrap_or(self.name.as_wire()));
        put16(&mut bytes, &[self.qtype, 1]);
        if self.edns {
            bytes.push(0);
            put16(&mut bytes, &[41, 1232, 0, 0, 0]);
        }
        bytes
    }

    /// An answer to it with one address.
    #[must_use]
    pub fn answer(&self) -> Vec<u8> {
        let mut bytes = Self { edns: false, ..self.clone() }.message();
        bytes[2..4].copy_from_slice(&ANSWER.to_be_bytes());
        bytes[7] = 1;
        put16(&mut bytes, &[0xc00c, 1, 1, 0, 300, 4]);
        bytes.extend([198, 51, 100, 7]);
        bytes
    }
}

/// The frame of a question over UDP.
#[must_use]
pub fn question(question: &Question) -> Vec<u8> {
    wrap(question, 17, &udp(40_000, 53, &question.message()), false)
}

/// The frame of an answer over UDP.
#[must_use]
pub fn answer(question: &Question) -> Vec<u8> {
    wrap(question, 17, &udp(53, 40_000, &question.answer()), true)
}

/// The frame of DNS messages in one TCP segment.
#[must_use]
pub fn stream(question: &Question, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for message in messages {
        put16(&mut payload, &[u16::try_from(message.len()).unwrap_or(u16::MAX)]);
        payload.extend(message);
    }
    wrap(question, 6, &segment(53, &payload), false)
}

/// The frame of a TCP segment to some port, which is not DNS.
#[must_use]
pub fn tcp(port: u16) -> Vec<u8> {
    let Ok(name) = ".".parse() else { return Vec::new() };
    wrap(&Question::new(name), 6, &segment(port, b"some bytes of something else"), false)
}

/// A UDP datagram; the check sum is left out, which nobody here looks at.
#[must_use]
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put16(&mut bytes, &[source, destination, u16::try_from(8 + payload.len()).unwrap_or(u16::MAX), 0]);
    bytes.extend(payload);
    bytes
}

fn segment(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Ports, sequence and acknowledgement numbers; 12 bytes of options as time stamps have them.
    put16(&mut bytes, &[40_000, port, 0, 1, 0, 1, 0x8018, 512, 0, 0]);
    bytes.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
    bytes.extend(payload);
    bytes
}

/// Ethernet, tags and IP around a transport.
#[must_use]
pub fn wrap(question: &Question, protocol: u8, transport: &[u8], to_client: bool) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (number, tag) in (1..).zip(&question.tags) {
        put16(&mut bytes, &[*tag, number]);
    }
    match question.client {
        IpAddr::V4(client) => v4(&mut bytes, question, client, protocol, transport, to_client),
        IpAddr::V6(client) => v6(&mut bytes, question, client, protocol, transport, to_client),
    }
    bytes
}

fn v4(bytes: &mut Vec<u8>, question: &Question, client: Ipv4Addr, protocol: u8, transport: &[u8], to_client: bool) {
    let options: Vec<u8> = question.extensions.iter().flat_map(|(_, body)| body.clone()).collect();
    let words = u16::try_from(5 + options.len() / 4).unwrap_or(15);
    let total = u16::try_from(20 + options.len() + transport.len()).unwrap_or(u16::MAX);
    put16(bytes, &[0x0800, 0x4000 | words << 8, total, 1, 0x4000, 64 << 8 | u16::from(protocol), 0]);
    let resolver = Ipv4Addr::new(192, 0, 2, 53);
    let (from, to) = if to_client { (resolver, client) } else { (client, resolver) };
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(options);
    bytes.extend(transport);
}

fn v6(bytes: &mut Vec<u8>, question: &Question, client: Ipv6Addr, protocol: u8, transport: &[u8], to_client: bool) {
    let mut extensions = Vec::new();
    let mut kinds = question.extensions.iter().map(|(kind, _)| *kind).skip(1).chain([protocol]);
    for (_, body) in &question.extensions {
        extensions.push(kinds.next().unwrap_or(protocol));
        extensions.extend(body);
    }
    let first = question.extensions.first().map_or(protocol, |(kind, _)| *kind);
    let length = u16::try_from(extensions.len() + transport.len()).unwrap_or(u16::MAX);
    put16(bytes, &[0x86dd, 0x6000, 0, length, u16::from(first) << 8 | 64]);
    let resolver = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);
    let (from, to) = if to_client { (resolver, client) } else { (client, resolver) };
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(extensions);
    bytes.extend(transport);
}

fn put16(bytes: &mut Vec<u8>, words: &[u16]) {
    for word in words {
        bytes.extend(word.to_be_bytes());
    }
}
