//! The daemon's side of a hand-over: a thread that does nothing but answer questions for leases.
//!
//! Comes in: connections of the control socket. Goes out: replies with leases, to the pool what became of each, and to
//! the clerk where programs go and every connection that asks for something else. Never here: a lease that nobody
//! accounts for (what was granted and not reported when the connection ends is lost, and said so), or a wait for a peer.
//!
//! A program sits in `connect()` while this answers. So it has a thread of its own, which the runtime's work can't keep
//! waiting, and waits in one epoll set: a question costs it four system calls besides the pool's.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::{EfdFlags, EventFd},
};
use serde::Serialize;

use super::{
    lines::{Lines, Received},
    peer::{Peer, Rule},
    protocol::{Ask, Fault, Given, Granted, Reply, Request, Settled, VERSION, Want, fault},
    way::WayCounters,
};
use crate::{
    lease::{Fate, LeaseId, Pool, Take, Taker},
    model::Origin,
};

/// Connections at once: each program under `prewarm exec` holds one. More are closed, and their programs connect by
/// themselves.
const MOST: usize = 4096;
/// Leases that one connection may have in its hands without a report: more is a client that does not report.
const MOST_OPEN: usize = 1024;
/// How long the listener is left alone when there are no descriptors, in milliseconds.
const EXHAUSTED_MS: u16 = 100;

const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// Whom the thread tells what is not its own.
pub trait Clerk: Send + Sync + 'static {
    /// A program connects to there, with a lease or without. Must not block.
    fn connected(&self, destination: SocketAddr, leased: bool);

    /// A connection that asks for something else than leases, and what was read from it. Must not block.
    fn stray(&self, stream: UnixStream, unread: Vec<u8>);
}

/// What happened so far, over all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FdCounters {
    /// Leases that programs have.
    pub taken: u64,
    /// Questions without a lease, those not asked because the page said so included.
    pub missed: u64,
    /// Leases that came back or were lost on the way.
    pub failed: u64,
    /// Questions of users that get no leases.
    pub forbidden: u64,
    /// Connections that were closed because there are too many.
    pub turned_away: u64,
}

#[derive(Debug, Default)]
struct Counts {
    taken: AtomicU64,
    missed: AtomicU64,
    failed: AtomicU64,
    forbidden: AtomicU64,
    turned_away: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The thread. It ends when this is dropped, and takes its connections with it.
#[derive(Debug)]
pub struct Desk {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
}

impl Desk {
    /// Serves `listener` until this is dropped.
    ///
    /// # Errors
    /// When there are no descriptors or threads left.
    pub fn open(listener: UnixListener, pool: Pool, rule: Rule, clerk: Arc<dyn Clerk>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let counts = Arc::new(Counts::default());
        let room = Room {
            epoll,
            listener,
            pool,
            rule,
            clerk,
            counts: Arc::clone(&counts),
            visitors: HashMap::new(),
            next: 0,
            exhausted: false,
        };
        room.listen()?;
        let thread = std::thread::Builder::new().name("prewarm-lease".to_owned()).spawn(move || room.serve())?;
        Ok(Self { stop, thread: Some(thread), counts })
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> FdCounters {
        self.counts.read()
    }

    /// The same as other ways out count it, to be read at any time.
    pub fn report(&self) -> impl Fn() -> WayCounters + Send + Sync + 'static {
        let counts = Arc::clone(&self.counts);
        move || {
            let FdCounters { taken, missed, failed, forbidden, turned_away } = counts.read();
            // The bytes are the program's alone, and so is a second try.
            WayCounters { taken, missed, failed, refused: forbidden + turned_away, ..WayCounters::default() }
        }
    }
}

impl Counts {
    fn read(&self) -> FdCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FdCounters {
            taken: read(&self.taken),
            missed: read(&self.missed),
            failed: read(&self.failed),
            forbidden: read(&self.forbidden),
            turned_away: read(&self.turned_away),
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // It can only fail when the count is full, and then the thread is awake anyway.
        let _awake_already = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What the thread works with.
struct Room {
    epoll: Epoll,
    listener: UnixListener,
    pool: Pool,
    rule: Rule,
    clerk: Arc<dyn Clerk>,
    counts: Arc<Counts>,
    visitors: HashMap<u64, Visitor>,
    next: u64,
    /// The listener is left alone for a while.
    exhausted: bool,
}

/// What becomes of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Stays,
    Leaves,
    /// It is somebody else's: this line is no question for leases.
    Strays(Vec<u8>),
}

impl Room {
    fn serve(mut self) {
        super::nimble();
        let mut events = [EpollEvent::empty(); 32];
        loop {
            let timeout = if self.exhausted { EXHAUSTED_MS.into() } else { EpollTimeout::NONE };
            // Interrupted: nothing is ready.
            let ready = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            if self.exhausted && ready == 0 {
                self.exhausted = self.listen().is_err();
            }
            for event in &events[..ready] {
                match event.data() {
                    STOP => return,
                    LISTENER => self.accept(),
                    id => self.attend(id),
                }
            }
        }
    }

    fn listen(&self) -> nix::Result<()> {
        self.epoll.add(&self.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
    }

    fn accept(&mut self) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                // Out of descriptors, most likely: give others time to close some.
                tracing::warn!(%error, "control: could not accept");
                self.exhausted = self.epoll.delete(&self.listener).is_ok();
                return;
            }
        };
        if self.visitors.len() >= MOST {
            return count(&self.counts.turned_away);
        }
        let Ok(peer) = Peer::of(&stream) else { return };
        let id = self.next;
        self.next += 1;
        if self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, id)).is_err() {
            return;
        }
        let grants = Grants { pool: self.pool.clone(), counts: Arc::clone(&self.counts), open: HashMap::new() };
        let visitor = Visitor { lines: Lines::new(stream), peer, allowed: self.rule.allows(peer.uid), grants };
        self.visitors.insert(id, visitor);
        // Whoever connects asks at once: the question is often there already.
        self.attend(id);
    }

    fn attend(&mut self, id: u64) {
        let Some(visitor) = self.visitors.get_mut(&id) else { return };
        let then = visitor.attend(&*self.clerk).unwrap_or_else(|error| {
            tracing::debug!(%error, uid = visitor.peer.uid, "control: a client left");
            Then::Leaves
        });
        if then == Then::Stays {
            return;
        }
        let Some(visitor) = self.visitors.remove(&id) else { return };
        // Before anybody else holds it: a copy would keep it in the set.
        let _was_there = self.epoll.delete(&visitor.lines);
        if let Then::Strays(line) = then {
            let Visitor { mut lines, .. } = visitor;
            lines.put_back(&line);
            let (stream, unread) = lines.into_parts();
            self.clerk.stray(stream, unread);
        }
    }
}

/// One connection.
struct Visitor {
    lines: Lines,
    peer: Peer,
    allowed: bool,
    grants: Grants,
}

impl Visitor {
    fn attend(&mut self, clerk: &dyn Clerk) -> io::Result<Then> {
        let received = self.lines.receive()?;
        while let Some(line) = self.lines.next_line() {
            let Ok(request) = serde_json::from_slice::<Request>(&line) else { return Ok(Then::Strays(line)) };
            self.handle(request, clerk)?;
        }
        Ok(if received == Received::End { Then::Leaves } else { Then::Stays })
    }

    fn handle(&mut self, Request { v, id, request }: Request, clerk: &dyn Clerk) -> io::Result<()> {
        if v != VERSION {
            return self.refuse(id, fault::VERSION, format!("this daemon speaks version {VERSION}"));
        }
        if !self.allowed {
            count(&self.grants.counts.forbidden);
            let silent = matches!(request, Ask::Taken(_) | Ask::Passed { .. });
            let message = format!("user {} gets no leases (handover.uids, handover.exclude_uids)", self.peer.uid);
            return if silent { Ok(()) } else { self.refuse(id, fault::FORBIDDEN, message) };
        }
        match request {
            Ask::Take(want) => self.take(id, &want, clerk),
            Ask::Taken(taken) => {
                let back = if taken.result == Settled::Unfit { self.lines.claim() } else { None };
                let fate = match (taken.result, back) {
                    (Settled::Used, _) => Fate::Used,
                    (Settled::Unfit, Some(fd)) => Fate::Unfit(fd),
                    (Settled::Unfit, None) | (Settled::Failed, _) => Fate::Lost,
                };
                self.grants.settle(id, fate);
                Ok(())
            }
            Ask::Hints {} => {
                let given = Given { hints: true, ..Given::default() };
                self.reply(id, given, Some(self.grants.pool.hints().file()))
            }
            Ask::Passed { destination } => {
                count(&self.grants.counts.missed);
                self.grants.pool.passed(destination);
                clerk.connected(destination, false);
                Ok(())
            }
        }
    }

    fn take(&mut self, id: u64, want: &Want, clerk: &dyn Clerk) -> io::Result<()> {
        let take = match (want.destination, want.origin.as_deref().map(str::parse::<Origin>)) {
            // What it says is compared with what the kernel says, and never believed instead.
            _ if want.netns_cookie.is_some_and(|stated| stated != self.peer.netns) => Take::Miss { late: false },
            _ if self.grants.open.len() >= MOST_OPEN => Take::Miss { late: false },
            (Some(destination), None) => self.grants.pool.take(destination, &self.taker(want)),
            (None, Some(Ok(origin))) => self.grants.pool.take_from(&origin, &self.taker(want)),
            (None, Some(Err(error))) => return self.refuse(id, fault::MALFORMED, format!("origin: {error}")),
            _ => return self.refuse(id, fault::MALFORMED, "name either a destination or an origin".to_owned()),
        };
        match take {
            Take::Miss { late } => {
                count(&self.grants.counts.missed);
                self.reply(id, Given { late, ..Given::default() }, None)?;
                want.destination.into_iter().for_each(|destination| clerk.connected(destination, false));
            }
            Take::Lease(taken) => {
                self.grants.note(id, taken.id);
                let granted = Granted {
                    rtt_us: u64::try_from(taken.rtt.as_micros()).unwrap_or(u64::MAX),
                    origin: taken.origin.to_string(),
                    destination: taken.destination,
                };
                // Our copy of the descriptor closes here: from now on the connection is the program's alone.
                self.reply(id, Given { lease: Some(granted), ..Given::default() }, Some(taken.fd.as_fd()))?;
                clerk.connected(taken.destination, true);
            }
        }
        Ok(())
    }

    fn taker(&self, want: &Want) -> Taker {
        Taker { netns: Some(self.peer.netns), source: want.source, mark: want.mark }
    }

    fn reply(&self, id: u64, given: Given, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.lines.send(serde_json::to_vec(&Reply { v: VERSION, id, ok: Some(given), error: None })?, fd)
    }

    fn refuse(&self, id: u64, code: &str, message: String) -> io::Result<()> {
        let error = Some(Fault { code: code.to_owned(), message });
        self.lines.send(serde_json::to_vec(&Reply { v: VERSION, id, ok: None, error })?, None)
    }
}

/// What one connection was granted and has not reported on.
#[derive(Debug)]
struct Grants {
    pool: Pool,
    counts: Arc<Counts>,
    open: HashMap<u64, LeaseId>,
}

impl Grants {
    fn note(&mut self, id: u64, lease: LeaseId) {
        // A number that is used twice would leave the first lease without a report.
        if let Some(lost) = self.open.insert(id, lease) {
            count(&self.counts.failed);
            self.pool.settle(lost, Fate::Lost);
        }
    }

    fn settle(&mut self, id: u64, fate: Fate<std::os::fd::OwnedFd>) {
        let Some(lease) = self.open.remove(&id) else { return };
        count(if matches!(fate, Fate::Used) { &self.counts.taken } else { &self.counts.failed });
        self.pool.settle(lease, fate);
    }
}

impl Drop for Grants {
    fn drop(&mut self) {
        for (_, lease) in self.open.drain() {
            count(&self.counts.failed);
            self.pool.settle(lease, Fate::Lost);
        }
    }
}
