//! Whose socket a connection on loopback comes from: the other end's cookie, by its addresses (sock_diag(7)).
//!
//! A token in an address can be guessed, and connected to before its claimer does; a socket's cookie can't be had.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Where `struct inet_diag_sockid` begins in a request, and in an answer.
const REQUEST_ID: usize = 8;
const ANSWER_ID: usize = 4;
/// Where the cookie stands in it.
const COOKIE: usize = 40;

/// Asks the kernel about connections of the namespace it was made in.
#[derive(Debug)]
pub(super) struct Identity(OwnedFd);

impl Identity {
    /// # Errors
    /// When the kernel has no sock_diag for TCP.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let diag = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
        bind(diag.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let identity = Self(diag);
        // A connection that can't be there: what is not known is said at once, what is not understood too.
        let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
        match identity.cookie(nobody, nobody) {
            Ok(_) => Ok(identity),
            Err(error) => Err(error),
        }
    }

    /// The cookie of the socket at `own` that is connected to `peer`; `None` when there is none any more.
    ///
    /// # Errors
    /// When the kernel doesn't say.
    pub(super) fn cookie(&self, own: SocketAddr, peer: SocketAddr) -> io::Result<Option<u64>> {
        // The kernel answers before `sendto` returns.
        sendto(self.0.as_raw_fd(), &request(own, peer), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 512];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        parse(&answer[..length])
    }
}

fn request(own: SocketAddr, peer: SocketAddr) -> [u8; HEADER + REQUEST] {
    let mut message = [0; HEADER + REQUEST];
    let (header, body) = message.split_at_mut(HEADER);
    header[..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    header[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    header[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    body[0] = (if own.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8;
    body[1] = IPPROTO_TCP;
    // In every state: who has closed already is known too.
    body[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    let id = &mut body[REQUEST_ID..];
    id[..2].copy_from_slice(&own.port().to_be_bytes());
    id[2..4].copy_from_slice(&peer.port().to_be_bytes());
    for (place, ip) in [(4, own.ip()), (20, peer.ip())] {
        match ip {
            IpAddr::V4(ip) => id[place..place + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => id[place..place + 16].copy_from_slice(&ip.octets()),
        }
    }
    // No cookie: any.
    id[COOKIE..COOKIE + 8].copy_from_slice(&[0xff; 8]);
    message
}

fn parse(answer: &[u8]) -> io::Result<Option<u64>> {
    let short = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(short)?;
    let body = answer.get(HEADER..).ok_or_else(short)?;
    if kind == NLMSG_ERROR {
        let code = body.first_chunk().copied().map(i32::from_ne_bytes).ok_or_else(short)?;
        return match -code {
            libc::ENOENT => Ok(None),
            // tcp_diag is not there.
            code => Err(io::Error::from_raw_os_error(code)),
        };
    }
    let cookie = body.get(ANSWER_ID + COOKIE..).and_then(<[u8]>::first_chunk::<8>).ok_or_else(short)?;
    // Two words, the lower first, whatever the order of bytes.
    let word = |at: usize| u32::from_ne_bytes([cookie[at], cookie[at + 1], cookie[at + 2], cookie[at + 3]]);
    Ok(Some(u64::from(word(0)) | u64::from(word(4)) << 32))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsFd as _,
    };

    use super::*;

    fn own_cookie(stream: &TcpStream) -> u64 {
        const SO_COOKIE: i32 = 57;
        let mut value = [0; 8];
        crate::lease::sockopt::read(stream.as_fd(), libc::SOL_SOCKET, SO_COOKIE, &mut value).unwrap();
        u64::from_ne_bytes(value)
    }

    #[test]
    fn both_families_are_told_apart_by_cookie() {
        let Ok(identity) = Identity::open() else { return };
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let found = identity.cookie(peer, server.local_addr().unwrap()).unwrap();
            assert_eq!(found, Some(own_cookie(&client)));
            assert_ne!(found, Some(own_cookie(&server)));
            // Nobody.
            assert_eq!(identity.cookie(peer, SocketAddr::new(peer.ip(), 1)).unwrap(), None);
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(parse(&[]).is_err());
        assert!(parse(&[0; 20]).is_err());
        let mut refused = [0; 20];
        refused[4] = 2;
        refused[16..].copy_from_slice(&(-libc::EOPNOTSUPP).to_ne_bytes());
        assert_eq!(parse(&refused).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
