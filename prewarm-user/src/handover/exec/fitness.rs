//! Whether a program's socket can be replaced without the program noticing.
//!
//! Comes in: the socket, the address. Goes out: yes, or the reason why not. Never here: a change to the socket.

use std::{net::SocketAddr, os::fd::BorrowedFd};

use super::tally::Tally;
use crate::lease::sockopt::{self, TCP_CLOSE};

/// `getsockopt(SO_GET_FILTER)` says how long the attached filter is.
const SO_GET_FILTER: libc::c_int = 26;
/// `TCP_AO_INFO` (Linux 6.7) fails where no key is set.
const TCP_AO_INFO: libc::c_int = 40;
/// What a socket that nobody told a segment size reports (RFC 9293, 3.7.1).
const DEFAULT_MSS: i32 = 536;

/// Integers that must have this value, and what it means if they don't.
const MUST_BE: &[(libc::c_int, libc::c_int, i32, Tally)] = &[
    // Not MPTCP, SCTP, SMC.
    (libc::SOL_SOCKET, libc::SO_PROTOCOL, libc::IPPROTO_TCP, Tally::Kind),
    (libc::SOL_SOCKET, libc::SO_MARK, 0, Tally::Bound),
    (libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, 0, Tally::Bound),
    // These act during the handshake, which a lease has behind it.
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 0, Tally::Option),
    (libc::IPPROTO_TCP, libc::TCP_REPAIR, 0, Tally::Option),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG, DEFAULT_MSS, Tally::Option),
];

/// What only a hit has to be asked, beyond [`check`].
const MUST_BE_ON_HIT: &[(libc::c_int, libc::c_int, i32, Tally)] =
    &[(libc::SOL_IP, libc::IP_TRANSPARENT, 0, Tally::Bound), (libc::SOL_IP, libc::IP_FREEBIND, 0, Tally::Bound)];

/// The checks that come before the daemon is asked: a question about a socket of the wrong kind would only take a lease
/// away from another program for a moment.
pub(super) fn check(socket: BorrowedFd<'_>, destination: SocketAddr) -> Result<(), Tally> {
    let address = socket2::SockRef::from(&socket).local_addr().map_err(|_no_socket| Tally::Kind)?;
    let address = address.as_socket().ok_or(Tally::Kind)?;
    if address.is_ipv4() != destination.is_ipv4() {
        return Err(Tally::Kind);
    }
    // Before the options: a connection reports values of its own for some of them. Only TCP answers, so it is a stream.
    let info = sockopt::tcp_info(socket).map_err(|_no_tcp| Tally::Kind)?;
    if info.state != TCP_CLOSE {
        return Err(Tally::State);
    }
    all(socket, MUST_BE)?;
    if address.port() == 0 && address.ip().is_unspecified() { Ok(()) } else { Err(Tally::Bound) }
}

/// The checks that are made when there is a lease.
pub(super) fn check_closely(socket: BorrowedFd<'_>) -> Result<(), Tally> {
    all(socket, MUST_BE_ON_HIT)?;
    let mut protocol = [0; 16];
    // Neither TLS nor anything else between the program and TCP, no filter, no authentication of segments.
    let layered = sockopt::read(socket, libc::IPPROTO_TCP, libc::TCP_ULP, &mut protocol).is_ok_and(|length| length > 0);
    let filtered = !matches!(sockopt::read(socket, libc::SOL_SOCKET, SO_GET_FILTER, &mut []), Ok(0));
    let signed = sockopt::read(socket, libc::IPPROTO_TCP, TCP_AO_INFO, &mut [0; 64]).is_ok();
    let routed = sockopt::read(socket, libc::SOL_IP, libc::IP_OPTIONS, &mut [0; 40]).is_ok_and(|length| length > 0);
    let status = nix::fcntl::fcntl(socket, nix::fcntl::FcntlArg::F_GETFL).map_err(|_gone| Tally::Access)?;
    // The owner that gets SIGIO belongs to the file that would be replaced.
    let signals = status & libc::O_ASYNC != 0;
    if layered || filtered || signed || routed || signals { Err(Tally::Option) } else { Ok(()) }
}

fn all(socket: BorrowedFd<'_>, wanted: &[(libc::c_int, libc::c_int, i32, Tally)]) -> Result<(), Tally> {
    for &(level, name, value, otherwise) in wanted {
        // An option that this kernel or this family does not have was not set either.
        if sockopt::int(socket, level, name).is_ok_and(|found| found != value) {
            return Err(otherwise);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;

    fn v4() -> Socket {
        Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
    }

    fn destination() -> SocketAddr {
        "192.0.2.1:443".parse().unwrap()
    }

    #[test]
    fn a_plain_socket_is_fit() {
        assert_eq!(check(v4().as_fd(), destination()), Ok(()));
        assert_eq!(check_closely(v4().as_fd()), Ok(()));
        let v6 = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        assert_eq!(check(v6.as_fd(), "[2001:db8::1]:443".parse().unwrap()), Ok(()));
        assert_eq!(check_closely(v6.as_fd()), Ok(()));
        assert_eq!(check(v6.as_fd(), destination()), Err(Tally::Kind), "family");
    }

    #[test]
    fn other_kinds_are_not() {
        let udp = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        assert_eq!(check(udp.as_fd(), destination()), Err(Tally::Kind));
        if let Ok(mptcp) = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)) {
            assert_eq!(check(mptcp.as_fd(), destination()), Err(Tally::Kind));
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(check(file.as_fd(), destination()), Err(Tally::Kind));
        let (unix, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(check(unix.as_fd(), destination()), Err(Tally::Kind));
    }

    #[test]
    fn bound_connected_and_listening_are_not() {
        let bound = v4();
        bound.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        assert_eq!(check(bound.as_fd(), destination()), Err(Tally::Bound));
        bound.listen(1).unwrap();
        assert_eq!(check(bound.as_fd(), destination()), Err(Tally::State));
        let connected = v4();
        connected.connect(&bound.local_addr().unwrap()).unwrap();
        assert_eq!(check(connected.as_fd(), destination()), Err(Tally::State));
    }

    #[test]
    fn options_of_the_handshake_are_not() {
        let segment = v4();
        segment.set_tcp_mss(1000).unwrap();
        assert_eq!(check(segment.as_fd(), destination()), Err(Tally::Option));
        let fast = v4();
        let on = 1_i32.to_ne_bytes();
        sockopt::write(fast.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &on).unwrap();
        assert_eq!(check(fast.as_fd(), destination()), Err(Tally::Option));
        let marked = v4();
        if marked.set_mark(7).is_ok() {
            assert_eq!(check(marked.as_fd(), destination()), Err(Tally::Bound));
        }
        let filtered = v4();
        filtered.attach_filter(&[socket2::SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 65535)]).unwrap();
        assert_eq!(check_closely(filtered.as_fd()), Err(Tally::Option));
    }
}
