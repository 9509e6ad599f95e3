//! The lease source of `prewarm exec`: the daemon's control socket.
//!
//! Comes in: questions. Goes out: answers and leases. Never here: waiting. What can't be sent at once is not asked, and
//! a daemon that is away or slow is left alone for a while, so that its absence costs programs nothing.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::Duration,
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use super::{
    protocol::{Ask, Reply, Request, Settled, Taken, VERSION, Want},
    source::{Answer, LeaseSource, Lost, Prospect},
};
use crate::{lease::HintsView, model::Timestamp};

/// How long a daemon that was away is left alone at first, and at most.
const AWAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// No line of the protocol is longer.
const LONGEST: usize = 16 * 1024;

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
    stream: UnixStream,
    inbox: Vec<u8>,
    fds: VecDeque<OwnedFd>,
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
                Ok(mut connection) => {
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
    fn prospect(&mut self, destination: SocketAddr, now: Timestamp) -> Prospect {
        match self.connection(now) {
            None => Prospect::Absent,
            Some(Connection { hints: Some(hints), .. }) if !hints.may_have(destination) => Prospect::Nothing,
            Some(_) => Prospect::Perhaps,
        }
    }

    fn ask(&mut self, id: u64, want: &Want, now: Timestamp) -> bool {
        let Some(connection) = self.connection(now) else { return false };
        let sent = connection.send(&Request { v: VERSION, id, request: Ask::Take(*want) }, None);
        if sent.is_err() {
            self.leave_alone(now);
        }
        sent.is_ok()
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(|connection| connection.stream.as_fd())
    }

    fn collect(&mut self, answers: &mut Vec<(u64, Answer)>, now: Timestamp) -> Result<(), Lost> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let before = answers.len();
        let alive = connection.receive().and_then(|()| connection.answers(answers));
        if answers.len() > before {
            self.away = AWAY.0;
        }
        alive.map_err(|_gone| {
            self.leave_alone(now);
            Lost
        })
    }

    fn settle(&mut self, id: u64, want: &Want, result: Settled, lease: Option<BorrowedFd<'_>>) {
        let taken = Taken { destination: want.destination, result };
        let sent = self
            .connection
            .as_mut()
            .map(|connection| connection.send(&Request { v: VERSION, id, request: Ask::Taken(taken) }, lease));
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
pub fn daemon_listens(path: &std::path::Path) -> bool {
    connect(path).is_ok()
}

fn connect(path: &std::path::Path) -> io::Result<Connection> {
    // A listener whose queue is full answers EAGAIN to a socket that does not block; std has no such connect.
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM.nonblocking(), None)?;
    socket.connect(&socket2::SockAddr::unix(path)?)?;
    let stream = UnixStream::from(OwnedFd::from(socket));
    Ok(Connection { stream, inbox: Vec::new(), fds: VecDeque::new(), hints: None })
}

impl Connection {
    fn send(&mut self, request: &Request, lease: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let fds: Vec<_> = lease.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<UnixAddr>(self.stream.as_raw_fd(), &[IoSlice::new(&line)], rights, flags, None)?;
        // A line that only went in part means that the daemon has not read for a long time.
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Reads what has come.
    fn receive(&mut self) -> io::Result<()> {
        loop {
            let mut bytes = [0; 4096];
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let mut rights = nix::cmsg_space!([std::os::fd::RawFd; 4]);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<UnixAddr>(self.stream.as_raw_fd(), &mut parts, Some(&mut rights), flags) {
                Ok(message) => message,
                Err(nix::Error::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for part in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = part {
                    self.fds.extend(fds.into_iter().map(super::owned));
                }
            }
            let length = message.bytes;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.inbox.extend_from_slice(&bytes[..length]);
            if self.inbox.len() > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if length < bytes.len() {
                return Ok(());
            }
        }
    }

    /// Reads the lines that are whole. Descriptors come in the order of the replies that announce them.
    fn answers(&mut self, answers: &mut Vec<(u64, Answer)>) -> io::Result<()> {
        let Some(end) = self.inbox.iter().rposition(|&byte| byte == b'\n') else { return Ok(()) };
        let rest = self.inbox.split_off(end + 1);
        let lines = std::mem::replace(&mut self.inbox, rest);
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let reply: Reply = serde_json::from_slice(line)?;
            let answer = match reply.ok {
                Some(given) if given.hints => {
                    let page = self.fds.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                    self.hints = HintsView::new(page.as_fd()).ok();
                    continue;
                }
                Some(given) if given.lease.is_some() => {
                    Answer::Lease(self.fds.pop_front().ok_or(io::ErrorKind::InvalidData)?)
                }
                Some(given) => Answer::Nothing { late: given.late },
                None => Answer::Refused,
            };
            answers.push((reply.id, answer));
        }
        Ok(())
    }
}
