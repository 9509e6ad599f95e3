//! Makes a lease look like the socket it replaces.
//!
//! Comes in: the program's socket, the lease. Goes out: the lease with the same status flags and options. Never here:
//! a change to the program's socket. `TCP_NODELAY` stays set on the lease: without it TLS waits a round trip for an
//! acknowledgement (measured: 123 ms instead of 83 ms at 40 ms), and a program that wants no delay loses nothing.

use std::{io, os::fd::BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::lease::sockopt;

/// Which of the two buffers the program fixed (Linux 5.15): bit 0 sending, bit 1 receiving.
const SO_BUF_LOCK: libc::c_int = 72;

/// Options that mean the same on a connected socket as before the handshake. Those that the kernel or the family does
/// not have are skipped.
const OPTIONS: &[(libc::c_int, libc::c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE),
    (libc::SOL_SOCKET, libc::SO_BUSY_POLL),
    (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE),
    (libc::SOL_SOCKET, libc::SO_ZEROCOPY),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPING),
    // The type of service comes before the priority, because setting it sets the priority too.
    (libc::SOL_IP, libc::IP_TOS),
    (libc::SOL_IP, libc::IP_TTL),
    (libc::SOL_IP, libc::IP_MTU_DISCOVER),
    (libc::SOL_IP, libc::IP_RECVERR),
    (libc::SOL_IP, libc::IP_RECVTOS),
    (libc::SOL_IP, libc::IP_MINTTL),
    (libc::SOL_IPV6, libc::IPV6_TCLASS),
    (libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS),
    (libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER),
    (libc::SOL_IPV6, libc::IPV6_RECVERR),
    (libc::SOL_IPV6, libc::IPV6_RECVTCLASS),
    (libc::SOL_IPV6, libc::IPV6_MINHOPCOUNT),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_CONGESTION),
    (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    (libc::IPPROTO_TCP, libc::TCP_CORK),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
    (libc::IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS),
    (libc::IPPROTO_TCP, libc::TCP_INQ),
];

/// Why a lease could not be made alike.
#[derive(Debug, thiserror::Error)]
pub(super) enum CarryError {
    /// The program has an option that the lease would not take.
    #[error("option {name} of level {level} can't be carried over")]
    Option {
        /// `getsockopt`'s level.
        level: libc::c_int,
        /// `getsockopt`'s name.
        name: libc::c_int,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The status flags could not be read or written.
    #[error("status flags can't be carried over")]
    Flags(#[from] nix::Error),
}

/// Carries everything over.
pub(super) fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), CarryError> {
    for &(level, name) in OPTIONS {
        option(from, to, level, name).map_err(|source| CarryError::Option { level, name, source })?;
    }
    window_clamp(from, to);
    buffers(from, to);
    let flags = OFlag::from_bits_retain(fcntl(from, FcntlArg::F_GETFL)?);
    if OFlag::from_bits_retain(fcntl(to, FcntlArg::F_GETFL)?) != flags {
        fcntl(to, FcntlArg::F_SETFL(flags))?;
    }
    Ok(())
}

/// Carries one over, if it differs.
fn option(from: BorrowedFd<'_>, to: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let (mut wanted, mut found) = ([0; 16], [0; 16]);
    let Ok(length) = sockopt::read(from, level, name, &mut wanted) else { return Ok(()) };
    let Ok(_length) = sockopt::read(to, level, name, &mut found) else { return Ok(()) };
    if wanted == found { Ok(()) } else { sockopt::write(to, level, name, &wanted[..length]) }
}

/// Zero before the handshake unless the program set it, never zero after it: so it can't be compared.
fn window_clamp(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    if let Ok(clamp) = sockopt::int(from, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP)
        && clamp != 0
    {
        // The kernel rounds it; a window that could not be clamped is only faster.
        drop(sockopt::write(to, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, &clamp.to_ne_bytes()));
    }
}

/// Buffers follow the program only where it fixed them: untouched ones grow with the connection, and the lease's may
/// have grown already.
fn buffers(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    let Ok(locked) = sockopt::int(from, libc::SOL_SOCKET, SO_BUF_LOCK) else { return };
    for (bit, name, forced) in [(1, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE), (2, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE)]
    {
        if locked & bit != 0
            && let Ok(size) = sockopt::int(from, libc::SOL_SOCKET, name)
        {
            // The kernel doubles what it is told. The forced form goes beyond the system's limit, as the program may
            // have; without the privilege the plain one comes as near as it can.
            let half = (size / 2).to_ne_bytes();
            if sockopt::write(to, libc::SOL_SOCKET, forced, &half).is_err() {
                drop(sockopt::write(to, libc::SOL_SOCKET, name, &half));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsFd, time::Duration};

    use socket2::{Domain, SockRef, Socket, Type};

    use super::*;

    #[test]
    fn carries_options_and_flags() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lease = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        lease.set_tcp_nodelay(true).unwrap();
        lease.connect(&listener.local_addr().unwrap().into()).unwrap();

        let program = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        program.set_keepalive(true).unwrap();
        program.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(Duration::from_secs(99))).unwrap();
        program.set_linger(Some(Duration::from_secs(3))).unwrap();
        program.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
        program.set_recv_buffer_size(40_000).unwrap();
        program.set_tos_v4(0x10).unwrap();
        program.set_ttl_v4(33).unwrap();
        program.set_tcp_user_timeout(Some(Duration::from_secs(7))).unwrap();

        carry(program.as_fd(), lease.as_fd()).unwrap();
        let lease = SockRef::from(&lease);
        assert!(lease.keepalive().unwrap());
        assert_eq!(lease.tcp_keepalive_time().unwrap(), Duration::from_secs(99));
        assert_eq!(lease.linger().unwrap(), Some(Duration::from_secs(3)));
        assert_eq!(lease.read_timeout().unwrap(), program.read_timeout().unwrap());
        assert_eq!(lease.recv_buffer_size().unwrap(), 80_000);
        assert_eq!(lease.tos_v4().unwrap(), 0x10);
        assert_eq!(lease.ttl_v4().unwrap(), 33);
        assert_eq!(lease.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
        assert!(lease.nonblocking().unwrap());
        assert!(lease.tcp_nodelay().unwrap(), "stays as leases are");
    }

    #[test]
    fn leaves_what_nobody_touched() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lease = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let before = SockRef::from(&lease).recv_buffer_size().unwrap();
        let program = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        carry(program.as_fd(), lease.as_fd()).unwrap();
        let lease = SockRef::from(&lease);
        assert_eq!(lease.recv_buffer_size().unwrap(), before);
        assert!(!lease.keepalive().unwrap());
        assert!(!lease.nonblocking().unwrap());
    }
}
