//! Reading the ring without a wake-up for each record.
//!
//! The reader polls while there is traffic. When nothing has come for a while it says so in a map and sleeps; the
//! program that sees the flag clears it and wakes the reader. So a busy ring costs no wake-ups and a quiet one no
//! polls. The same is done by network drivers with their interrupts (NAPI, Documentation/networking/napi.rst).

use std::{
    fmt, io,
    os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aya::maps::{Array, MapData, RingBuf};
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, timeout},
};

use super::{EventSource, KernelError, observation};
use crate::model::Observation;

/// The pause between looks while there is traffic: the latency it adds, at most. Tokio's own timer is too coarse.
const POLL: Duration = Duration::from_micros(250);
/// After this long without a record the reader sleeps.
const QUIET: Duration = Duration::from_millis(10);
/// A sleeping reader looks all the same after this, should a wake-up ever be lost.
const SAFETY: Duration = Duration::from_secs(2);
/// Records taken at once, so that a flood does not keep the reader from its other work.
const BATCH: usize = 4096;

/// The ring as a source of observations.
pub struct RingSource {
    ring: RingBuf<MapData>,
    sleeping: Array<MapData, u64>,
    wake: AsyncFd<OwnedFd>,
    timer: AsyncFd<Alarm>,
    busy_until: Instant,
    unreadable: Arc<AtomicU64>,
}

impl fmt::Debug for RingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingSource").field("unreadable", &self.unreadable).finish_non_exhaustive()
    }
}

impl RingSource {
    /// A reader of `ring` that says in `sleeping` when it sleeps.
    pub(super) fn new(ring: RingBuf<MapData>, sleeping: Array<MapData, u64>) -> Result<Self, KernelError> {
        let failed = |action| move |source| KernelError::Io { action, source };
        // A descriptor of its own, since the ring itself is borrowed while it is read.
        let descriptor = ring.as_fd().try_clone_to_owned();
        let wake = descriptor.and_then(watch);
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
            .map_err(io::Error::from)
            .and_then(|timer| watch(Alarm(timer)));
        Ok(Self {
            ring,
            sleeping,
            wake: wake.map_err(failed("watch the ring"))?,
            timer: timer.map_err(failed("make a timer"))?,
            busy_until: Instant::now(),
            unreadable: Arc::default(),
        })
    }

    /// Counts the records that were no observation; they hint at a mismatch of versions.
    #[must_use]
    pub fn unreadable(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unreadable)
    }

    fn drain(&mut self, batch: &mut Vec<Observation>) -> bool {
        let mut any = false;
        for _ in 0..BATCH {
            let Some(record) = self.ring.next() else { break };
            any = true;
            match observation(&record) {
                Ok(observation) => batch.push(observation),
                Err(error) => {
                    tracing::debug!(%error, bytes = record.len(), "ring: a record was left out");
                    self.unreadable.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        any
    }

    fn say_sleeping(&mut self, sleeping: bool) -> Result<(), KernelError> {
        let written = self.sleeping.set(0, u64::from(sleeping), 0);
        written.map_err(|error| KernelError::refused("write that the reader sleeps")(error.into()))
    }

    async fn pause(&self) -> io::Result<()> {
        let once = Expiration::OneShot(TimeSpec::from_duration(POLL));
        self.timer.get_ref().0.set(once, TimerSetTimeFlags::empty())?;
        self.timer.readable().await?.clear_ready();
        Ok(())
    }
}

/// Has tokio watch a descriptor that its owner keeps open.
fn watch<T: AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor's life")]
    // SAFETY: both types this is called with own their descriptor and always give the same one, and the `AsyncFd`
    // owns them.
    let watched = unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}

/// A timer of the kernel's that tokio can wait for.
#[derive(Debug)]
struct Alarm(TimerFd);

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl EventSource for RingSource {
    async fn read(&mut self, batch: &mut Vec<Observation>) -> Result<(), KernelError> {
        loop {
            if self.drain(batch) {
                self.busy_until = Instant::now() + QUIET;
                if !batch.is_empty() {
                    return Ok(());
                }
            }
            let failed = |action| move |source| KernelError::Io { action, source };
            if Instant::now() < self.busy_until {
                self.pause().await.map_err(failed("wait for the timer"))?;
                continue;
            }
            self.say_sleeping(true)?;
            // A record from before the flag was seen woke nobody.
            if self.drain(batch) {
                self.say_sleeping(false)?;
                self.busy_until = Instant::now() + QUIET;
                if !batch.is_empty() {
                    return Ok(());
                }
                continue;
            }
            if let Ok(ready) = timeout(SAFETY, self.wake.readable()).await {
                ready.map_err(failed("wait for the ring"))?.clear_ready();
                self.busy_until = Instant::now() + QUIET;
            }
        }
    }
}
