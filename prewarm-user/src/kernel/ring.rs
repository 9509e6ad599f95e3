//! The reader of the ring.
//!
//! The kernel wakes nobody for a record: 5 µs each would cost more than everything else. While there is traffic the
//! reader looks every 250 µs; after 10 ms without any it says in a map that it sleeps, looks once more, and waits to
//! be woken by the first record.

use std::{
    os::fd::{AsFd as _, AsRawFd, RawFd},
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use aya::maps::{Array, MapData, RingBuf};
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use prewarm_ebpf::abi::SLEEPING;
use tokio::io::{Interest, unix::AsyncFd};

use super::{EventSource, KernelError, Record};
use crate::model::Observation;

/// How often the ring is looked at while there is traffic. Tokio's own timers are too coarse.
const TICK: Duration = Duration::from_micros(250);
/// How many times it is found empty before the reader sleeps: 10 ms.
const IDLE_TICKS: u32 = 40;
/// A sleeping reader looks anyway after this long.
const SAFETY: Duration = Duration::from_secs(1);
/// Records taken at once at most.
const BATCH: usize = 4096;

/// The ring, for whoever looks by himself.
pub struct Ring {
    ring: RingBuf<MapData>,
    garbled: u64,
}

impl Ring {
    pub(super) const fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring, garbled: 0 }
    }

    /// Takes the records that are there, oldest first, at most `limit`, and gives how many.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(Record)) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(item) = self.ring.next() else { break };
            match Record::read(&item) {
                Some(record) => each(record),
                None => self.garbled += 1,
            }
            count += 1;
        }
        count
    }

    /// Records that were none of the contract's; always zero.
    #[must_use]
    pub const fn garbled(&self) -> u64 {
        self.garbled
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers something with the runtime that owns its descriptor.
#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
pub(super) fn readable<T: AsRawFd>(inner: T) -> Result<AsyncFd<T>, KernelError> {
    // SAFETY: the rings and the timer that come here own their descriptor, never change it, and close it on drop.
    unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }
        .map_err(|error| KernelError::System { context: "epoll", source: std::io::Error::from(error) })
}

/// The ring as a source of observations.
pub struct RingSource {
    ring: AsyncFd<Ring>,
    sleeping: Array<MapData, u64>,
    timer: AsyncFd<Timer>,
    ticking: bool,
    empty: u32,
    other_class: u64,
}

impl RingSource {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(ring: Ring, sleeping: Array<MapData, u64>) -> Result<Self, KernelError> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
            .map_err(KernelError::errno("timerfd_create"))?;
        let (ring, timer) = (readable(ring)?, readable(Timer(timer))?);
        Ok(Self { ring, sleeping, timer, ticking: false, empty: 0, other_class: 0 })
    }

    /// Records that were none of the contract's; always zero.
    #[must_use]
    pub fn garbled(&self) -> u64 {
        self.ring.get_ref().garbled()
    }

    /// Questions and answers of another class than IN, which are no observations.
    #[must_use]
    pub const fn other_class(&self) -> u64 {
        self.other_class
    }

    /// Appends what the ring holds and gives how many observations that are. Ticks are counted by what was taken, so
    /// that records of another class keep the reader awake too.
    fn take(&mut self, batch: &mut Vec<Observation>) -> usize {
        let before = batch.len();
        let other_class = &mut self.other_class;
        let taken = self.ring.get_mut().drain(BATCH, |record| match record.into_observation() {
            Some(observation) => batch.push(observation),
            None => *other_class += 1,
        });
        if taken > 0 {
            self.empty = 0;
        }
        batch.len() - before
    }

    async fn tick(&mut self) -> Result<(), KernelError> {
        if !self.ticking {
            let every = Expiration::Interval(TimeSpec::from_duration(TICK));
            self.timer
                .get_ref()
                .0
                .set(every, TimerSetTimeFlags::empty())
                .map_err(KernelError::errno("timerfd_settime"))?;
            self.ticking = true;
        }
        let mut ready = self.timer.readable().await.map_err(KernelError::system("epoll"))?;
        // A tick that was missed while a batch was worked on counts as one; the error is "would block".
        let _missed = ready.get_inner().0.wait();
        ready.clear_ready();
        Ok(())
    }

    async fn sleep(&mut self) -> Result<(), KernelError> {
        if self.ticking {
            self.timer.get_ref().0.unset().map_err(KernelError::errno("timerfd_settime"))?;
            self.ticking = false;
        }
        tokio::select! {
            ready = self.ring.readable() => ready.map_err(KernelError::system("epoll"))?.clear_ready(),
            () = tokio::time::sleep(SAFETY) => {}
        }
        Ok(())
    }

    fn say(&mut self, sleeping: bool) -> Result<(), KernelError> {
        self.sleeping.set(0, u64::from(sleeping), 0).map_err(|source| KernelError::Map { map: SLEEPING, source })?;
        // Pairs with the full barrier of the kernel's submit: either it sees the flag, or we see the record.
        fence(Ordering::SeqCst);
        Ok(())
    }
}

impl EventSource for RingSource {
    async fn fill(&mut self, batch: &mut Vec<Observation>) -> Result<usize, KernelError> {
        loop {
            let count = self.take(batch);
            if count > 0 {
                return Ok(count);
            }
            if self.empty < IDLE_TICKS {
                self.empty += 1;
                self.tick().await?;
                continue;
            }
            self.say(true)?;
            let count = self.take(batch);
            if count == 0 {
                self.sleep().await?;
            }
            self.say(false)?;
            self.empty = 0;
            if count > 0 {
                return Ok(count);
            }
        }
    }
}
