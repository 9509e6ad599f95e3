//! The guardian: the supervisor's parent, which holds the listener too, so that no call ever waits for a supervisor that
//! is dead or stopped.
//!
//! Comes in: the supervisor's death, stop, continuation. Goes out: the word to go on, for the calls it left behind and
//! all that follow. Never here: a lease, or work while the supervisor runs: it sleeps in `waitid`.
//!
//! When the guardian dies, the supervisor becomes guardian and starts a new supervisor. Both dying within the same few
//! hundred microseconds is the one thing that programs would notice: `connect()` fails with `ENOSYS` then.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll, ppoll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        time::TimeSpec,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{ForkResult, Pid, fork, getpid, getppid},
};

use super::{
    board::{Board, Slot},
    listener::Listener,
    supervisor::{End, Supervisor, descriptor},
    tally::Tally,
    target::{Target, pidfd_open},
};
use crate::{
    handover::{
        clock::now,
        source::{LeaseSource, Patience},
    },
    lease::sockopt::{self, TCP_CLOSE, TCP_SYN_SENT},
};

/// How long a supervisor that died is not replaced, at first and at most: one that dies at once must not take the
/// machine with it.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// One that lived this long starts with the shortest pause again.
const LIVED: Duration = Duration::from_secs(30);

/// The guardian of one filter.
pub(super) struct Guardian<F> {
    /// Where calls come from.
    pub(super) listener: Listener,
    /// What is shared with the supervisor.
    pub(super) board: &'static Board,
    /// How long a program may wait for an answer.
    pub(super) patience: Patience,
    /// Makes the source of a new supervisor.
    pub(super) source: F,
}

/// What `fork` made of us.
#[derive(Clone, Copy, Debug)]
enum Started {
    /// The guardian of this supervisor.
    AsParent(Pid),
    /// A supervisor whose guardian died: the guardian now.
    AsOrphan,
    /// Still the guardian, and without a supervisor.
    NotAtAll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// No program is left.
    End,
    /// A supervisor died, or none could be started.
    GoOn,
    /// A supervisor was stopped and continued.
    Afresh,
}

impl<S: LeaseSource, F: Fn() -> S> Guardian<F> {
    /// Guards until no program is left. Returns in whichever process is the guardian then.
    pub(super) fn guard(&self) {
        let mut pause = PAUSE.0;
        loop {
            // Whoever held the calls on the board is gone.
            self.let_in_flight_go_on();
            let born = now();
            let next = match self.start() {
                Started::AsParent(child) => self.watch(child),
                Started::NotAtAll => Next::GoOn,
                Started::AsOrphan => {
                    self.board.count(Tally::Orphaned);
                    continue;
                }
            };
            if now().since(born) > LIVED {
                pause = PAUSE.0;
            }
            match next {
                Next::Afresh => {}
                Next::GoOn if self.stand_in_for(pause) == Next::GoOn => pause = (pause * 2).min(PAUSE.1),
                Next::GoOn | Next::End => return,
            }
        }
    }

    fn start(&self) -> Started {
        let guardian = getpid();
        #[expect(unsafe_code, reason = "fork")]
        // SAFETY: guardian and supervisor have one thread, so the child may do whatever the parent could.
        let forked = unsafe { fork() };
        match forked {
            Ok(ForkResult::Parent { child }) => {
                self.board.count(Tally::Started);
                Started::AsParent(child)
            }
            Err(_no_memory) => Started::NotAtAll,
            Ok(ForkResult::Child) => {
                super::call_me(c"prewarm-lease");
                match pidfd_open(guardian.as_raw(), 0) {
                    Ok(handle) if getppid() == guardian => self.supervise(&handle),
                    Err(_no_descriptors) if getppid() == guardian => super::leave(1),
                    _ => Started::AsOrphan,
                }
            }
        }
    }

    fn supervise(&self, guardian: &OwnedFd) -> Started {
        let mut supervisor = Supervisor::new(&self.listener, self.board, (self.source)(), self.patience);
        match supervisor.serve(guardian.as_fd()) {
            End::ProgramsGone => super::leave(0),
            End::GuardianGone => {
                super::call_me(c"prewarm-guard");
                Started::AsOrphan
            }
        }
    }

    /// Sleeps until the supervisor changes its state, and acts on it.
    fn watch(&self, child: Pid) -> Next {
        let any = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WCONTINUED;
        loop {
            match waitid(Id::Pid(child), any) {
                Ok(WaitStatus::Exited(_, 0)) => return Next::End,
                Ok(WaitStatus::Stopped(..)) => {
                    self.board.count(Tally::Stopped);
                    let next = self.stand_in_while_stopped(child);
                    // What it was doing when it was stopped is done, and it may sit in a receive for a call that is
                    // long answered: a fresh one costs a fork and knows where it stands.
                    let _dead_already = kill(child, Signal::SIGKILL);
                    let _reaped = waitid(Id::Pid(child), WaitPidFlag::WEXITED);
                    return next;
                }
                Ok(WaitStatus::Continued(_)) | Err(nix::Error::EINTR) => {}
                _ => return Next::GoOn,
            }
        }
    }

    /// Lets calls go on until the stopped supervisor is continued or killed.
    fn stand_in_while_stopped(&self, child: Pid) -> Next {
        self.let_in_flight_go_on();
        let Ok(signals) = SignalFd::with_flags(&SigSet::from(Signal::SIGCHLD), SfdFlags::SFD_NONBLOCK) else {
            return Next::GoOn;
        };
        loop {
            let changes = WaitPidFlag::WEXITED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            match waitid(Id::Pid(child), changes) {
                Ok(WaitStatus::StillAlive) => {}
                Ok(WaitStatus::Continued(_)) => return Next::Afresh,
                _ => return Next::GoOn,
            }
            let mut fds = [
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            // Interrupted: look again.
            if poll(&mut fds, PollTimeout::NONE).is_err() {
                continue;
            }
            if self.let_one_go_on(&fds[0]) == Next::End {
                return Next::End;
            }
            let _noted = signals.read_signal();
        }
    }

    /// Lets calls go on for a while.
    fn stand_in_for(&self, pause: Duration) -> Next {
        self.let_in_flight_go_on();
        let end = now() + pause;
        loop {
            let left = end.since(now());
            if left.is_zero() {
                return Next::GoOn;
            }
            let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            if ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None).is_ok()
                && self.let_one_go_on(&fds[0]) == Next::End
            {
                return Next::End;
            }
        }
    }

    fn let_one_go_on(&self, ready: &PollFd<'_>) -> Next {
        let ready = ready.revents().unwrap_or(PollFlags::empty());
        let slot = &self.board.guardian;
        if ready.contains(PollFlags::POLLIN) {
            slot.clear();
            if self.listener.receive(slot).is_ok() {
                // A refusal means that the program is gone.
                drop(self.listener.go_on(slot.id()));
                self.board.count(Tally::Guarded);
            }
            slot.clear();
        }
        if ready.contains(PollFlags::POLLHUP) { Next::End } else { Next::GoOn }
    }

    /// Answers the calls that somebody took and did not answer. An answer that was given after all makes the kernel
    /// refuse ours, which is harmless.
    fn let_in_flight_go_on(&self) {
        for slot in self.board.in_flight() {
            if replaced(slot) {
                drop(self.listener.succeed(slot.id()));
                self.board.count(Tally::Finished);
            } else {
                drop(self.listener.go_on(slot.id()));
                self.board.count(Tally::Guarded);
            }
            slot.clear();
        }
    }
}

/// Whether the lease is in the program's hands already, and only the answer is missing: then the call must not run, it
/// would fail with `EISCONN`. A socket that the program had connected itself looks the same, and "connected" is the
/// right answer there too.
fn replaced(slot: &Slot) -> bool {
    Target::open(slot.thread())
        .and_then(|target| target.socket(descriptor(slot)))
        .and_then(|socket| sockopt::tcp_info(socket.as_fd()))
        .is_ok_and(|info| ![TCP_CLOSE, TCP_SYN_SENT].contains(&info.state))
}
