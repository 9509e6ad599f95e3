//! Opening one connection to the first address that answers.
//!
//! Comes in: addresses in order, a guard. Goes out: an established connection and how long its handshake took, or why
//! there is none. Never here: a connection to an address that the guard has not seen.

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpSocket,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{keepalive, sockopt};

/// Says whether a connection to there may be opened, or why not. It is asked about the address, just before the
/// connection: a name may have changed its addresses since it was judged.
pub type Guard = Arc<dyn Fn(IpAddr, u16) -> Result<(), String> + Send + Sync>;

/// A connection that was just established.
#[derive(Debug)]
pub struct Dialled {
    /// The connection; in blocking mode, registered nowhere.
    pub socket: OwnedFd,
    /// What the handshake took: what a program saves that gets it.
    pub rtt: Duration,
}

/// What [`Dialer::dial`] returns.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send + 'a>>;

/// Opens connections.
pub trait Dialer: Send + Sync {
    /// Opens one.
    fn dial(&self, destination: SocketAddr) -> Dialling<'_>;
}

/// Opens TCP connections from the network namespace of the daemon.
#[derive(Clone, Debug, Default)]
pub struct TcpDialer {
    /// Set where leases live long enough for a firewall in between to forget them.
    pub keepalive: bool,
    /// Is told of each socket before it connects.
    pub announce: Announce,
}

/// Tells somebody of sockets that the daemon is about to connect itself, so that they are not taken for a program's.
#[derive(Clone, Default)]
pub struct Announce(Option<Arc<Tell>>);

type Tell = dyn Fn(BorrowedFd<'_>) + Send + Sync;

impl Announce {
    /// Calls this, which must not block.
    #[must_use]
    pub fn new(tell: impl Fn(BorrowedFd<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    /// Tells of a socket that is not connected yet.
    pub fn socket(&self, socket: BorrowedFd<'_>) {
        if let Some(tell) = &self.0 {
            tell(socket);
        }
    }
}

impl fmt::Debug for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Announce({})", self.0.is_some())
    }
}

impl Dialer for TcpDialer {
    fn dial(&self, destination: SocketAddr) -> Dialling<'_> {
        Box::pin(async move {
            let socket = if destination.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // Without this a TLS client on the lease waits a round trip for an acknowledgement.
            socket.set_nodelay(true)?;
            if self.keepalive {
                keepalive::watch(socket.as_fd())?;
            }
            self.announce.socket(socket.as_fd());
            let begun = Instant::now();
            let stream = socket.connect(destination).await?;
            let waited = begun.elapsed();
            // A connect that did not block leaves the socket "connecting" until it is asked again; a program that asks
            // whether its leased socket is connected shall hear the truth.
            socket2::SockRef::from(&stream).connect(&destination.into())?;
            // Out of the runtime's poll set before it goes anywhere else.
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            let socket = OwnedFd::from(stream);
            let measured = sockopt::tcp_info(socket.as_fd())?.rtt_us;
            let rtt = if measured == 0 { waited } else { Duration::from_micros(measured.into()) };
            Ok(Dialled { socket, rtt })
        })
    }
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Pacing {
    /// After this the next address is tried too.
    pub attempt_delay: Duration,
    /// After this an attempt has failed.
    pub connect_timeout: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The guard allows none of the addresses.
    #[error("no address may be connected to: {0}")]
    Guarded(String),
    /// No address answered; this is what the last of them said.
    #[error("no address could be connected to")]
    Unreachable(#[source] io::Error),
}

/// The address that won, and the connection to it.
pub struct Won {
    /// The address.
    pub destination: SocketAddr,
    /// The connection.
    pub dialled: Dialled,
}

impl fmt::Debug for Won {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Won").field("destination", &self.destination).finish_non_exhaustive()
    }
}

/// Connects to whichever address answers first: the next one is tried when the one before has failed or has had its
/// time, and the others are dropped when one has won (RFC 8305, section 5).
///
/// # Errors
/// When none may be connected to, or none answers.
pub async fn race(
    dialer: Arc<dyn Dialer>,
    destinations: &[SocketAddr],
    pacing: Pacing,
    guard: &Guard,
) -> Result<Won, DialError> {
    let mut attempts = JoinSet::new();
    let mut refused = None;
    let mut failed = None;
    let mut next = destinations.iter().copied();
    let mut start_next = Instant::now();
    let mut left = true;
    loop {
        if left && (attempts.is_empty() || Instant::now() >= start_next) {
            match next.next() {
                None => left = false,
                Some(destination) => {
                    if let Err(reason) = guard(destination.ip(), destination.port()) {
                        refused = Some(reason);
                        continue;
                    }
                    let dialer = Arc::clone(&dialer);
                    attempts.spawn(async move {
                        let attempt = timeout(pacing.connect_timeout, dialer.dial(destination)).await;
                        attempt
                            .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
                            .map(|dialled| Won { destination, dialled })
                    });
                    start_next = Instant::now() + pacing.attempt_delay;
                }
            }
        }
        if attempts.is_empty() && !left {
            return Err(match (failed, refused) {
                (None, Some(reason)) => DialError::Guarded(reason),
                (Some(error), _) => DialError::Unreachable(error),
                (None, None) => DialError::Unreachable(io::ErrorKind::AddrNotAvailable.into()),
            });
        }
        tokio::select! {
            Some(attempt) = attempts.join_next() => match attempt {
                Ok(Ok(won)) => return Ok(won),
                Ok(Err(error)) => { failed = Some(error); start_next = Instant::now(); }
                Err(panicked) => { failed = Some(io::Error::other(panicked)); start_next = Instant::now(); }
            },
            () = sleep_until(start_next), if left => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Answers after a set time, or refuses, and notes when it was asked.
    struct Script {
        born: Instant,
        answers: Vec<(SocketAddr, Duration, bool)>,
        asked: Mutex<Vec<(SocketAddr, u128)>>,
    }

    impl Script {
        fn new(answers: &[(&str, u64, bool)]) -> Arc<Self> {
            let answers = answers
                .iter()
                .map(|&(address, after, good)| (address.parse().unwrap(), Duration::from_millis(after), good));
            Arc::new(Self { born: Instant::now(), answers: answers.collect(), asked: Mutex::default() })
        }

        fn asked(&self) -> Vec<(String, u128)> {
            self.asked.lock().unwrap().iter().map(|(address, at)| (address.to_string(), *at)).collect()
        }

        fn destinations(&self) -> Vec<SocketAddr> {
            self.answers.iter().map(|(address, ..)| *address).collect()
        }
    }

    impl Dialer for Script {
        fn dial(&self, destination: SocketAddr) -> Dialling<'_> {
            self.asked.lock().unwrap().push((destination, self.born.elapsed().as_millis()));
            let &(_, after, good) = self.answers.iter().find(|(address, ..)| *address == destination).unwrap();
            Box::pin(async move {
                tokio::time::sleep(after).await;
                if !good {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let (socket, _peer) = std::os::unix::net::UnixStream::pair()?;
                Ok(Dialled { socket: socket.into(), rtt: after })
            })
        }
    }

    const PACING: Pacing =
        Pacing { attempt_delay: Duration::from_millis(250), connect_timeout: Duration::from_secs(3) };

    fn all() -> Guard {
        Arc::new(|_, _| Ok(()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_starts_when_the_first_is_slow() {
        let script = Script::new(&[("[2001:db8::1]:80", 2000, true), ("192.0.2.1:80", 40, true)]);
        let won = race(script.clone(), &script.destinations(), PACING, &all()).await.unwrap();
        assert_eq!(won.destination, "192.0.2.1:80".parse().unwrap());
        assert_eq!(script.asked(), [("[2001:db8::1]:80".to_owned(), 0), ("192.0.2.1:80".to_owned(), 250)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_starts_at_once_when_the_first_fails() {
        let script = Script::new(&[("[2001:db8::1]:80", 10, false), ("192.0.2.1:80", 40, true)]);
        let won = race(script.clone(), &script.destinations(), PACING, &all()).await.unwrap();
        assert_eq!(won.destination, "192.0.2.1:80".parse().unwrap());
        assert_eq!(script.asked()[1].1, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_first_address_is_alone() {
        let script = Script::new(&[("[2001:db8::1]:80", 249, true), ("192.0.2.1:80", 1, true)]);
        let won = race(script.clone(), &script.destinations(), PACING, &all()).await.unwrap();
        assert!(won.destination.is_ipv6());
        assert_eq!(script.asked().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn guarded_addresses_are_never_asked() {
        let script = Script::new(&[("10.0.0.1:80", 1, true), ("192.0.2.1:80", 1, true)]);
        let guard: Guard =
            Arc::new(|address, _| if address.to_string().starts_with("10.") { Err("private".into()) } else { Ok(()) });
        let won = race(script.clone(), &script.destinations(), PACING, &guard).await.unwrap();
        assert_eq!(won.destination, "192.0.2.1:80".parse().unwrap());
        assert_eq!(script.asked(), [("192.0.2.1:80".to_owned(), 0)]);
        let none: Guard = Arc::new(|_, _| Err("no".into()));
        let refused = race(script.clone(), &script.destinations(), PACING, &none).await;
        assert!(matches!(refused, Err(DialError::Guarded(_))));
        assert_eq!(script.asked().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_times_out() {
        let script = Script::new(&[("192.0.2.1:80", 60_000, true), ("192.0.2.2:80", 60_000, true)]);
        let begun = Instant::now();
        let result = race(script.clone(), &script.destinations(), PACING, &all()).await;
        assert!(matches!(result, Err(DialError::Unreachable(error)) if error.kind() == io::ErrorKind::TimedOut));
        assert_eq!(begun.elapsed().as_millis(), 3250);
        let nowhere = race(script, &[], PACING, &all()).await;
        assert!(matches!(nowhere, Err(DialError::Unreachable(_))));
    }
}
