//! A connection of a program's own, for when there is no lease: to whichever address answers first.
//!
//! Comes in: addresses. Goes out: a connection, as the program would have opened it. Never here: a name, or a runtime.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::clock::now;

/// How long an attempt has to itself before the next address is tried too (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The order in which addresses are tried: the resolver's, but the families take turns, beginning with its favourite
/// (RFC 8305, section 4).
pub(crate) fn in_turn(destinations: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut destinations = destinations.into_iter().peekable();
    let first_is_v6 = destinations.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = destinations.partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return order;
        }
        order.extend(pair.into_iter().flatten());
    }
}

/// Connects as a program does that takes care of both families. `TCP_NODELAY` is set, as it is on a lease.
///
/// # Errors
/// When no address answers: what the last attempt said, or `NotFound` when there are none.
pub(crate) fn connect(destinations: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed: io::Error = io::ErrorKind::NotFound.into();
    let mut next = destinations.iter();
    let mut attempts: Vec<Socket> = Vec::new();
    let mut start_next = now();
    loop {
        if attempts.is_empty() || now() >= start_next {
            match next.next() {
                Some(destination) => {
                    match begin(*destination) {
                        Ok(socket) => attempts.push(socket),
                        Err(error) => failed = error,
                    }
                    start_next = now() + ATTEMPT_DELAY;
                    continue;
                }
                None if attempts.is_empty() => return Err(failed),
                None => {}
            }
        }
        let wait = (next.len() > 0).then(|| TimeSpec::from_duration(start_next.since(now())));
        let mut fds: Vec<_> = attempts.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLOUT)).collect();
        match ppoll(&mut fds, wait, None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let mut ended = ended.into_iter();
        let (done, waiting): (Vec<_>, _) = attempts.into_iter().partition(|_| ended.next().unwrap_or(false));
        attempts = waiting;
        for socket in done {
            match socket.take_error() {
                Ok(None) => {
                    socket.set_nonblocking(false)?;
                    return Ok(socket.into());
                }
                Ok(Some(error)) | Err(error) => failed = error,
            }
        }
    }
}

fn begin(destination: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(destination), Type::STREAM.nonblocking(), None)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&SockAddr::from(destination)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_first_that_answers_wins_and_the_last_error_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stream = connect(&[closed, here]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), here);
        assert!(stream.nodelay().unwrap());
        assert_eq!(connect(&[closed]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect(&[]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn families_take_turns() {
        let order = |addresses: &[&str]| -> Vec<String> {
            in_turn(addresses.iter().map(|text| text.parse().unwrap())).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            order(&["127.0.0.1:1", "[::1]:1", "[::2]:1", "127.0.0.2:1", "127.0.0.3:1"]),
            ["127.0.0.1:1", "[::1]:1", "127.0.0.2:1", "[::2]:1", "127.0.0.3:1"]
        );
    }
}
