//! Pipes through which bytes pass from socket to socket inside the kernel, kept for the next who has many.
//!
//! Comes in: a wish. Goes out: an empty pipe, or none when enough are in use. Never here: a pipe with bytes in it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    sys::resource::{Resource, getrlimit},
    unistd::pipe2,
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
};

/// Bytes that a pipe holds where the system allows it; what it holds by default is too little for a fast link.
const SIZE: i32 = 1 << 20;
/// How many pipes there are at most, each with up to [`SIZE`] of what peers sent.
const MOST: u64 = 128;
/// Of the descriptors that this process may have, pipes take at most one in so many.
const SHARE: u64 = 8;

/// The pipes of all relays.
#[derive(Debug)]
pub struct Pipes {
    idle: Mutex<Vec<Ends>>,
    places: Semaphore,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Ends {
    fn open() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Refused to those who have many pipes; then it is as large as it is.
        let _size = fcntl(&write, FcntlArg::F_SETPIPE_SZ(SIZE));
        Ok(Self { read, write })
    }
}

impl Default for Pipes {
    /// As many pipes as leave enough descriptors for connections.
    fn default() -> Self {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        Self::new(MOST.min(descriptors / SHARE / 2))
    }
}

impl Pipes {
    /// At most so many pipes.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self { idle: Mutex::default(), places: Semaphore::new(usize::try_from(most).unwrap_or(0)) }
    }

    /// An empty pipe, unless all are in use or there are no descriptors left.
    pub(super) fn get(&self) -> Option<Pipe<'_>> {
        let place = self.places.try_acquire().ok()?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let ends = idle.map_or_else(Ends::open, Ok).ok()?;
        Some(Pipe { pipes: self, ends: Some(ends), held: 0, _place: place })
    }
}

/// A pipe in use.
#[derive(Debug)]
pub(super) struct Pipe<'a> {
    pipes: &'a Pipes,
    ends: Option<Ends>,
    held: usize,
    _place: SemaphorePermit<'a>,
}

impl Pipe<'_> {
    /// Bytes in it.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Takes what a socket has; zero when that is at its end.
    pub(super) fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let filled = splice(from.as_fd(), None, &ends.write, None, SIZE as usize, flags())?;
        self.held += filled;
        Ok(filled)
    }

    /// Gives a socket what it takes.
    pub(super) fn empty(&mut self, to: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let emptied = splice(&ends.read, None, to.as_fd(), None, self.held, flags())?;
        if emptied == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held -= emptied;
        Ok(emptied)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        if let (0, Some(ends)) = (self.held, self.ends.take()) {
            self.pipes.idle.lock().unwrap_or_else(PoisonError::into_inner).push(ends);
        }
    }
}
