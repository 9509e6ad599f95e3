//! From `prewarm exec` to the program: guardian first, then the filter, then exec.
//!
//! Comes in: a [`Plan`]. Goes out: the program in place of this process, or why not. Never here: a filter without a
//! guardian that has said it is there.

use std::{
    ffi::{CString, OsString},
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStringExt, net::UnixStream},
    },
    path::PathBuf,
};

use nix::{
    sys::{
        signal::{SigHandler, SigSet, Signal, signal},
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
        wait::waitpid,
    },
    unistd::{ForkResult, chdir, execvp, fork, setsid},
};

use super::{board::Board, call_me, filter, guardian::Guardian, leave, listener::Listener, tally};
use crate::handover::{client::ControlSource, source::Patience};

/// What to run and how.
#[derive(Debug)]
pub struct Plan {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The daemon's control socket.
    pub socket: PathBuf,
    /// How long a program may wait for the daemon's answer.
    pub patience: Patience,
    /// Where the counts go, as one JSON object, when the last process of the program has ended.
    pub report: Option<File>,
}

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no such program.
    #[error("{0}: not found")]
    NotFound(String),
    /// There is, and it can't be executed.
    #[error("{program}: can't be executed")]
    NotExecutable {
        /// Which.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Called from a process with several threads, which can't be forked safely.
    #[error("must be called before any thread is started")]
    Threads,
    /// Something of ours failed before the program could be started.
    #[error("the supervisor could not be started")]
    Launch(#[from] io::Error),
}

impl ExecError {
    /// The exit code, as `env` and shells have it.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable { .. } => 126,
            Self::Threads | Self::Launch(_) => 2,
        }
    }
}

/// Becomes the program. `warn` is told, once, when it has to run without leases.
///
/// # Errors
/// Always an error when it returns: the program did not start.
pub fn run(plan: Plan, warn: impl FnOnce(&str)) -> ExecError {
    match supervise(&plan, warn) {
        Ok(()) => become_program(plan.command),
        Err(error) => error,
    }
}

/// Puts this process under supervision, or tells why it goes without.
fn supervise(plan: &Plan, warn: impl FnOnce(&str)) -> Result<(), ExecError> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(ExecError::Threads);
    }
    let board = Board::create()?;
    let (mut here, there) = UnixStream::pair()?;
    start_guardian(plan, board, &here, there)?;
    let mut number = [0; 4];
    here.read_exact(&mut number)?;
    let listener = match install() {
        Ok(listener) => listener,
        Err(error) => {
            let reason = match error.raw_os_error() {
                Some(libc::EBUSY) => "a supervisor of another program watches it already".to_owned(),
                _ => format!("the kernel refuses the filter ({error})"),
            };
            warn(&format!("running without leases: {reason}"));
            return Ok(());
        }
    };
    // Where only ancestors may look into a process (Yama), this names the guardian and its children as well. It does
    // not reach the children of the program: those run untouched there.
    allow_to_look(u32::from_ne_bytes(number));
    pass(&here, &listener)?;
    here.read_exact(&mut [0])?;
    Ok(())
}

/// Names a process that may read this one's memory and descriptors. Without Yama there is nothing to name it to.
fn allow_to_look(guardian: u32) {
    #[expect(unsafe_code, reason = "prctl(PR_SET_PTRACER) has no wrapper")]
    // SAFETY: takes numbers and touches no memory of ours.
    let _no_yama = unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::from(guardian), 0, 0, 0) };
}

/// Installs the filter, giving up new privileges only where it has to: a program run by root may still change its user.
fn install() -> io::Result<OwnedFd> {
    filter::install().or_else(|error| {
        if error.raw_os_error() != Some(libc::EACCES) {
            return Err(error);
        }
        nix::sys::prctl::set_no_new_privs()?;
        filter::install()
    })
}

/// Starts the guardian as a child of nobody here: the program must not find a child that it did not start.
fn start_guardian(plan: &Plan, board: &'static Board, here: &UnixStream, there: UnixStream) -> io::Result<()> {
    match fork_once()? {
        ForkResult::Parent { child } => {
            drop(there);
            waitpid(child, None)?;
            Ok(())
        }
        ForkResult::Child => {
            // Its own session: what a terminal sends to the program does not reach it.
            let code = i32::from(setsid().is_err());
            if let Ok(ForkResult::Child) = fork_once() {
                let _closed_below: RawFd = here.as_raw_fd();
                leave(i32::from(be_guardian(plan, board, there).is_err()));
            }
            leave(code)
        }
    }
}

fn fork_once() -> nix::Result<ForkResult> {
    #[expect(unsafe_code, reason = "fork")]
    // SAFETY: `supervise` has seen that there is one thread, so the child may do whatever the parent could.
    unsafe {
        fork()
    }
}

fn be_guardian(plan: &Plan, board: &'static Board, mut launcher: UnixStream) -> io::Result<()> {
    call_me(c"prewarm-guard");
    let socket = std::path::absolute(&plan.socket)?;
    let report = plan.report.as_ref();
    detach(&launcher, report)?;
    launcher.write_all(&std::process::id().to_ne_bytes())?;
    // The end of the stream means that the program runs without us.
    let Some(listener) = receive(&launcher)? else { return Ok(()) };
    let listener = Listener::new(listener);
    // The launcher waits for this byte with the filter on. From here on the listener is guarded.
    launcher.write_all(b"!")?;
    drop(launcher);
    Guardian { listener, board, patience: plan.patience, source: || ControlSource::new(socket.clone()) }.guard();
    if let Some(mut report) = report {
        serde_json::to_writer(report, &tally::report(board))?;
        report.write_all(b"\n")?;
    }
    Ok(())
}

/// Lets go of everything that the program's owner might wait for: descriptors, the working directory, signals.
fn detach(launcher: &UnixStream, report: Option<&File>) -> io::Result<()> {
    // What ends the program must not end its guardian first: it ends when the last process of the program has.
    for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGPIPE, Signal::SIGUSR1] {
        #[expect(unsafe_code, reason = "signal dispositions")]
        // SAFETY: no handler runs, the signal is ignored.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    SigSet::from(Signal::SIGCHLD).thread_block()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    drop(null);
    let mut keep = vec![launcher.as_raw_fd()];
    keep.extend(report.map(AsRawFd::as_raw_fd));
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep {
        close_between(from, fd)?;
        from = fd + 1;
    }
    close_between(from, RawFd::MAX)?;
    chdir("/")?;
    Ok(())
}

/// Closes the descriptors from `first` up to, not including, `end`.
fn close_between(first: RawFd, end: RawFd) -> io::Result<()> {
    if first >= end {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "close_range(2) has no wrapper")]
    // SAFETY: this process is a copy that will never touch these descriptors: it leaves through `_exit`.
    let result = unsafe { libc::close_range(first as libc::c_uint, (end - 1) as libc::c_uint, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn pass(stream: &UnixStream, listener: &OwnedFd) -> io::Result<()> {
    let fds = [listener.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(stream.as_raw_fd(), &[IoSlice::new(b"l")], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut rights = nix::cmsg_space!(RawFd);
    let message =
        recvmsg::<UnixAddr>(stream.as_fd().as_raw_fd(), &mut parts, Some(&mut rights), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let fd = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    Ok(fd.map(crate::handover::owned))
}

fn become_program(command: Vec<OsString>) -> ExecError {
    // Rust ignores this signal from its start on; a program expects to find it as a shell would leave it.
    #[expect(unsafe_code, reason = "signal dispositions")]
    // SAFETY: no handler is installed, the default is.
    let reset = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    if let Err(error) = reset {
        return ExecError::Launch(error.into());
    }
    let name = command.first().map(|program| program.display().to_string()).unwrap_or_default();
    let arguments: Result<Vec<_>, _> = command.into_iter().map(|text| CString::new(text.into_vec())).collect();
    let arguments = match arguments {
        Ok(arguments) if !arguments.is_empty() => arguments,
        _ => return ExecError::NotFound(name),
    };
    let Err(error) = execvp(&arguments[0], &arguments);
    match error {
        nix::Error::ENOENT | nix::Error::ENOTDIR => ExecError::NotFound(name),
        error => ExecError::NotExecutable { program: name, source: error.into() },
    }
}
