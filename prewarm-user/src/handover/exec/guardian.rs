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
    clock::now,
    listener::Listener,
    supervisor::{End, Supervisor, descriptor},
    tally::Tally,
    target::{Target, pidfd_open},
};
use crate::{
    handover::source::LeaseSource,
    lease::sockopt::{self, TCP_CLOSE, TCP_SYN_SENT},
};

/// How long a supervisor that died is not replaced, at first and at most: one that dies at once must not take the
/// machine with it.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// One that lived this long starts with the shortest pause again.
const LIVED: Duration = Duration::from_secs(30);

/// Guards until no program is left. Returns in whichever process is the guardian then.
pub(super) fn guard<S: LeaseSource>(
    listener: &Listener,
    board: &'static Board,
    source: impl Fn() -> S,
    ready: impl FnOnce(),
) {
    let mut ready = Some(ready);
    let mut pause = PAUSE.0;
    loop {
        // Whoever held the calls on the board is gone.
        let_in_flight_go_on(listener, board);
        let born = now();
        let child = start(listener, board, &source);
        if let Some(ready) = ready.take() {
            ready();
        }
        let ended = match child {
            Started::AsParent(child) => watch(listener, board, child),
            Started::AsOrphan => Ended::Restart,
            Started::NotAtAll => Ended::Restart,
        };
        if ended == Ended::ProgramsGone {
            return;
        }
        if matches!(child, Started::AsOrphan) {
            board.count(Tally::Orphaned);
            continue;
        }
        if now().since(born) > LIVED {
            pause = PAUSE.0;
        }
        if serve_for(listener, board, pause) == Ended::ProgramsGone {
            return;
        }
        pause = (pause * 2).min(PAUSE.1);
    }
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
enum Ended {
    ProgramsGone,
    Restart,
}

fn start<S: LeaseSource>(listener: &Listener, board: &'static Board, source: &impl Fn() -> S) -> Started {
    let guardian = getpid();
    #[expect(unsafe_code, reason = "fork")]
    // SAFETY: guardian and supervisor have one thread, so the child may do whatever the parent could.
    let forked = unsafe { fork() };
    match forked {
        Ok(ForkResult::Parent { child }) => {
            board.count(Tally::Started);
            Started::AsParent(child)
        }
        Err(_no_memory) => Started::NotAtAll,
        Ok(ForkResult::Child) => {
            super::call_me(c"prewarm-lease");
            match pidfd_open(guardian.as_raw(), 0) {
                Ok(handle) if getppid() == guardian => supervise(listener, board, source(), &handle),
                Err(_no_descriptors) if getppid() == guardian => super::leave(1),
                _ => Started::AsOrphan,
            }
        }
    }
}

fn supervise<S: LeaseSource>(listener: &Listener, board: &'static Board, source: S, guardian: &OwnedFd) -> Started {
    match Supervisor::new(listener, board, source).serve(guardian.as_fd()) {
        End::ProgramsGone => super::leave(0),
        End::GuardianGone => {
            super::call_me(c"prewarm-guard");
            Started::AsOrphan
        }
    }
}

/// Sleeps until the supervisor changes its state, and acts on it.
fn watch(listener: &Listener, board: &'static Board, child: Pid) -> Ended {
    let any = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WCONTINUED;
    loop {
        match waitid(Id::Pid(child), any) {
            Ok(WaitStatus::Exited(_, 0)) => return Ended::ProgramsGone,
            Ok(WaitStatus::Stopped(..)) => {
                board.count(Tally::Stopped);
                let ended = stand_in(listener, board, child);
                // What it was doing when it was stopped is done, and it may sit in a receive for a call that is long
                // answered: a fresh one costs a fork and knows where it stands.
                let _dead_already = kill(child, Signal::SIGKILL);
                let _reaped = waitid(Id::Pid(child), WaitPidFlag::WEXITED);
                return ended;
            }
            Ok(WaitStatus::Continued(_)) | Err(nix::Error::EINTR) => {}
            _ => return Ended::Restart,
        }
    }
}

/// Lets calls go on until the stopped supervisor is continued or killed.
fn stand_in(listener: &Listener, board: &'static Board, child: Pid) -> Ended {
    let_in_flight_go_on(listener, board);
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    let Ok(signals) = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC) else {
        return Ended::Restart;
    };
    loop {
        let changes = WaitPidFlag::WEXITED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if !matches!(waitid(Id::Pid(child), changes), Ok(WaitStatus::StillAlive)) {
            return Ended::Restart;
        }
        let mut fds =
            [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // Interrupted: look again.
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        if serve_one(listener, board, &fds[0]) == Ended::ProgramsGone {
            return Ended::ProgramsGone;
        }
        let _noted = signals.read_signal();
    }
}

/// Lets calls go on for a while.
fn serve_for(listener: &Listener, board: &'static Board, pause: Duration) -> Ended {
    let_in_flight_go_on(listener, board);
    let end = now() + pause;
    loop {
        let left = end.since(now());
        if left.is_zero() {
            return Ended::Restart;
        }
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None).is_ok()
            && serve_one(listener, board, &fds[0]) == Ended::ProgramsGone
        {
            return Ended::ProgramsGone;
        }
    }
}

fn serve_one(listener: &Listener, board: &'static Board, ready: &PollFd<'_>) -> Ended {
    let ready = ready.revents().unwrap_or(PollFlags::empty());
    if ready.contains(PollFlags::POLLHUP) {
        return Ended::ProgramsGone;
    }
    if ready.contains(PollFlags::POLLIN) {
        board.guardian.clear();
        if listener.receive(&board.guardian).is_ok() {
            // A refusal means that the program is gone.
            drop(listener.go_on(board.guardian.id()));
            board.count(Tally::Guarded);
        }
        board.guardian.clear();
    }
    Ended::Restart
}

/// Answers the calls that somebody took and did not answer. An answer that was given after all makes the kernel refuse
/// ours, which is harmless.
fn let_in_flight_go_on(listener: &Listener, board: &Board) {
    for slot in board.in_flight() {
        if replaced(slot) {
            drop(listener.succeed(slot.id()));
            board.count(Tally::Finished);
        } else {
            drop(listener.go_on(slot.id()));
            board.count(Tally::Guarded);
        }
        slot.clear();
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
