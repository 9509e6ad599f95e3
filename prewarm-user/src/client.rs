//! Leases for programs of your own: connections that are open before you ask.
//!
//! A running prewarm keeps connections open to where programs are about to connect. A program that links this crate asks
//! for one over the daemon's control socket and gets it as a plain [`TcpStream`]; where there is none, where there is no
//! daemon, or where it does not answer in a few milliseconds, the program connects as it would have.
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! let prewarm = prewarm_user::client::Client::new("/run/prewarm/control.sock");
//! let mut connection = prewarm.connect("www.example.org", 80)?;
//! println!("leased: {}", connection.is_leased());
//! connection.stream.write_all(b"GET / HTTP/1.0\r\nHost: www.example.org\r\n\r\n")?;
//! let mut answer = String::new();
//! connection.stream.read_to_string(&mut answer)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Keep one [`Client`] (or [`AsyncClient`]) for the whole program: it holds one connection to the daemon and a page of
//! memory that says where there are leases, so that asking where there is none costs nothing. What a lease is not: a
//! promise. It was proven alive a moment ago, and an origin may still close it, as it may any idle connection; retry
//! what can be retried, as after every first write on a kept connection. Other languages speak `docs/protocol.md`.

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    handover::{
        client::ControlSource,
        clock::now,
        fresh,
        protocol::{Granted, Settled, Want},
        source::{Answer, LeaseSource, Patience, Prospect},
    },
    lease::{self, Pacing, TcpDialer},
};

/// Where a lease is to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To exactly this address.
    Address(SocketAddr),
    /// To any address of this origin, NAME:PORT, as the daemon has resolved it.
    Origin(String),
}

impl From<SocketAddr> for Destination {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<&str> for Destination {
    /// `192.0.2.1:443` and `[2001:db8::1]:443` are addresses, everything else is an origin.
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_name| Self::Origin(text.to_owned()), Self::Address)
    }
}

/// A leased connection that has not been used yet. Dropping it gives it back, for the next program.
#[derive(Debug)]
pub struct Lease {
    connection: Option<OwnedFd>,
    granted: Granted,
    id: u64,
    shared: Arc<Shared>,
}

impl Lease {
    /// Where it leads.
    #[must_use]
    pub const fn destination(&self) -> SocketAddr {
        self.granted.destination
    }

    /// Whom it was opened for, NAME:PORT.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.granted.origin
    }

    /// What opening it took: the time that it saves.
    #[must_use]
    pub const fn saves(&self) -> Duration {
        Duration::from_micros(self.granted.rtt_us)
    }

    /// The connection itself, to see whether it suits. Nothing may be read, written or set on it here: whoever gets it
    /// after you expects it untouched.
    #[must_use]
    pub fn look(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    /// Takes the connection: blocking, with `TCP_NODELAY` set. The daemon is told that it is used.
    ///
    /// # Panics
    /// Never: the connection is there until it is taken.
    #[must_use]
    pub fn into_stream(mut self) -> TcpStream {
        let Some(connection) = self.connection.take() else { unreachable!("a lease is taken once") };
        self.shared.settle(self.id, Settled::Used, None);
        connection.into()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.shared.settle(self.id, Settled::Unfit, Some(connection.as_fd()));
        }
    }
}

/// A connection and how it came about.
#[derive(Debug)]
pub struct Connection<S> {
    /// The connection, with `TCP_NODELAY` set.
    pub stream: S,
    /// What the lease has saved; `None` when it was opened just now.
    pub saved: Option<Duration>,
}

impl<S> Connection<S> {
    /// Whether it was open before it was asked for.
    #[must_use]
    pub const fn is_leased(&self) -> bool {
        self.saved.is_some()
    }
}

/// The daemon, asked from threads that may wait. Cheap to clone; questions of several threads queue, for some tens of
/// microseconds each. It asks from the network namespace in which it was first used.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    turn: Arc<Mutex<()>>,
    patience: Patience,
}

impl Client {
    /// A client of the daemon whose control socket is at `socket` (usually `/run/prewarm/control.sock`). Whether there
    /// is a daemon does not matter now: it is connected to when it is first asked, and again after it was away.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { shared: Arc::new(Shared::new(socket.into())), turn: Arc::default(), patience: Patience::Worth }
    }

    /// The same, with a fixed limit on how long the daemon may take to answer: without it, as long as the lease would
    /// save, between 2 and 50 ms. One that takes longer is left alone for a while.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Patience::Fixed(patience);
        self
    }

    /// A lease to there, if one is ready.
    ///
    /// ```no_run
    /// # let prewarm = prewarm_user::client::Client::new("/run/prewarm/control.sock");
    /// if let Some(lease) = prewarm.take("www.example.org:443") {
    ///     println!("to {}, {:?} saved", lease.destination(), lease.saves());
    ///     let stream: std::net::TcpStream = lease.into_stream();
    /// }
    /// ```
    pub fn take(&self, to: impl Into<Destination>) -> Option<Lease> {
        let to = to.into();
        let _turn = lock(&self.turn);
        let Asked { id, saves } = self.shared.ask(&to)?;
        let deadline = now() + self.patience.of(saves);
        loop {
            let Looked { answer, wake } = self.shared.collect(id)?;
            if answer.is_some() {
                return answer;
            }
            let left = deadline.since(now());
            if left.is_zero() {
                self.shared.give_up();
                return None;
            }
            // Interrupted: look again.
            let _ready =
                ppoll(&mut [PollFd::new(wake.as_fd(), PollFlags::POLLIN)], Some(TimeSpec::from_duration(left)), None);
        }
    }

    /// Connects to a host, over a lease where there is one and as ever where there is none: never worse than that.
    ///
    /// The name is resolved here, by the program's own resolver, so that it leads where it always did; addresses that do
    /// not answer are passed over (RFC 8305).
    ///
    /// # Errors
    /// When the name can't be resolved or no address answers: what a connection without prewarm would have said.
    pub fn connect(&self, host: &str, port: u16) -> io::Result<Connection<TcpStream>> {
        let destinations = fresh::in_turn((host, port).to_socket_addrs()?);
        if let Some(lease) = self.take_any(&destinations) {
            let saved = Some(lease.saves());
            return Ok(Connection { stream: lease.into_stream(), saved });
        }
        fresh::connect(&destinations).map(|stream| Connection { stream, saved: None })
    }

    /// A lease to a host, resolved as [`Self::connect`] does.
    ///
    /// # Errors
    /// When the name can't be resolved.
    pub fn take_to(&self, host: &str, port: u16) -> io::Result<Option<Lease>> {
        Ok(self.take_any(&fresh::in_turn((host, port).to_socket_addrs()?)))
    }

    fn take_any(&self, destinations: &[SocketAddr]) -> Option<Lease> {
        let lease = destinations.iter().find_map(|&destination| self.take(destination));
        if lease.is_none() {
            self.shared.passed(destinations);
        }
        lease
    }
}

/// The daemon, asked from tasks of a tokio runtime. Cheap to clone.
///
/// ```no_run
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let prewarm = prewarm_user::client::AsyncClient::new("/run/prewarm/control.sock");
/// let connection = prewarm.connect("www.example.org", 443).await?;
/// let stream: tokio::net::TcpStream = connection.stream;
/// # Ok::<(), std::io::Error>(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AsyncClient {
    shared: Arc<Shared>,
    turn: Arc<tokio::sync::Mutex<()>>,
    patience: Patience,
}

impl AsyncClient {
    /// As [`Client::new`].
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { shared: Arc::new(Shared::new(socket.into())), turn: Arc::default(), patience: Patience::Worth }
    }

    /// As [`Client::with_patience`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Patience::Fixed(patience);
        self
    }

    /// As [`Client::take`]. Safe to drop while it waits: a lease that comes too late goes back.
    pub async fn take(&self, to: impl Into<Destination> + Send) -> Option<Lease> {
        let to = to.into();
        let _turn = self.turn.lock().await;
        let Asked { id, saves } = self.shared.ask(&to)?;
        let answered = async {
            loop {
                let Looked { answer, wake } = self.shared.collect(id)?;
                if answer.is_some() {
                    return answer;
                }
                // The daemon can be waited for only inside a runtime with its driver on; elsewhere there is no lease.
                #[expect(unsafe_code, reason = "tokio's AsyncFd asks for a promise about the descriptor")]
                // SAFETY: the copy owns its descriptor, never exchanges it, and is owned by the `AsyncFd` to its end.
                let ready = unsafe { AsyncFd::register_with_interest(wake, Interest::READABLE) }.ok()?;
                drop(ready.readable().await.ok()?);
            }
        };
        if let Ok(answer) = tokio::time::timeout(self.patience.of(saves), answered).await {
            return answer;
        }
        self.shared.give_up();
        None
    }

    /// As [`Client::connect`], with the runtime's resolver.
    ///
    /// # Errors
    /// When the name can't be resolved or no address answers.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<Connection<tokio::net::TcpStream>> {
        let destinations = fresh::in_turn(tokio::net::lookup_host((host, port)).await?);
        for &destination in &destinations {
            if let Some(lease) = self.take(destination).await {
                let saved = Some(lease.saves());
                return Ok(Connection { stream: asynchronous(lease.into_stream())?, saved });
            }
        }
        self.shared.passed(&destinations);
        let pacing = Pacing { attempt_delay: Duration::from_millis(250), connect_timeout: Duration::MAX };
        let anywhere: lease::Guard = Arc::new(|_, _| Ok(()));
        let won = lease::race(Arc::new(TcpDialer::default()), &destinations, pacing, &anywhere).await;
        let won = won.map_err(|error| match error {
            lease::DialError::Unreachable(error) => error,
            lease::DialError::Guarded(_) => io::ErrorKind::NotFound.into(),
        })?;
        Ok(Connection { stream: asynchronous(won.dialled.socket.into())?, saved: None })
    }
}

fn asynchronous(stream: TcpStream) -> io::Result<tokio::net::TcpStream> {
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}

/// What several threads and leases share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Debug)]
struct State {
    source: ControlSource,
}

impl State {
    /// Collects what has come: the answer to this question, if it is there, and whether the daemon has gone.
    fn reap(&mut self, id: Option<u64>) -> (Option<Answer>, bool) {
        let mut found = Vec::new();
        let lost = self.source.collect(&mut found, now()).is_err();
        let mut wanted = None;
        for (number, answer) in found {
            if Some(number) == id {
                wanted = Some(answer);
            } else if let Answer::Lease(connection, _) = answer {
                // Whoever had asked for it does not wait any more.
                self.source.settle(number, Settled::Unfit, Some(connection.as_fd()));
            }
        }
        (wanted, lost)
    }
}

/// A question that is open.
#[derive(Debug)]
struct Asked {
    id: u64,
    /// What a lease would save.
    saves: Duration,
}

/// What a look at the answers found.
#[derive(Debug)]
struct Looked {
    answer: Option<Lease>,
    /// Becomes readable when there is more to be found.
    wake: OwnedFd,
}

impl Shared {
    fn new(socket: PathBuf) -> Self {
        Self { state: Mutex::new(State { source: ControlSource::new(socket) }), next: AtomicU64::new(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Asks; `None` when there is nothing to be had.
    fn ask(&self, to: &Destination) -> Option<Asked> {
        let mut state = self.state();
        let now = now();
        // Nobody looks in between: a daemon that went would not be noticed while its page says that there is nothing.
        let _asked_again_later = state.reap(None);
        let (want, saves) = match to {
            Destination::Address(address) => {
                let Prospect::Perhaps(saves) = state.source.prospect(*address, now) else { return None };
                (Want { destination: Some(*address), ..Want::default() }, saves)
            }
            Destination::Origin(origin) => (Want { origin: Some(origin.clone()), ..Want::default() }, Duration::ZERO),
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        state.source.ask(id, &want, now).then_some(Asked { id, saves })
    }

    /// Looks for the answer to a question; `None` when there will be no lease.
    fn collect(self: &Arc<Self>, id: u64) -> Option<Looked> {
        let mut state = self.state();
        let (answer, lost) = state.reap(Some(id));
        match answer {
            Some(Answer::Lease(connection, granted)) => {
                let wake = state.source.wake()?.try_clone_to_owned().ok()?;
                let lease = Lease { connection: Some(connection), granted, id, shared: Arc::clone(self) };
                Some(Looked { answer: Some(lease), wake })
            }
            Some(Answer::Nothing { .. } | Answer::Refused) => None,
            None if lost => None,
            None => Some(Looked { answer: None, wake: state.source.wake()?.try_clone_to_owned().ok()? }),
        }
    }

    fn settle(&self, id: u64, result: Settled, connection: Option<BorrowedFd<'_>>) {
        self.state().source.settle(id, result, connection);
    }

    fn passed(&self, destinations: &[SocketAddr]) {
        if let Some(&first) = destinations.first() {
            self.state().source.passed(first);
        }
    }

    fn give_up(&self) {
        self.state().source.give_up(now());
    }
}

/// A lock that a panic elsewhere does not take down with it: what it guards is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
