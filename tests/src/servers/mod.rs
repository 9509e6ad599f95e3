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

use crate::netns::Namespace;

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
fn resolves(namespace: &Namespace, server: IpAddr, name: &str, record_type: u16) -> Option<()> {
    let asked = namespace.enter(|| {
        let local: SocketAddr = if server.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
        let socket = UdpSocket::bind(local)?;
        socket.set_read_timeout(Some(LOOK))?;
        socket.send_to(&question(name, record_type), (server, 53))?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        ensure!(length >= 12, "short answer");
        let (response_code, answers) = (answer[3] & 0xf, u16::from_be_bytes([answer[6], answer[7]]));
        ensure!(response_code == 0 && answers > 0, "no answer yet");
        Ok(())
    });
    asked.ok()
}

/// A question in wire format, recursion desired, no EDNS.
fn question(name: &str, record_type: u16) -> Vec<u8> {
    let mut message = vec![0x70, 0x77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap_or(63));
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(record_type.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// The type of the address records of a family.
fn address_type(address: IpAddr) -> u16 {
    if address.is_ipv4() { 1 } else { 28 }
}

#[cfg(test)]
mod tests {
    use super::question;

    #[test]
    fn a_question_ends_with_type_and_class() {
        let message = question("a.example", 28);
        assert_eq!(&message[12..], b"\x01a\x07example\x00\x00\x1c\x00\x01");
    }
}
