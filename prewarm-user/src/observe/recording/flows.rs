//! Connections in a capture: when each was begun, what its handshake took, and whom a TLS client named.
//!
//! Bounded: of more connections than are followed at once, the oldest are forgotten.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use etherparse::TcpSlice;
use rustls::server::Acceptor;

use super::words;
use crate::model::{Name, Timestamp};

/// Connections followed at once.
const FOLLOWED: usize = 1 << 16;
/// No greeting of a TLS client is longer, whatever keys it brings.
const GREETING: usize = 16 << 10;
/// The first byte of a TLS record that holds a handshake.
const HANDSHAKE: u8 = 22;

/// What a segment tells.
#[derive(Debug, PartialEq)]
pub(super) enum Happened {
    /// The server took the connection.
    Established {
        /// When the client asked for it.
        began: Timestamp,
        /// What the handshake took; unknown where the client had to ask twice.
        round_trip: Option<Duration>,
        /// The client's end.
        client: SocketAddr,
        /// The server's end.
        server: SocketAddr,
    },
    /// A TLS client named the server.
    Named {
        /// The name.
        name: Name,
        /// The client's end.
        client: SocketAddr,
        /// The server's end.
        server: SocketAddr,
    },
}

/// Connections that are beginning.
#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: HashMap<(SocketAddr, SocketAddr), Flow>,
    order: VecDeque<(SocketAddr, SocketAddr)>,
}

#[derive(Debug)]
struct Flow {
    began: Timestamp,
    again: bool,
    established: bool,
    /// The sequence number that comes next from the client.
    next: u32,
    greeting: Vec<u8>,
}

impl Flows {
    /// Looks at a segment.
    pub(super) fn segment(
        &mut self,
        at: Timestamp,
        source: SocketAddr,
        destination: SocketAddr,
        segment: &TcpSlice<'_>,
    ) -> Option<Happened> {
        let (there, back) = ((source, destination), (destination, source));
        if segment.rst() || segment.fin() {
            self.flows.remove(&there);
            self.flows.remove(&back);
            return None;
        }
        match (segment.syn(), segment.ack()) {
            (true, false) => {
                self.begin(at, there, segment.sequence_number().wrapping_add(1));
                None
            }
            (true, true) => {
                let flow = self.flows.get_mut(&back)?;
                if flow.established || segment.acknowledgment_number() != flow.next {
                    return None;
                }
                flow.established = true;
                let round_trip = (!flow.again).then(|| at.since(flow.began));
                Some(Happened::Established { began: flow.began, round_trip, client: destination, server: source })
            }
            (false, _) => self.said(there, segment),
        }
    }

    fn begin(&mut self, at: Timestamp, key: (SocketAddr, SocketAddr), next: u32) {
        if let Some(flow) = self.flows.get_mut(&key)
            && flow.next == next
        {
            flow.again = true;
            return;
        }
        while self.order.len() >= FOLLOWED {
            if let Some(oldest) = self.order.pop_front() {
                self.flows.remove(&oldest);
            }
        }
        let flow = Flow { began: at, again: false, established: false, next, greeting: Vec::new() };
        if self.flows.insert(key, flow).is_none() {
            self.order.push_back(key);
        }
    }

    /// What the client says first.
    fn said(&mut self, key: (SocketAddr, SocketAddr), segment: &TcpSlice<'_>) -> Option<Happened> {
        let payload = segment.payload();
        let flow = self.flows.get_mut(&key).filter(|flow| flow.established && !payload.is_empty())?;
        if segment.sequence_number() != flow.next {
            return None;
        }
        flow.next = flow.next.wrapping_add(payload.len() as u32);
        flow.greeting.extend_from_slice(payload);
        if flow.greeting.first() == Some(&HANDSHAKE) && flow.greeting.len() <= GREETING {
            match named(&flow.greeting) {
                // The rest of it comes with the next segment.
                Greeting::Unfinished => return None,
                Greeting::None => {}
                Greeting::To(name) => {
                    self.flows.remove(&key);
                    return Some(Happened::Named { name, client: key.0, server: key.1 });
                }
            }
        }
        self.flows.remove(&key);
        None
    }
}

enum Greeting {
    Unfinished,
    None,
    To(Name),
}

/// Whom the beginning of a TLS connection is for (RFC 6066, 3).
fn named(mut bytes: &[u8]) -> Greeting {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        if !matches!(acceptor.read_tls(&mut bytes), Ok(1..)) {
            return Greeting::None;
        }
    }
    match acceptor.accept() {
        Ok(None) => Greeting::Unfinished,
        Ok(Some(accepted)) => {
            let name = accepted.client_hello().server_name().and_then(|name| words::host(name.as_bytes()));
            name.map_or(Greeting::None, Greeting::To)
        }
        Err(_) => Greeting::None,
    }
}
