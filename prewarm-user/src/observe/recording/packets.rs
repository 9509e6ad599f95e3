//! Captures: DNS over UDP and TCP by the parser that the kernel programs run, connections, and names of TLS servers.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use prewarm_ebpf::{Addresses, Counter, Segment, address, header, locate, read, records, scan, stream_message};

use super::{
    LeftOut, Reader, Reason, RecordingError, Shows,
    flows::{Flows, Happened},
    input::Input,
    words::Observer,
};
use crate::{
    kernel::Key,
    model::{Connection, Name, Observation, Phase, Seen, Timestamp},
    observe::{Capture, CaptureError, ETHERNET, capture::COMPRESSED},
};

/// Link types of packets behind another header than Ethernet's, or none (`LINKTYPE_…`).
const NULL: u16 = 0;
const RAW_BSD: [u16; 2] = [12, 14];
const RAW: u16 = 101;
const LOOP: u16 = 108;
const COOKED: u16 = 113;
const IPV4: u16 = 228;
const IPV6: u16 = 229;
const COOKED_2: u16 = 276;
/// DNS messages of one segment that are looked at.
const MESSAGES: usize = 64;
/// Where resolvers are asked, over TCP and TLS: no access of a program's.
const RESOLVERS: [u16; 2] = [53, 853];
const IN: u16 = 1;

/// A capture being read.
pub(super) struct Packets {
    capture: Capture,
    frame: Vec<u8>,
    inside: Inside,
    ended: bool,
}

/// What is found in frames.
struct Inside {
    key: Key,
    observer: Observer,
    flows: Flows,
    ready: VecDeque<Observation>,
    left_out: LeftOut,
    connections: u64,
}

impl Packets {
    pub(super) fn new(input: Input, key: Key) -> Result<Self, RecordingError> {
        let path = input.path.clone();
        let capture = Capture::read(&path, Box::new(input.into_read())).map_err(failure)?;
        let inside = Inside {
            observer: Observer::new(key.clone()),
            key,
            flows: Flows::default(),
            ready: VecDeque::new(),
            left_out: LeftOut::default(),
            connections: 0,
        };
        Ok(Self { capture, frame: Vec::new(), inside, ended: false })
    }
}

/// What is wrong with the capture, in the words of recordings.
fn failure(error: CaptureError) -> RecordingError {
    match error {
        CaptureError::Read { path, source } => Input::failure(&path, source),
        CaptureError::Format { path } => {
            RecordingError::Format { path, looks: "it begins like a capture, and isn't one" }
        }
        CaptureError::Broken { path, frames, what } => RecordingError::Broken {
            path,
            place: format!("behind frame {frames}"),
            what: what.to_owned(),
            hint: "fetch the file again, or unpack what is good of it: zcat FILE > PART",
        },
    }
}

impl Reader for Packets {
    fn next(&mut self) -> Result<Option<Observation>, RecordingError> {
        loop {
            if let Some(observation) = self.inside.ready.pop_front() {
                return Ok(Some(observation));
            }
            if self.ended {
                return Ok(None);
            }
            match self.capture.next_frame() {
                Ok(Some(frame)) => {
                    let at = Timestamp::from_origin(frame.time);
                    let number = frame.number;
                    let taken = ethernet(frame.link_type, frame.bytes, &mut self.frame)
                        .ok_or(Reason::LinkType)
                        .and_then(|bytes| self.inside.frame(at, bytes, number));
                    if let Err(reason) = taken {
                        self.inside.left_out.add(reason, number);
                    }
                }
                Ok(None) => self.ended = true,
                // A capture that was cut, as by a full disk, is good up to there.
                Err(CaptureError::Broken { frames, what, .. }) if what != COMPRESSED => {
                    self.ended = true;
                    self.inside.left_out.add(Reason::Cut, frames + 1);
                }
                Err(error) => return Err(failure(error)),
            }
        }
    }

    fn left_out(&self) -> &LeftOut {
        &self.inside.left_out
    }

    fn shows(&self) -> Shows {
        Shows { answers: true, ttls: true, connections: true }
    }
}

/// The frame as Ethernet has it.
fn ethernet<'a>(link_type: u16, bytes: &'a [u8], made: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let by_version = |packet: &[u8]| match packet.first().map(|first| first >> 4) {
        Some(4) => [0x08, 0x00],
        Some(6) => [0x86, 0xdd],
        _ => [0, 0],
    };
    let (kind, packet) = match link_type {
        ETHERNET => return Some(bytes),
        RAW | IPV4 | IPV6 => (by_version(bytes), bytes),
        raw if RAW_BSD.contains(&raw) => (by_version(bytes), bytes),
        NULL | LOOP => {
            let packet = bytes.get(4..)?;
            (by_version(packet), packet)
        }
        COOKED => (*bytes.get(14..)?.first_chunk::<2>()?, bytes.get(16..)?),
        COOKED_2 => (*bytes.first_chunk::<2>()?, bytes.get(20..)?),
        _ => return None,
    };
    made.clear();
    made.extend_from_slice(&[0; 12]);
    made.extend_from_slice(&kind);
    made.extend_from_slice(packet);
    Some(made)
}

/// The addresses of an answer.
struct Held(Vec<IpAddr>);

impl Addresses for Held {
    fn put(&mut self, _index: usize, address: [u64; 2]) {
        self.0.push(canonical(address));
    }
}

/// An address of the parser's: IPv4 comes as `::ffff:a.b.c.d`.
fn canonical([first, second]: [u64; 2]) -> IpAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&first.to_ne_bytes());
    octets[8..].copy_from_slice(&second.to_ne_bytes());
    Ipv6Addr::from(octets).to_canonical()
}

impl Inside {
    fn frame(&mut self, at: Timestamp, bytes: &[u8], number: u64) -> Result<(), Reason> {
        let segment = match locate(&bytes) {
            Ok(segment) => segment,
            Err(Counter::OtherPort) => {
                self.stream(at, bytes);
                return Ok(());
            }
            Err(Counter::Fragment) => return Err(Reason::Part),
            Err(Counter::TooManyTags | Counter::TooManyExtensions) => return Err(Reason::Broken),
            // Of no concern, or cut by whoever captured it.
            Err(_) => return Ok(()),
        };
        if !segment.tcp {
            return self.message(at, bytes, &segment, segment.payload, segment.end);
        }
        let mut place = segment.payload;
        for _ in 0..MESSAGES {
            if place >= segment.end {
                break;
            }
            let stream = stream_message(&bytes, &segment, place).map_err(|_| Reason::Part)?;
            if let Err(reason) = self.message(at, bytes, &segment, stream.message, stream.end) {
                self.left_out.add(reason, number);
            }
            place = stream.end;
        }
        Ok(())
    }

    /// A DNS message.
    fn message(
        &mut self,
        at: Timestamp,
        bytes: &[u8],
        segment: &Segment,
        start: usize,
        end: usize,
    ) -> Result<(), Reason> {
        let header = header(&bytes, segment, start, end).map_err(|_| Reason::Broken)?;
        let ip = |destination| address(&bytes, segment, destination).map(canonical).ok_or(Reason::Broken);
        let key = self.key.words();
        let question = read(&bytes, start + 12, end, key, scan(&bytes, start + 12, key)).map_err(|_| Reason::Broken)?;
        if question.qclass != IN {
            return Err(Reason::OtherClass);
        }
        let wire = bytes.get(question.name..question.name + question.length).ok_or(Reason::Broken)?;
        let name = Name::from_wire(wire).map_err(|_| Reason::Broken)?;
        if !header.is_answer() {
            let question = self.observer.question(at, ip(false)?, Some(ip(true)?), &name, question.qtype);
            self.ready.push_back(question);
            return Ok(());
        }
        let mut held = Held(Vec::new());
        let outline = records(&bytes, question.records, end, header.answers, &mut held).map_err(|_| Reason::Broken)?;
        let (kind, ttl) = ((question.qtype, header.rcode()), Duration::from_secs(outline.ttl.into()));
        let answer = self.observer.answer(at, ip(true)?, &name, kind, ttl, held.0);
        self.ready.push_back(answer);
        Ok(())
    }

    /// A segment of a connection that is not DNS.
    fn stream(&mut self, at: Timestamp, bytes: &[u8]) {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(bytes) else { return };
        let Some(TransportSlice::Tcp(segment)) = &packet.transport else { return };
        let (source, destination) = match &packet.net {
            Some(LaxNetSlice::Ipv4(packet)) => {
                let header = packet.header();
                (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()))
            }
            Some(LaxNetSlice::Ipv6(packet)) => {
                let header = packet.header();
                (IpAddr::V6(header.source_addr()), IpAddr::V6(header.destination_addr()))
            }
            _ => return,
        };
        let source = SocketAddr::new(source, segment.source_port());
        let destination = SocketAddr::new(destination, segment.destination_port());
        if [source, destination].iter().any(|end| RESOLVERS.contains(&end.port())) {
            return;
        }
        match self.flows.segment(at, source, destination, segment) {
            Some(Happened::Established { began, round_trip, client, server }) => {
                self.connections += 1;
                let connection = Connection {
                    socket: self.connections,
                    namespace: 0,
                    destination: server,
                    phase: Phase::Established { round_trip, own: false },
                };
                let seen = Seen::Connection(connection);
                self.ready.push_back(Observation { at: began, client: client.ip(), seen });
            }
            Some(Happened::Named { name, client, server }) => {
                self.ready.push_back(self.observer.named(at, client.ip(), &name, server.port()));
            }
            None => {}
        }
    }
}
