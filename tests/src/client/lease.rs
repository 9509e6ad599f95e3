//! Asking the daemon for a lease, blocking.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, poll};
use prewarm_user::handover::client::ControlSource;
use prewarm_user::handover::protocol::{Settled, Want};
use prewarm_user::handover::source::{Answer, LeaseSource as _, Prospect};
use prewarm_user::model::Timestamp;

use crate::clock;

/// A daemon that says nothing for so long is left alone, in milliseconds; as `prewarm exec` does.
const PATIENCE: u16 = 5;

/// A line to the daemon that stays open.
#[derive(Debug)]
pub(super) struct Leases {
    source: ControlSource,
    asked: u64,
}

impl Leases {
    /// The daemon with this control socket.
    pub(super) fn at(socket: &Path) -> Self {
        Self { source: ControlSource::new(socket.to_owned()), asked: 0 }
    }

    /// An open connection to there, if the daemon has one.
    pub(super) fn take(&mut self, destination: SocketAddr) -> Option<TcpStream> {
        let now = || Timestamp::from_origin(clock::now());
        if self.source.prospect(destination, now()) != Prospect::Perhaps {
            self.source.passed(destination);
            return None;
        }
        self.asked += 1;
        let want = Want { destination, netns_cookie: None, pid: std::process::id().cast_signed() };
        if !self.source.ask(self.asked, &want, now()) {
            return None;
        }
        let mut answers = Vec::new();
        while answers.is_empty() {
            let mut ready = [PollFd::new(self.source.wake()?, PollFlags::POLLIN)];
            if poll(&mut ready, PATIENCE).unwrap_or_default() == 0 {
                self.source.give_up(now());
                return None;
            }
            self.source.collect(&mut answers, now()).ok()?;
        }
        let (number, Answer::Lease(lease)) = answers.pop()? else { return None };
        self.source.settle(number, &want, Settled::Used, None);
        let stream = TcpStream::from(lease);
        stream.set_nonblocking(false).ok()?;
        Some(stream)
    }
}
