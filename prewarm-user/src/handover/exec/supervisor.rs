//! The supervisor: answers each `connect()` of the program, with a lease where there is one.
//!
//! Comes in: notifications, answers of the lease source. Goes out: a replaced socket, or the word to go on. Never here:
//! a call that waits longer than it may for the source, or a path that ends without an answer. One thread, which
//! never blocks on one program: questions are sent as they come and answered in any order.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    rc::Rc,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        socket::{SockType, getsockopt, sockopt::SockType as SocketType},
        time::TimeSpec,
    },
};

use super::{
    board::{Board, SLOTS, Slot},
    carry::{Baseline, Options},
    fitness,
    listener::Listener,
    tally::Tally,
    target::{Target, Targets, read_address},
};
use crate::{
    handover::{
        clock::now,
        protocol::{Settled, Want},
        source::{Answer, LeaseSource, Patience, Prospect},
    },
    lease::sockopt,
    model::Timestamp,
};

/// How long what is left to do for an answered call waits: the program was woken on this processor, and runs only while
/// the supervisor sleeps. Yielding does not do: whoever runs shortly is preferred to run again. A program that connects to
/// a neighbour has its connection by then.
const BREATH: Duration = Duration::from_millis(1);

/// Why a supervisor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// No process is left that the filter is on.
    ProgramsGone,
    /// The guardian died.
    GuardianGone,
}

/// A call that waits for the source's answer.
#[derive(Debug)]
struct Pending {
    target: Rc<Target>,
    socket: OwnedFd,
    /// What a lease has to be like, or why there is no use for one.
    wishes: Result<Wishes, Tally>,
    deadline: Timestamp,
}

/// The supervisor of one filter.
#[derive(Debug)]
pub(super) struct Supervisor<'a, S> {
    listener: &'a Listener,
    board: &'static Board,
    source: S,
    patience: Patience,
    baseline: Baseline,
    targets: Targets,
    pending: [Option<Pending>; SLOTS],
    /// Where the call leads that was just found to have no lease.
    passed: Option<SocketAddr>,
    /// What is left to do for calls that were answered.
    left: Vec<Left>,
}

/// What is left to do for a call that was answered.
#[derive(Debug)]
enum Left {
    /// To tell where it leads.
    Report { destination: SocketAddr },
    /// To say what became of its lease.
    Settle { id: u64, settled: Settled, pending: Pending },
}

impl<'a, S: LeaseSource> Supervisor<'a, S> {
    /// A supervisor with nothing in its hands. `patience` is how long a program may wait for an answer.
    pub(super) fn new(listener: &'a Listener, board: &'static Board, source: S, patience: Patience) -> Self {
        Self {
            listener,
            board,
            source,
            patience,
            baseline: Baseline::default(),
            targets: Targets::default(),
            pending: [const { None }; SLOTS],
            passed: None,
            left: Vec::new(),
        }
    }

    /// Serves until the programs or the guardian are gone.
    pub(super) fn serve(&mut self, guardian: BorrowedFd<'_>) -> End {
        crate::handover::nimble();
        self.source.prepare(now());
        self.baseline = Baseline::read();
        rehearse(&self.baseline);
        let mut answers = Vec::new();
        loop {
            let ready = self.wait(guardian);
            let left = std::mem::take(&mut self.left);
            if ready.answers {
                self.collect(&mut answers);
            }
            if ready.call
                && let Some(free) = self.free_slot()
            {
                self.receive(free);
            }
            self.give_up_overdue();
            left.into_iter().for_each(|left| self.tidy(left));
            if ready.programs_gone || ready.guardian_gone {
                let left = std::mem::take(&mut self.left);
                left.into_iter().for_each(|left| self.tidy(left));
            }
            if ready.programs_gone {
                return End::ProgramsGone;
            }
            if ready.guardian_gone {
                self.let_all_go_on(Tally::Guarded);
                return End::GuardianGone;
            }
        }
    }

    fn free_slot(&self) -> Option<usize> {
        self.pending.iter().position(Option::is_none)
    }

    fn wait(&self, guardian: BorrowedFd<'_>) -> Ready {
        let calls = if self.free_slot().is_some() { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(self.listener.as_fd(), calls), PollFd::new(guardian, PollFlags::POLLIN)];
        fds.extend(self.source.wake().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let deadline = self.pending.iter().flatten().map(|pending| pending.deadline).min();
        let timeout = deadline.map(|deadline| deadline.since(now()));
        let timeout = if self.left.is_empty() { timeout } else { Some(timeout.unwrap_or(BREATH).min(BREATH)) };
        let timeout = timeout.map(TimeSpec::from_duration);
        // Interrupted or out of memory: nothing is ready, and the next round asks again.
        if ppoll(&mut fds, timeout, None).is_err() {
            return Ready::default();
        }
        let events = |index: usize| fds.get(index).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
        Ready {
            call: events(0).contains(PollFlags::POLLIN),
            programs_gone: events(0).contains(PollFlags::POLLHUP),
            guardian_gone: !events(1).is_empty(),
            answers: !events(2).is_empty(),
        }
    }

    /// Takes a call from the kernel and asks about it, or lets it go on.
    fn receive(&mut self, index: usize) {
        let slot = &self.board.slots[index];
        slot.clear();
        // The program may have been killed since the listener became readable.
        if self.listener.receive(slot).is_err() {
            slot.clear();
            return;
        }
        match self.consider(slot) {
            Ok(pending) => self.pending[index] = Some(pending),
            Err(reason) => {
                // While the number still means this socket.
                let passed = self.passed.take().filter(|_| self.is_stream(slot));
                self.go_on(slot, reason);
                self.left.extend(passed.map(|destination| Left::Report { destination }));
            }
        }
    }

    /// Does what nobody waits for any more.
    fn tidy(&mut self, left: Left) {
        match left {
            Left::Report { destination } => self.source.passed(destination),
            Left::Settle { id, settled, pending } => {
                self.source.settle(id, settled, None);
                // Here the program's own socket ends.
                drop(pending);
            }
        }
    }

    fn is_stream(&mut self, slot: &Slot) -> bool {
        let socket = self.targets.find(slot.thread(), descriptor(slot));
        socket.is_ok_and(|(_, socket)| getsockopt(&socket, SocketType).is_ok_and(|kind| kind == SockType::Stream))
    }

    fn consider(&mut self, slot: &Slot) -> Result<Pending, Tally> {
        let thread = slot.thread();
        let destination = read_address(thread, slot.argument(1), slot.argument(2))?;
        // Most calls end here: no descriptor of the program is touched where there is nothing to hand over.
        let patience = match self.source.prospect(destination, now()) {
            Prospect::Perhaps(saves) => self.patience.of(saves),
            Prospect::Nothing => {
                self.passed = Some(destination);
                return Err(Tally::NoLease);
            }
            Prospect::Absent => return Err(Tally::Absent),
        };
        let (target, socket) = self.targets.find(thread, descriptor(slot)).map_err(|_denied| Tally::Access)?;
        // Memory and socket were read by number; if the call still waits, it was the right process.
        if !self.listener.waits(slot.id()) {
            return Err(Tally::Gone);
        }
        fitness::check(socket.as_fd(), destination)?;
        let netns_cookie = sockopt::netns_cookie(socket.as_fd()).ok();
        let want = Want { destination: Some(destination), netns_cookie, ..Want::default() };
        let now = now();
        if !self.source.ask(slot.id(), &want, now) {
            return Err(Tally::Absent);
        }
        // While the daemon looks for a lease there is time for what only matters if it finds one.
        let wishes = survey(&target, descriptor(slot), socket.as_fd(), destination.is_ipv4());
        Ok(Pending { target, socket, wishes, deadline: now + patience })
    }

    fn collect(&mut self, answers: &mut Vec<(u64, Answer)>) {
        let lost = self.source.collect(answers, now()).is_err();
        for (id, answer) in answers.drain(..) {
            let Some(index) = self.board.slots.iter().position(|slot| slot.id() == id) else { continue };
            let Some(pending) = self.pending[index].take() else { continue };
            let slot = &self.board.slots[index];
            match answer {
                Answer::Lease(lease, _) => self.hand_over(slot, pending, lease),
                Answer::Nothing { late: true } => self.go_on(slot, Tally::Late),
                Answer::Nothing { late: false } => self.go_on(slot, Tally::NoLease),
                Answer::Refused => self.go_on(slot, Tally::Refused),
            }
        }
        if lost {
            self.let_all_go_on(Tally::Absent);
        }
    }

    /// Puts the lease in the place of the program's socket and makes `connect()` succeed.
    fn hand_over(&mut self, slot: &Slot, pending: Pending, lease: OwnedFd) {
        let (id, fd) = (slot.id(), descriptor(slot));
        let wishes = match &pending.wishes {
            // Another thread may have closed the socket and opened something else under its number meanwhile.
            Ok(_) if !pending.target.still_has(fd, pending.socket.as_fd()) => Err(Tally::Gone),
            Ok(wishes) => Ok(wishes),
            Err(reason) => Err(*reason),
        };
        let wishes = match wishes {
            Ok(wishes) => wishes,
            Err(reason) => {
                self.go_on(slot, reason);
                self.board.count(Tally::GivenBack);
                return self.source.settle(id, Settled::Unfit, Some(lease.as_fd()));
            }
        };
        let result = match wishes.options.grant(lease.as_fd(), &self.baseline) {
            Err(_differs) => Err(Tally::Option),
            Ok(()) => self.replace(id, fd, lease, wishes.closes_on_exec).map_err(|_refused| Tally::Gone),
        };
        let settled = match result {
            Ok(()) => {
                slot.clear();
                self.board.count(Tally::Replaced);
                Settled::Used
            }
            // A lease that took on a program's options is no use to another.
            Err(reason) => {
                self.go_on(slot, reason);
                Settled::Failed
            }
        };
        self.left.push(Left::Settle { id, settled, pending });
    }

    /// Two steps that a signal can't come between (the filter's flag), but death can: then the guardian sees which of
    /// them was done. The kernel's one-step form (`SECCOMP_ADDFD_FLAG_SEND`) won't do: it makes `connect()` return the
    /// descriptor's number.
    fn replace(&self, id: u64, fd: RawFd, lease: OwnedFd, closes_on_exec: bool) -> io::Result<()> {
        self.listener.replace(id, fd, lease.as_fd(), closes_on_exec)?;
        // The program's from here on: were it to close it at once, our copy would keep the connection open.
        drop(lease);
        self.listener.succeed(id)
    }

    fn give_up_overdue(&mut self) {
        let now = now();
        if self.pending.iter().flatten().any(|pending| pending.deadline <= now) {
            self.source.give_up(now);
            self.let_all_go_on(Tally::Slow);
        }
    }

    fn let_all_go_on(&mut self, reason: Tally) {
        for index in 0..SLOTS {
            if self.pending[index].take().is_some() {
                self.go_on(&self.board.slots[index], reason);
            }
        }
    }

    fn go_on(&self, slot: &Slot, reason: Tally) {
        // A refusal means that the program is gone or that the guardian has answered for us.
        drop(self.listener.go_on(slot.id()));
        slot.clear();
        self.board.count(reason);
    }
}

/// What a round of waiting found.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    call: bool,
    programs_gone: bool,
    guardian_gone: bool,
    answers: bool,
}

/// What a lease must be like to stand for the program's socket.
#[derive(Debug)]
struct Wishes {
    options: Options,
    closes_on_exec: bool,
}

/// Looks closely at a socket for which there may be a lease.
fn survey(target: &Target, fd: RawFd, socket: BorrowedFd<'_>, v4: bool) -> Result<Wishes, Tally> {
    fitness::check_closely(socket)?;
    target.knows_once(fd, socket)?;
    let closes_on_exec = target.closes_on_exec(fd).map_err(|_gone| Tally::Access)?;
    let options = Options::of(socket, v4).map_err(|_gone| Tally::Access)?;
    Ok(Wishes { options, closes_on_exec })
}

/// Goes through what a hand-over does once, with a socket of our own, while the program still starts: after a fork each
/// page that is touched for the first time costs about a microsecond, and a program that makes one connection would
/// pay for all of them.
fn rehearse(baseline: &Baseline) {
    let Ok(socket) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None) else { return };
    let Ok(own) = i32::try_from(std::process::id()) else { return };
    let Ok(target) = Target::open(own) else { return };
    if fitness::check(socket.as_fd(), SocketAddr::from(([192, 0, 2, 1], 443))).is_ok()
        && let Ok(wishes) = survey(&target, socket.as_raw_fd(), socket.as_fd(), true)
    {
        drop(wishes.options.grant(socket.as_fd(), baseline));
    }
}

/// The descriptor that was passed to `connect()`.
pub(super) fn descriptor(slot: &Slot) -> RawFd {
    (slot.argument(0) & 0xffff_ffff) as RawFd
}
