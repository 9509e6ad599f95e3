//! One direction of a relay: bytes from one socket to the other, in their order, with the close behind them.
//!
//! Comes in: the halves of two connections. Goes out: every byte. Never here: more in memory than one read that the
//! other side did not take, or a read while it still has not.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, Interest, ReadBuf},
    net::tcp::{ReadHalf, WriteHalf},
    time::{sleep, timeout},
};

use super::{Pipes, pipes::Pipe, prove::Rest};

/// How much is read at once.
const READ: usize = 64 << 10;
/// After this many bytes in one direction they no longer pass through user space.
const BULK: u64 = 256 << 10;
/// A direction that is silent for this long gives its pipe back.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the other side may take to accept what is left of a side that has reset.
const LAST_WORDS: Duration = Duration::from_secs(5);

thread_local! {
    /// Where bytes stay between a read and the write that follows at once: connections that say nothing need no memory.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// Where a direction broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The side it reads from has reset.
    Reading,
    /// The side it writes to has.
    Writing,
}

/// A direction that came to its end in order.
#[derive(Debug)]
pub(super) struct Closed<'a>(ReadHalf<'a>);

impl Closed<'_> {
    /// Waits until the side that has closed its direction resets the other one too.
    pub(super) async fn reset(self) {
        drop(self.0.ready(Interest::ERROR).await);
    }
}

/// One direction.
pub(super) struct Flow<'a, 'c> {
    pub(super) from: ReadHalf<'a>,
    pub(super) to: WriteHalf<'a>,
    pub(super) pipes: &'c Pipes,
    pub(super) moved: &'c AtomicU64,
    pub(super) total: &'c mut u64,
}

impl<'a> Flow<'a, '_> {
    /// Moves what was read before, then all that comes, then the close.
    pub(super) async fn run(mut self, mut begun: Rest) -> Result<Closed<'a>, Broken> {
        if !begun.bytes.is_empty() {
            self.write(&begun.bytes).await?;
            begun.bytes = Vec::new();
        }
        let mut streak = 0;
        while !begun.closed {
            let read = self.step().await?;
            begun.closed = read == 0;
            streak += read as u64;
            if streak >= BULK
                && let Some(mut pipe) = self.pipes.get()
            {
                begun.closed = self.splice(&mut pipe).await?;
                streak = 0;
            }
        }
        if !begun.passed {
            self.to.shutdown().await.map_err(|_| Broken::Writing)?;
        }
        Ok(Closed(self.from))
    }

    /// Reads once and writes that; how much it was, zero at the end.
    async fn step(&mut self) -> Result<usize, Broken> {
        let Self { from, to, .. } = self;
        let (read, left) = poll_fn(|context| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                if ready!(Pin::new(&mut *from).poll_read(context, &mut buffer)).is_err() {
                    return Poll::Ready(Err(Broken::Reading));
                }
                let read = buffer.filled();
                if read.is_empty() {
                    return Poll::Ready(Ok((0, Vec::new())));
                }
                Poll::Ready(match Pin::new(&mut *to).poll_write(context, read) {
                    Poll::Ready(Ok(written)) => Ok((read.len(), read[written..].to_vec())),
                    Poll::Ready(Err(_)) => Err(Broken::Writing),
                    Poll::Pending => Ok((read.len(), read.to_vec())),
                })
            })
        })
        .await?;
        self.count(read - left.len());
        if !left.is_empty() {
            self.write(&left).await?;
        }
        Ok(read)
    }

    /// Writes all of it. A side that has reset has its last words delivered, but not for ever.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let Self { from, to, .. } = self;
        tokio::select! {
            written = to.write_all(bytes) => written.map_err(|_| Broken::Writing)?,
            () = gone(from) => return Err(Broken::Reading),
        }
        self.count(bytes.len());
        Ok(())
    }

    /// Moves bytes through a pipe until a pause, or to the end (`true`).
    async fn splice(&mut self, pipe: &mut Pipe<'_>) -> Result<bool, Broken> {
        loop {
            let (from, to) = (self.from.as_ref(), self.to.as_ref());
            let filled = match from.try_io(Interest::READABLE, || pipe.fill(from)) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let filling = from.async_io(Interest::READABLE, || pipe.fill(from));
                    match timeout(PAUSE, filling).await {
                        Err(_silent) => return Ok(false),
                        Ok(filled) => filled,
                    }
                }
                filled => filled,
            };
            match filled {
                Err(_) => return Err(Broken::Reading),
                Ok(0) => return Ok(true),
                Ok(_) => {}
            }
            while pipe.held() > 0 {
                let emptied = match to.try_io(Interest::WRITABLE, || pipe.empty(to)) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => tokio::select! {
                        emptied = to.async_io(Interest::WRITABLE, || pipe.empty(to)) => emptied,
                        () = gone(&self.from) => return Err(Broken::Reading),
                    },
                    emptied => emptied,
                };
                let emptied = emptied.map_err(|_| Broken::Writing)?;
                *self.total += emptied as u64;
                self.moved.fetch_add(emptied as u64, Ordering::Relaxed);
            }
            tokio::task::consume_budget().await;
        }
    }

    fn count(&mut self, bytes: usize) {
        *self.total += bytes as u64;
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Waits until a side has reset, and then as long as its last words may take.
async fn gone(from: &ReadHalf<'_>) {
    drop(from.ready(Interest::ERROR).await);
    sleep(LAST_WORDS).await;
}
