//! Real servers from Debian packages, with generated configuration, inside a namespace.
//!
//! In: a namespace, addresses, what to serve, a directory for files; out: a server that has answered once, and that
//! ends when dropped.

mod authority;
mod certificates;
mod proxy;
mod resolver;
mod web;

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::ensure;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use crate::netns::Namespace;
use crate::question;

pub use authority::{Authority, Record};
pub use certificates::Certificates;
pub use proxy::ForwardProxy;
pub use resolver::{Resolver, ResolverCounts};
pub use web::{CONTENT, FarCache, Web};

/// How long one look at a server may take; the farthest server is some 100 ms away.
const LOOK: Duration = Duration::from_millis(500);

/// Whether something accepts connections there, seen from inside the namespace.
fn accepts(namespace: &Namespace, server: SocketAddr) -> Option<()> {
    namespace.enter(|| Ok(TcpStream::connect_timeout(&server, LOOK)?)).ok().map(drop)
}

/// Whether a DNS server answers this name with at least one record, seen from inside the namespace.
fn resolves(namespace: &Namespace, server: IpAddr, name: &str, record_type: RecordType) -> Option<()> {
    let asked = namespace.enter(|| {
        let local: SocketAddr = if server.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
        let socket = UdpSocket::bind(local)?;
        socket.set_read_timeout(Some(LOOK))?;
        socket.send_to(&question::of_type(name, record_type), (server, 53))?;
        let mut answer = [0; 1232];
        let length = socket.recv(&mut answer)?;
        let answer = Message::from_vec(&answer[..length])?;
        ensure!(!answer.answers.is_empty(), "no answer yet");
        Ok(())
    });
    asked.ok()
}

/// The type of the address records of a family.
fn address_type(address: IpAddr) -> RecordType {
    if address.is_ipv4() { RecordType::A } else { RecordType::AAAA }
}
