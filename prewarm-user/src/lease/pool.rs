//! The pool: the ledger's decisions carried out on real connections.
//!
//! Comes in: orders, programs that ask. Goes out: dials, proven connections, outcomes over a bounded channel. Never
//! here: a decision about whom to connect to, or a wait for whoever reads the outcomes.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    counters::{LeaseCounters, LeaseView},
    dial::{DialError, Dialer, Guard, Pacing, race},
    headroom,
    hints::Hints,
    keepalive,
    ledger::{Death, Established, Failure, Fate, Given, Heard, LeaseId, LeaseOrder, Ledger, Start},
    offer::{Offers, Token},
    origins::{OriginView, Remembered},
    probe::prove,
    sockopt,
    taker::{Local, Taker},
};
use crate::{
    config::LeaseSettings,
    model::{IntentId, Name, Origin, Outcome, Timestamp},
};

/// How often a shortage is looked at again that limits or a back-off kept from being filled.
const SHORTAGE: Duration = Duration::from_millis(500);
/// How long nothing can be due.
const QUIET: Duration = Duration::from_secs(3600);

/// A connection out of the pool. Say what became of it with [`Pool::settle`].
#[derive(Debug)]
pub struct Taken {
    /// Its number.
    pub id: LeaseId,
    /// The connection: established, proven alive, blocking.
    pub fd: OwnedFd,
    /// Where it leads.
    pub destination: SocketAddr,
    /// What its handshake took: what is saved.
    pub rtt: Duration,
    /// Whom it was opened for.
    pub origin: Origin,
    /// For which intent.
    pub intent: Option<IntentId>,
}

/// The answer to somebody who asks for a connection.
#[derive(Debug)]
pub enum Take {
    /// Here it is.
    Lease(Taken),
    /// There is none.
    Miss {
        /// One is being dialled.
        late: bool,
    },
}

/// Connections that are open before anybody asks. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    ledger: Mutex<Ledger<OwnedFd>>,
    hints: Hints,
    watch: AsyncFd<Watch>,
    dials: Mutex<JoinSet<()>>,
    wake: Notify,
    stop: Notify,
    dialer: Arc<dyn Dialer>,
    guard: Guard,
    pacing: Pacing,
    outcomes: mpsc::Sender<Outcome>,
    on_taken: OnceLock<OnTaken>,
    born: (Instant, Timestamp),
}

/// Is told of each connection that leaves the pool, before anybody else has it.
type OnTaken = Box<dyn Fn(&Taken) + Send + Sync>;

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts a pool with its keeper on the current runtime. `now` is the kernel's monotonic time.
    ///
    /// # Errors
    /// When there are no descriptors left to watch connections with.
    pub fn start(
        settings: &LeaseSettings,
        dialer: Arc<dyn Dialer>,
        guard: Guard,
        outcomes: mpsc::Sender<Outcome>,
        now: Timestamp,
    ) -> io::Result<Self> {
        let watch = Watch::new()?;
        let room = headroom::leases();
        if room < settings.total as usize {
            tracing::warn!(
                "lease.total = {}, but the limit on descriptors (RLIMIT_NOFILE) has room for {room} leases",
                settings.total
            );
        }
        #[expect(unsafe_code, reason = "tokio's AsyncFd asks for a promise about the descriptor")]
        // SAFETY: the set owns its descriptor, never exchanges it, and is owned by the `AsyncFd` to its end.
        let watch = unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) }?;
        let pool = Self(Arc::new(Inner {
            ledger: Mutex::new(Ledger::new(settings, room)),
            hints: Hints::new()?,
            watch,
            dials: Mutex::default(),
            wake: Notify::new(),
            stop: Notify::new(),
            dialer,
            guard,
            pacing: Pacing {
                attempt_delay: Duration::from_millis(settings.attempt_delay_ms.into()),
                connect_timeout: Duration::try_from_secs_f64(settings.connect_timeout_seconds).unwrap_or_default(),
            },
            outcomes,
            on_taken: OnceLock::new(),
            born: (Instant::now(), now),
        }));
        tokio::spawn(pool.clone().keep());
        Ok(pool)
    }

    /// Opens a lease, within all limits; its outcome is reported once.
    pub fn lease(&self, order: LeaseOrder) {
        let starts = self.change(|ledger, now| {
            let start = ledger.order(order, now);
            let beside = start.as_ref().map(|start| ledger.accompany(start.id, now)).unwrap_or_default();
            start.into_iter().chain(beside)
        });
        self.dial_all(starts);
    }

    /// Keeps `count` leases to an origin open until a deadline, replacing what is taken, expires or dies; zero ends it.
    pub fn want(&self, origin: Origin, addresses: Vec<IpAddr>, until: Timestamp, count: u32) {
        let starts = self.change(|ledger, now| {
            ledger.want(origin, addresses, until, count, now);
            ledger.replenish(now)
        });
        self.dial_all(starts);
    }

    /// Hands out a connection to there that is alive and fits who takes it.
    #[must_use]
    pub fn take(&self, destination: SocketAddr, taker: &Taker) -> Take {
        self.change(|ledger, now| match ledger.take(destination, taker, now, alive) {
            Some(given) => Take::Lease(self.release(given)),
            None => Take::Miss { late: ledger.is_late(destination, now) },
        })
    }

    /// Hands out a connection to any address of an origin; [`Taken::destination`] says to which.
    #[must_use]
    pub fn take_from(&self, origin: &Origin, taker: &Taker) -> Take {
        self.change(|ledger, now| match ledger.take_from(origin, taker, now, alive) {
            Some(given) => Take::Lease(self.release(given)),
            None => Take::Miss { late: ledger.is_late_to(origin, now) },
        })
    }

    /// From now on leases are also on offer there, until they are taken, end, or are claimed there. A lease that was
    /// claimed waits for [`Self::redeem`] for at most two seconds.
    pub fn offer_to(&self, outlet: Arc<dyn Offers>) {
        self.change(|ledger, now| ledger.offer_to(outlet, now));
    }

    /// The lease that was claimed under this token, once; `None` when there is none, it was fetched, given up, or has
    /// died. Settle it like one that was taken.
    #[must_use]
    pub fn redeem(&self, token: Token) -> Option<Taken> {
        self.change(|ledger, now| ledger.redeem(token, now, alive).map(|given| self.release(given)))
    }

    /// Out of the set of watched connections, before anybody else can close it: what stays in the set would stay there
    /// until all copies are closed.
    fn release(&self, given: Given<OwnedFd>) -> Taken {
        self.0.watch.get_ref().forget(&given.connection);
        if let Err(error) = keepalive::unwatch(given.connection.as_fd()) {
            tracing::debug!(lease = given.id.0, %error, "probes could not be switched off");
        }
        let taken = Taken {
            id: given.id,
            fd: given.connection,
            destination: given.destination,
            rtt: given.rtt,
            origin: given.origin,
            intent: given.intent,
        };
        if let Some(tell) = self.0.on_taken.get() {
            tell(&taken);
        }
        taken
    }

    /// Calls this with each connection that is taken from now on. It must not block, nor ask the pool; the first call
    /// counts.
    pub fn on_taken(&self, tell: impl Fn(&Taken) + Send + Sync + 'static) {
        drop(self.0.on_taken.set(Box::new(tell)));
    }

    /// Says what became of a connection that was taken.
    pub fn settle(&self, id: LeaseId, fate: Fate<OwnedFd>) {
        let fate = match fate {
            // Somebody else had it: it must still be alive, and watched again.
            Fate::Unfit(fd) if self.0.watch.get_ref().add(&fd, id).is_err() => Fate::Lost,
            fate => fate,
        };
        self.change(|ledger, now| ledger.settle(id, fate, now));
    }

    /// A program connected to there and did not ask for a lease, because none was to be expected.
    pub fn passed(&self, destination: SocketAddr) {
        self.change(|ledger, now| ledger.came(destination, false, now));
    }

    /// Whether an origin's addresses change from answer to answer, so that none is worth a dial before the next.
    #[must_use]
    pub fn moves(&self, origin: &Origin) -> bool {
        self.ledger().origins.moves(origin)
    }

    /// A look-up gave some address of an origin that was known before, or none.
    pub fn looked_up(&self, origin: &Origin, same: bool) {
        self.change(|ledger, now| ledger.origins.looked_up(origin, same, now));
    }

    /// The look-up of an intent's name gave these addresses: a lease that was dialled to another is exchanged.
    pub fn correct(&self, intent: IntentId, addresses: &[IpAddr]) {
        let (closed, start) = self.change(|ledger, now| ledger.correct(intent, addresses, now));
        drop(closed);
        self.dial_all(start);
    }

    /// The name of an intent's origin is gone: so is its lease.
    pub fn cancel(&self, intent: IntentId) {
        drop(self.change(|ledger, now| ledger.cancel(intent, now)));
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> LeaseCounters {
        self.ledger().counters
    }

    /// What there is now.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseView> {
        let now = self.now();
        self.ledger().view(now)
    }

    /// Where leases wait: of which name, and to which address.
    #[must_use]
    pub fn waiting(&self) -> BTreeSet<(Name, IpAddr)> {
        self.ledger().waiting()
    }

    /// What was learnt about origins, those with most saved first.
    #[must_use]
    pub fn origins(&self) -> Vec<OriginView> {
        let now = self.now();
        self.ledger().origins.view(now)
    }

    /// What was learnt about origins, to be kept.
    #[must_use]
    pub fn remember(&self) -> Remembered {
        self.ledger().origins.remember()
    }

    /// Takes in what was learnt about origins in another life.
    pub fn recollect(&self, remembered: Remembered) {
        self.ledger().origins.recollect(remembered);
    }

    /// The page that says where there may be leases, for those who would have to ask.
    #[must_use]
    pub fn hints(&self) -> &Hints {
        &self.0.hints
    }

    /// Stops: dials are given up, waiting connections closed, and every intent gets its outcome.
    pub async fn drain(&self) {
        let closed = self.change(Ledger::drain);
        drop(closed);
        let mut dials = std::mem::take(&mut *lock(&self.0.dials));
        dials.shutdown().await;
        self.0.stop.notify_one();
    }

    /// Wakes when a connection changes, something is due, or something is missing.
    async fn keep(self) {
        loop {
            let due = {
                let now = self.now();
                let ledger = self.ledger();
                let due = ledger.next_due(now).map_or(QUIET, |due| due.since(now));
                Instant::now() + if ledger.is_short(now) { due.min(SHORTAGE) } else { due }
            };
            tokio::select! {
                () = self.0.stop.notified() => return,
                () = self.0.wake.notified() => {}
                () = sleep_until(due) => {}
                ready = self.0.watch.readable() => {
                    if let Ok(mut ready) = ready {
                        // Before the events are read: one that comes in between makes it readable again.
                        ready.clear_ready();
                        self.bury();
                    }
                }
            }
            let (closed, mut starts) = self.change(|ledger, now| ledger.expire(now, alive));
            drop(closed);
            starts.extend(self.change(Ledger::replenish));
            self.dial_all(starts);
        }
    }

    /// Looks at the connections that something happened to.
    fn bury(&self) {
        for id in self.0.watch.get_ref().changed() {
            let dead = self.change(|ledger, now| {
                let found = alive(ledger.connection(id)?);
                ledger.looked(id, found, now)
            });
            drop(dead);
        }
    }

    fn dial_all(&self, starts: impl IntoIterator<Item = Start>) {
        let mut dials = lock(&self.0.dials);
        while dials.try_join_next().is_some() {}
        for start in starts {
            dials.spawn(self.clone().dial(start));
        }
    }

    async fn dial(self, Start { id, destinations }: Start) {
        let inner = &self.0;
        let result = race(Arc::clone(&inner.dialer), &destinations, inner.pacing, &inner.guard).await;
        let won = match result {
            Ok(won) => won,
            Err(error) => {
                tracing::debug!(lease = id.0, %error, "dial failed");
                let failure = match error {
                    DialError::Guarded(_) => Failure::Guarded,
                    DialError::Unreachable(error) if is_ours(&error) => Failure::Exhausted,
                    DialError::Unreachable(_) => Failure::Unreachable,
                };
                return self.change(|ledger, now| ledger.failed(id, failure, now));
            }
        };
        let (fd, rtt) = (won.dialled.socket, won.dialled.rtt);
        let local = local(&fd, won.destination);
        let unwanted = self.change(|ledger, now| {
            if inner.watch.get_ref().add(&fd, id).is_err() {
                ledger.failed(id, Failure::Unreachable, now);
                return Some(fd);
            }
            ledger.dialled(id, Established { destination: won.destination, local, rtt, connection: fd }, now)
        });
        inner.hints.saves(won.destination, rtt);
        drop(unwanted);
        inner.wake.notify_one();
    }

    fn now(&self) -> Timestamp {
        let (instant, timestamp) = self.0.born;
        timestamp + instant.elapsed()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<OwnedFd>> {
        lock(&self.0.ledger)
    }

    /// Changes the ledger, and reports what that decided.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger<OwnedFd>, Timestamp) -> T) -> T {
        let now = self.now();
        let mut ledger = self.ledger();
        let result = change(&mut ledger, now);
        if std::mem::take(&mut ledger.stirred) {
            self.0.wake.notify_one();
        }
        for (destination, more) in ledger.marks.drain(..) {
            self.0.hints.change(destination, more);
        }
        for outcome in std::mem::take(&mut ledger.outcomes) {
            if self.0.outcomes.try_send(outcome).is_err() {
                ledger.counters.outcomes_dropped += 1;
            }
        }
        result
    }
}

/// Whether a dial failed for want of something on this host, which says nothing of the origin.
fn is_ours(error: &io::Error) -> bool {
    let ours = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|number| ours.contains(&number))
}

fn alive(fd: &OwnedFd) -> Result<Heard, Death> {
    prove(fd.as_fd())
}

/// Where our end of a connection is. What can't be read is what fits nobody who says where he is.
fn local(fd: &OwnedFd, destination: SocketAddr) -> Local {
    let nowhere: IpAddr =
        if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = socket2::SockRef::from(fd);
    Local {
        netns: sockopt::netns_cookie(fd.as_fd()).unwrap_or_default(),
        source: socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket())
            .map_or(nowhere, |address| address.ip()),
        mark: socket.mark().unwrap_or_default(),
    }
}

/// A lock that a panic elsewhere does not take down with it: the ledger is consistent between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One epoll set for all waiting connections: leaving it is immediate, which a runtime's own registration is not.
struct Watch(Epoll);

impl Watch {
    fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Edge-triggered: bytes of a server that speaks first are seen once, the close behind them once more.
    fn add(&self, fd: &OwnedFd, id: LeaseId) -> io::Result<()> {
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        Ok(self.0.add(fd, EpollEvent::new(events, id.0))?)
    }

    fn forget(&self, fd: &OwnedFd) {
        // It was added when it was established and nobody else removes it.
        let _was_there = self.0.delete(fd);
    }

    fn changed(&self) -> Vec<LeaseId> {
        let mut changed = Vec::new();
        let mut events = [EpollEvent::empty(); 64];
        while let Ok(count) = self.0.wait(&mut events, EpollTimeout::ZERO) {
            changed.extend(events[..count].iter().map(|event| LeaseId(event.data())));
            if count < events.len() {
                break;
            }
        }
        changed
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}
