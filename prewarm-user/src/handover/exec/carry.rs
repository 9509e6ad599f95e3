//! Makes a lease look like the socket it replaces.
//!
//! Comes in: the program's socket, the lease. Goes out: the lease with the same status flags and options. Never here:
//! a change to the program's socket. `TCP_NODELAY` stays set on the lease: without it TLS waits a round trip for an
//! acknowledgement (measured: 123 ms instead of 83 ms at 40 ms), and a program that wants no delay loses nothing.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

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

/// Those of an IPv4 socket. They come first, because the type of service sets the priority too.
const OPTIONS_V4: &[(libc::c_int, libc::c_int)] = &[
    (libc::SOL_IP, libc::IP_TOS),
    (libc::SOL_IP, libc::IP_TTL),
    (libc::SOL_IP, libc::IP_MTU_DISCOVER),
    (libc::SOL_IP, libc::IP_RECVERR),
    (libc::SOL_IP, libc::IP_RECVTOS),
    (libc::SOL_IP, libc::IP_MINTTL),
];

/// Those of an IPv6 socket.
const OPTIONS_V6: &[(libc::c_int, libc::c_int)] = &[
    (libc::SOL_IPV6, libc::IPV6_TCLASS),
    (libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS),
    (libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER),
    (libc::SOL_IPV6, libc::IPV6_RECVERR),
    (libc::SOL_IPV6, libc::IPV6_RECVTCLASS),
    (libc::SOL_IPV6, libc::IPV6_MINHOPCOUNT),
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

/// What a program's socket is like.
#[derive(Debug)]
pub(super) struct Options {
    v4: bool,
    values: Vec<Value>,
    /// Zero before the handshake unless the program set it, never zero after it: so it can't be compared.
    window_clamp: i32,
    /// The buffers that the program fixed, as their plain and their privileged option, with their size.
    buffers: Vec<(libc::c_int, libc::c_int, i32)>,
    flags: OFlag,
}

/// One option and its value, with the length the kernel gave it.
#[derive(Clone, Copy, Debug)]
struct Value {
    level: libc::c_int,
    name: libc::c_int,
    bytes: [u8; 16],
    length: usize,
}

impl Value {
    fn of(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> Option<Self> {
        let mut bytes = [0; 16];
        let length = sockopt::read(socket, level, name, &mut bytes).ok()?;
        Some(Self { level, name, bytes, length })
    }

    /// All that a socket of this family has. Two sockets of one family have the same options in the same order.
    fn all(socket: BorrowedFd<'_>, v4: bool) -> Vec<Self> {
        let family = if v4 { OPTIONS_V4 } else { OPTIONS_V6 };
        family.iter().chain(OPTIONS).filter_map(|&(level, name)| Self::of(socket, level, name)).collect()
    }
}

/// Options that the daemon's dialler sets, or that a handshake changes: what a lease has of them is read from it.
const DIALLED: &[(libc::c_int, libc::c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
];

/// What sockets are like that nobody has touched. A lease is such a socket apart from [`DIALLED`], so one of each family
/// is read beforehand and stands for all leases: that halves the system calls of a hand-over.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    v4: Vec<Value>,
    v6: Vec<Value>,
}

impl Baseline {
    /// Reads it. What can't be read counts as changed in each program's socket.
    pub(super) fn read() -> Self {
        let of = |domain, v4| {
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None);
            socket.map(|socket| Value::all(socket.as_fd(), v4)).unwrap_or_default()
        };
        Self { v4: of(socket2::Domain::IPV4, true), v6: of(socket2::Domain::IPV6, false) }
    }

    /// Whether a lease has this value already.
    fn has(&self, lease: BorrowedFd<'_>, v4: bool, value: &Value) -> bool {
        let same = |found: &Value| (found.level, found.name) == (value.level, value.name);
        if DIALLED.contains(&(value.level, value.name)) {
            return Value::of(lease, value.level, value.name).is_some_and(|found| found.bytes == value.bytes);
        }
        let untouched = if v4 { &self.v4 } else { &self.v6 };
        untouched.iter().find(|found| same(found)).is_some_and(|found| found.bytes == value.bytes)
    }
}

impl Options {
    /// Reads them from the program's socket.
    pub(super) fn of(socket: BorrowedFd<'_>, v4: bool) -> nix::Result<Self> {
        let int = |level, name| sockopt::int(socket, level, name).unwrap_or(0);
        // Buffers follow the program only where it fixed them: untouched ones grow with the connection, and the
        // lease's may have grown already.
        let locked = int(libc::SOL_SOCKET, SO_BUF_LOCK);
        let buffers = [(1, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE), (2, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE)];
        Ok(Self {
            v4,
            values: Value::all(socket, v4),
            window_clamp: int(libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
            buffers: buffers
                .into_iter()
                .filter(|(bit, ..)| locked & bit != 0)
                .map(|(_, plain, forced)| (plain, forced, int(libc::SOL_SOCKET, plain)))
                .collect(),
            flags: OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?),
        })
    }

    /// Gives them to a lease that nobody has had yet, where they differ.
    pub(super) fn grant(&self, lease: BorrowedFd<'_>, baseline: &Baseline) -> Result<(), CarryError> {
        for value in &self.values {
            let &Value { level, name, bytes, length } = value;
            if !baseline.has(lease, self.v4, value) {
                sockopt::write(lease, level, name, &bytes[..length]).map_err(|source| CarryError::Option {
                    level,
                    name,
                    source,
                })?;
            }
        }
        if self.window_clamp != 0 {
            // The kernel rounds it; a window that could not be clamped is only faster.
            drop(sockopt::write(lease, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, &self.window_clamp.to_ne_bytes()));
        }
        for &(plain, forced, size) in &self.buffers {
            // The kernel doubles what it is told. The forced form goes beyond the system's limit, as the program may
            // have; without the privilege the plain one comes as near as it can.
            let half = (size / 2).to_ne_bytes();
            if sockopt::write(lease, libc::SOL_SOCKET, forced, &half).is_err() {
                drop(sockopt::write(lease, libc::SOL_SOCKET, plain, &half));
            }
        }
        if OFlag::from_bits_retain(fcntl(lease, FcntlArg::F_GETFL)?) != self.flags {
            fcntl(lease, FcntlArg::F_SETFL(self.flags))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, time::Duration};

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

        Options::of(program.as_fd(), true).unwrap().grant(lease.as_fd(), &Baseline::read()).unwrap();
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
        Options::of(program.as_fd(), true).unwrap().grant(lease.as_fd(), &Baseline::read()).unwrap();
        let lease = SockRef::from(&lease);
        assert_eq!(lease.recv_buffer_size().unwrap(), before);
        assert!(!lease.keepalive().unwrap());
        assert!(!lease.nonblocking().unwrap());
    }
}
