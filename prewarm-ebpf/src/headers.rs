//! From the Ethernet header to the DNS message: tags, addresses, extension headers, ports.

use crate::{Counter, LIMIT, Packet, be16};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// More extension headers than this are nobody's question.
const MAX_EXTENSIONS: usize = 6;
/// The DNS port.
const DNS: u16 = 53;
/// The port of DNS over TLS and over QUIC (RFC 7858, RFC 9250).
const ENCRYPTED_DNS: u16 = 853;
/// Flags of a TCP header.
const SYN: u8 = 2;
const ACK: u8 = 16;

/// The part of a frame that carries DNS: a UDP datagram or a TCP segment from or to port 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where the IP header begins.
    pub ip: usize,
    /// Whether it is IPv6.
    pub v6: bool,
    /// Whether it is TCP.
    pub tcp: bool,
    /// Bit 0: it goes to port 53; bit 1: it comes from there.
    pub ports: u8,
    /// Where the payload begins.
    pub payload: usize,
    /// Where it ends: by the lengths in the headers, and never behind the frame.
    pub end: usize,
}

impl Segment {
    /// In one word, for a function of the kernel programs.
    #[inline(always)]
    #[must_use]
    pub const fn pack(&self) -> u64 {
        let flags = self.v6 as u64 | (self.tcp as u64) << 1 | (self.ports as u64) << 2;
        self.ip as u64 | (self.payload as u64) << 16 | (self.end as u64) << 32 | flags << 48
    }

    /// Out of that word.
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            ip: word as usize & LIMIT,
            v6: word >> 48 & 1 != 0,
            tcp: word >> 49 & 1 != 0,
            ports: (word >> 50) as u8 & 3,
            payload: (word >> 16) as usize & LIMIT,
            end: (word >> 32) as usize & LIMIT,
        }
    }
}

/// Finds the DNS payload of a frame.
///
/// # Errors
/// The reason why there is none.
#[inline(always)]
pub fn locate<P: Packet>(packet: &P) -> Result<Segment, Counter> {
    let (ethertype, ip) = network(packet)?;
    let ip = packet.blur(ip);
    let (protocol, transport, end) = match ethertype {
        IPV4 => ipv4(packet, ip)?,
        IPV6 => ipv6(packet, ip)?,
        VLAN | SERVICE_VLAN => return Err(Counter::TooManyTags),
        _ => return Err(Counter::NotIp),
    };
    let transport = packet.blur(transport);
    let whole = packet.blur(if end > LIMIT { LIMIT } else { end });
    let length = packet.blur(packet.length());
    let end = packet.blur(if whole > length { length } else { whole });
    let v6 = packet.blur_flag(ethertype == IPV6);
    if protocol == UDP {
        let Some(udp) = packet.window::<8>(transport) else { return Err(Counter::Truncated) };
        let ports = dns_ports(be16(udp, 0), be16(udp, 2));
        if ports == 0 {
            return Err(if be16(udp, 2) == ENCRYPTED_DNS { Counter::EncryptedUdp } else { Counter::OtherPort });
        }
        let stop = transport + be16(udp, 4) as usize;
        if be16(udp, 4) < 8 || packet.beyond(stop, whole) {
            return Err(Counter::LyingLength);
        }
        let end = packet.blur(if packet.beyond(stop, end) { end } else { stop });
        let payload = packet.blur(transport + 8);
        return Ok(Segment { ip, v6, tcp: false, ports, payload, end });
    }
    if protocol != TCP {
        return Err(Counter::OtherTransport);
    }
    let Some(tcp) = packet.window::<20>(transport) else { return Err(Counter::Truncated) };
    let ports = dns_ports(be16(tcp, 0), be16(tcp, 2));
    if ports == 0 {
        let opens = tcp[13] & (SYN | ACK) == SYN;
        let encrypted = opens && be16(tcp, 2) == ENCRYPTED_DNS;
        return Err(if encrypted { Counter::EncryptedTcp } else { Counter::OtherPort });
    }
    let header = (tcp[12] >> 4) as usize * 4;
    if header < 20 {
        return Err(Counter::LyingLength);
    }
    let payload = packet.blur(transport + header);
    if !packet.beyond(end, payload) {
        return Err(Counter::TcpEmpty);
    }
    Ok(Segment { ip, v6, tcp: true, ports, payload, end })
}

/// [`Segment::ports`] of a source and a destination port.
#[inline(always)]
const fn dns_ports(source: u16, destination: u16) -> u8 {
    (destination == DNS) as u8 | ((source == DNS) as u8) << 1
}

/// The type behind up to two tags, and where its header begins.
#[inline(always)]
fn network<P: Packet>(packet: &P) -> Result<(u16, usize), Counter> {
    let Some(ethernet) = packet.window::<14>(0) else { return Err(Counter::Truncated) };
    let ethertype = be16(ethernet, 12);
    if !is_tag(ethertype) {
        return Ok((ethertype, 14));
    }
    let Some(tag) = packet.window::<4>(packet.blur(14)) else { return Err(Counter::Truncated) };
    let ethertype = be16(tag, 2);
    if !is_tag(ethertype) {
        return Ok((ethertype, 18));
    }
    let Some(tag) = packet.window::<4>(packet.blur(18)) else { return Err(Counter::Truncated) };
    Ok((be16(tag, 2), 22))
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == SERVICE_VLAN
}

/// Protocol, transport header, and the packet's end as the header has it.
#[inline(always)]
fn ipv4<P: Packet>(packet: &P, ip: usize) -> Result<(u8, usize, usize), Counter> {
    let Some(header) = packet.window::<20>(ip) else { return Err(Counter::Truncated) };
    let length = (header[0] & 0x0f) as usize * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(Counter::BadIpHeader);
    }
    let total = be16(header, 2) as usize;
    if total < length {
        return Err(Counter::LyingLength);
    }
    // The offset, and "more fragments"; "don't fragment" may be set.
    if be16(header, 6) & 0x3fff != 0 {
        return Err(Counter::Fragment);
    }
    Ok((header[9], ip + length, packet.blur_word((ip + total) as u64) as usize))
}

/// Protocol, transport header, and the packet's end as the header has it.
#[inline(always)]
fn ipv6<P: Packet>(packet: &P, ip: usize) -> Result<(u8, usize, usize), Counter> {
    let Some(header) = packet.window::<40>(ip) else { return Err(Counter::Truncated) };
    if header[0] >> 4 != 6 {
        return Err(Counter::BadIpHeader);
    }
    let end = packet.blur_word((ip + 40 + be16(header, 4) as usize) as u64) as usize;
    let mut next = header[6];
    let mut at = ip + 40;
    for _ in 0..MAX_EXTENSIONS {
        if next == FRAGMENT {
            return Err(Counter::Fragment);
        }
        if next != HOP_BY_HOP && next != ROUTING && next != DESTINATION_OPTIONS {
            return Ok((next, at, end));
        }
        let Some(extension) = packet.window::<2>(at) else { return Err(Counter::Truncated) };
        next = packet.blur(extension[0] as usize) as u8;
        at = packet.blur(at + 8 + extension[1] as usize * 8);
        if packet.beyond(at, end) {
            return Err(Counter::LyingLength);
        }
    }
    if next == HOP_BY_HOP || next == ROUTING || next == DESTINATION_OPTIONS || next == FRAGMENT {
        return Err(Counter::TooManyExtensions);
    }
    Ok((next, at, end))
}

/// The source or destination address in the form of IPv6, IPv4 as `::ffff:a.b.c.d`, as two words in memory order.
#[inline(always)]
#[must_use]
pub fn address<P: Packet>(packet: &P, segment: &Segment, destination: bool) -> Option<[u64; 2]> {
    if segment.v6 {
        let at = packet.blur(segment.ip + if destination { 24 } else { 8 });
        return packet.window::<16>(at).map(halves);
    }
    let at = packet.blur(segment.ip + if destination { 16 } else { 12 });
    packet.window::<4>(at).map(|bytes| mapped(*bytes))
}

/// An IPv4 address in the form of IPv6.
#[inline(always)]
pub(crate) fn mapped(bytes: [u8; 4]) -> [u64; 2] {
    let low = (u32::from_le_bytes(bytes) as u64) << 32 | 0xffff_0000;
    [0, u64::from_ne_bytes(low.to_le_bytes())]
}

/// Sixteen bytes as two words in memory order.
#[inline(always)]
pub(crate) fn halves(bytes: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// A DNS message inside a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Where the message begins, behind its length.
    pub message: usize,
    /// Where it ends, and where the next one's length begins.
    pub end: usize,
}

/// The message whose length prefix is at `at` (RFC 1035, 4.2.2).
///
/// # Errors
/// [`Counter::TcpPartial`] when it doesn't end inside the segment.
#[inline(always)]
pub fn stream_message<P: Packet>(packet: &P, segment: &Segment, at: usize) -> Result<Stream, Counter> {
    let Some(prefix) = packet.window::<2>(at) else { return Err(Counter::TcpPartial) };
    let message = at + 2;
    let end = message + be16(prefix, 0) as usize;
    if packet.beyond(end, segment.end) {
        return Err(Counter::TcpPartial);
    }
    Ok(Stream { message, end: packet.blur(end) })
}
