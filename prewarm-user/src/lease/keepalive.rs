//! Probes that keep a waiting connection known to what lies in between, and tell when nobody is there any more.
//!
//! Comes in: a connection that begins to wait, or leaves. Goes out: the same with other options. Never here: an option of
//! ours on a connection that a program has. With probes of ours a program would lose its connection in an outage that it
//! would have sat out, and `TCP_USER_TIMEOUT` would end one whose data goes unacknowledged for longer, which a cold one
//! survives for a quarter of an hour: what is harmless while nobody has sent anything is not harmless later. A proxy path
//! that finds its origin dead replays instead.

use std::{io, os::fd::BorrowedFd, time::Duration};

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

/// The first probe, and the pause between probes: shorter than the idle times of common NATs.
const PROBE: Duration = Duration::from_secs(15);
/// Two probes without an answer: the connection is over, and the pool hears of it.
const GIVEN_UP: Duration = Duration::from_secs(40);

/// Watches over a connection that is going to wait for long.
pub(crate) fn watch(connection: BorrowedFd<'_>) -> io::Result<()> {
    let connection = SockRef::from(&connection);
    connection.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE).with_interval(PROBE))?;
    connection.set_tcp_user_timeout(Some(GIVEN_UP))
}

/// Makes it as a fresh one would be, for a program.
pub(crate) fn unwatch(connection: BorrowedFd<'_>) -> io::Result<()> {
    let connection = SockRef::from(&connection);
    if !connection.keepalive()? {
        return Ok(());
    }
    connection.set_keepalive(false)?;
    connection.set_tcp_user_timeout(None)?;
    // A program that switches probes on later shall have those of its host.
    let fresh = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let usual =
        TcpKeepalive::new().with_time(fresh.tcp_keepalive_time()?).with_interval(fresh.tcp_keepalive_interval()?);
    connection.set_tcp_keepalive(&usual)?;
    // The call above switches them on.
    connection.set_keepalive(false)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_program_gets_a_plain_socket() {
        let fresh = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let lease = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        unwatch(lease.as_fd()).unwrap();
        watch(lease.as_fd()).unwrap();
        assert!(lease.keepalive().unwrap());
        assert_eq!((lease.tcp_keepalive_time().unwrap(), lease.tcp_keepalive_interval().unwrap()), (PROBE, PROBE));
        assert_eq!(lease.tcp_user_timeout().unwrap(), Some(GIVEN_UP));
        unwatch(lease.as_fd()).unwrap();
        let options = |socket: &Socket| {
            let probes = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
            (socket.keepalive().unwrap(), probes, socket.tcp_user_timeout().unwrap())
        };
        assert_eq!(options(&lease), options(&fresh));
    }
}
