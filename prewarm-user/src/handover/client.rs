//! The lease source of `prewarm exec`: the daemon's control socket.
//!
//! Comes in: questions. Goes out: answers and leases. Never here: waiting. What can't be sent at once is not asked, and
//! a daemon that is away or slow is left alone for a while, so that its absence costs programs nothing.

use std::{
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    lines::{Lines, Received},
    protocol::{Ask, Given, Reply, Request, Settled, Taken, VERSION, Want},
    source::{Answer, LeaseSource, Lost, Prospect},
};
use crate::{lease::HintsView, model::Timestamp};

/// How long a daemon that was away is left alone at first, and at most.
const AWAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// The daemon, as seen by a supervisor.
#[derive(Debug)]
pub struct ControlSource {
    path: PathBuf,
    connection: Option<Connection>,
    away: Duration,
    not_before: Timestamp,
}

#[derive(Debug)]
struct Connection {
    lines: Lines,
    hints: Option<HintsView>,
}

impl ControlSource {
    /// A source that will connect when it is first asked.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, connection: None, away: AWAY.0, not_before: Timestamp::ZERO }
    }

    fn connection(&mut self, now: Timestamp) -> Option<&mut Connection> {
        if self.connection.is_none() && now >= self.not_before {
            match connect(&self.path) {
                // A daemon whose queue is full at once can't be asked for the page, and is asked each time instead.
                Ok(connection) => {
                    drop(connection.send(&Request { v: VERSION, id: 0, request: Ask::Hints {} }, None));
                    self.connection = Some(connection);
                }
                Err(_away) => self.leave_alone(now),
            }
        }
        self.connection.as_mut()
    }

    /// Drops the connection, so that a lease that is under way is lost where the daemon can see it, and stays away for
    /// a while that doubles until an answer comes.
    fn leave_alone(&mut self, now: Timestamp) {
        self.connection = None;
        self.not_before = now + self.away;
        self.away = (self.away * 2).min(AWAY.1);
    }
}

impl LeaseSource for ControlSource {
    fn prepare(&mut self, now: Timestamp) {
        self.connection(now);
    }

    fn prospect(&mut self, destination: SocketAddr, now: Timestamp) -> Prospect {
        match self.connection(now) {
            None => Prospect::Absent,
            Some(Connection { hints: Some(hints), .. }) if !hints.may_have(destination) => Prospect::Nothing,
            Some(Connection { hints, .. }) => {
                Prospect::Perhaps(hints.as_ref().map_or(Duration::ZERO, |hints| hints.saves(destination)))
            }
        }
    }

    fn ask(&mut self, id: u64, want: &Want, now: Timestamp) -> bool {
        let Some(connection) = self.connection(now) else { return false };
        let sent = connection.send(&Request { v: VERSION, id, request: Ask::Take(want.clone()) }, None);
        if sent.is_err() {
            self.leave_alone(now);
        }
        sent.is_ok()
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(|connection| connection.lines.as_fd())
    }

    fn collect(&mut self, answers: &mut Vec<(u64, Answer)>, now: Timestamp) -> Result<(), Lost> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let before = answers.len();
        let alive = connection.answers(answers);
        if answers.len() > before {
            self.away = AWAY.0;
        }
        alive.map_err(|_gone| {
            self.leave_alone(now);
            Lost
        })
    }

    fn settle(&mut self, id: u64, result: Settled, lease: Option<BorrowedFd<'_>>) {
        let sent = self.connection.as_mut().map(|connection| {
            connection.send(&Request { v: VERSION, id, request: Ask::Taken(Taken { result }) }, lease)
        });
        // A report that can't be sent ends the connection, and its end reports all leases without one as lost.
        if let Some(Err(_full)) = sent {
            self.connection = None;
        }
    }

    fn passed(&mut self, destination: SocketAddr) {
        // A full socket loses it: what is learnt from many connections does not hang on one.
        if let Some(connection) = &mut self.connection {
            drop(connection.send(&Request { v: VERSION, id: 0, request: Ask::Passed { destination } }, None));
        }
    }

    fn give_up(&mut self, now: Timestamp) {
        self.leave_alone(now);
    }
}

/// Whether a daemon listens there now.
#[must_use]
pub fn daemon_listens(path: &Path) -> bool {
    connect(path).is_ok()
}

fn connect(path: &Path) -> io::Result<Connection> {
    // A listener whose queue is full answers EAGAIN to a socket that does not block; std has no such connect.
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM.nonblocking(), None)?;
    socket.connect(&socket2::SockAddr::unix(path)?)?;
    Ok(Connection { lines: Lines::new(UnixStream::from(OwnedFd::from(socket))), hints: None })
}

impl Connection {
    fn send(&self, request: &Request, lease: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.lines.send(serde_json::to_vec(request)?, lease)
    }

    /// Reads what has come. Descriptors come in the order of the replies that announce them.
    fn answers(&mut self, answers: &mut Vec<(u64, Answer)>) -> io::Result<()> {
        let received = self.lines.receive()?;
        while let Some(line) = self.lines.next_line() {
            let reply: Reply = serde_json::from_slice(&line)?;
            let mut fd = || self.lines.claim().ok_or(io::ErrorKind::InvalidData);
            let answer = match reply.ok {
                Some(given) if given.hints => {
                    self.hints = HintsView::new(fd()?.as_fd()).ok();
                    continue;
                }
                Some(Given { lease: Some(granted), .. }) => Answer::Lease(fd()?, granted),
                Some(given) => Answer::Nothing { late: given.late },
                None => Answer::Refused,
            };
            answers.push((reply.id, answer));
        }
        match received {
            Received::Open => Ok(()),
            Received::End => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
