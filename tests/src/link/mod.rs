//! A long link between two namespaces, without netem.
//!
//! In: two namespaces, the name of a TUN device in each, a round-trip time; out: what one device sends arrives at the
//! other half a round trip later, in order. Per direction a reader stamps each packet and a writer releases it: a
//! sleep to shortly before its time, then a spin. Adds about 0.2 ms to a round trip; with a real-time class (taken when
//! the host allows it) the lateness of a packet is some 10 µs.
//!
//! A full queue drops its newest packet, as a router would, and counts it.

mod tun;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use crate::netns::Namespace;
use crate::{clock, schedule};

/// The largest packet a TUN device hands over at its default MTU.
const LARGEST_PACKET: usize = 1500;

/// Packets under way in one direction: 64 MB, more than 1 Gbit/s at 400 ms.
const QUEUE: usize = 45_000;

/// How long before its time a packet's writer stops sleeping and spins: the usual wake-up latency.
const SPIN: Duration = Duration::from_micros(60);

/// A link that is up until this is dropped.
#[derive(Debug)]
pub struct DelayedLink {
    shared: Arc<Shared>,
    /// Closing it wakes the readers.
    stop: Option<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    one_way_nanos: AtomicU64,
    dropped: AtomicU64,
    real_time: AtomicBool,
}

struct Packet {
    release: Duration,
    bytes: Box<[u8]>,
}

impl DelayedLink {
    /// Makes a TUN device in each of the two namespaces, up and without addresses, and joins them.
    ///
    /// # Errors
    /// When `/dev/net/tun` is missing or refuses, or a thread can't be started.
    pub fn join(near: (&Namespace, &str), far: (&Namespace, &str), round_trip: Duration) -> Result<Self> {
        let shared = Arc::new(Shared {
            one_way_nanos: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            real_time: AtomicBool::new(true),
        });
        let (stopped, stop) = unistd::pipe().context("pipe")?;
        let stopped = Arc::new(stopped);
        let mut link = Self { shared, stop: Some(stop), threads: Vec::new() };
        link.set_round_trip(round_trip);
        let near_device = Arc::new(tun::open(near.0, near.1)?);
        let far_device = Arc::new(tun::open(far.0, far.1)?);
        for (from, to) in [(&near_device, &far_device), (&far_device, &near_device)] {
            let (sender, receiver) = sync_channel(QUEUE);
            let (device, stopped, shared) = (Arc::clone(from), Arc::clone(&stopped), Arc::clone(&link.shared));
            link.start("link-reader", move || read(&device, &stopped, &shared, &sender))?;
            let device = Arc::clone(to);
            link.start("link-writer", move || write(&device, &receiver))?;
        }
        for (namespace, device) in [near, far] {
            namespace.ip(&["link", "set", device, "up"])?;
        }
        Ok(link)
    }

    /// Changes the round-trip time for packets that arrive from now on.
    pub fn set_round_trip(&self, round_trip: Duration) {
        let one_way = u64::try_from((round_trip / 2).as_nanos()).unwrap_or(u64::MAX);
        self.shared.one_way_nanos.store(one_way, Ordering::Relaxed);
    }

    /// Packets that found the queue full.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Whether all threads run with a real-time class; without it a busy host makes packets late by up to 2 ms.
    pub fn is_real_time(&self) -> bool {
        self.shared.real_time.load(Ordering::Relaxed)
    }

    fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let body = move || {
            if !schedule::real_time(schedule::LINK) {
                shared.real_time.store(false, Ordering::Relaxed);
            }
            work();
        };
        self.threads.push(thread::Builder::new().name(name.into()).spawn(body)?);
        Ok(())
    }
}

impl Drop for DelayedLink {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            // A panic of a link thread has been printed; the others still have to be waited for.
            let _ended = thread.join();
        }
    }
}

/// Stamps what the device sends and queues it, until told to stop. Dropping the sender ends the writer.
fn read(device: &OwnedFd, stopped: &OwnedFd, shared: &Shared, queue: &SyncSender<Packet>) {
    let mut buffer = [0; LARGEST_PACKET];
    let mut latest = Duration::ZERO;
    loop {
        let mut ready =
            [PollFd::new(device.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::NONE).is_err() {
            continue;
        }
        if ready[1].any().unwrap_or(true) {
            return;
        }
        let Ok(length) = unistd::read(device, &mut buffer) else { continue };
        // Never reordered, also when the round trip was just made shorter.
        latest = latest.max(clock::now() + Duration::from_nanos(shared.one_way_nanos.load(Ordering::Relaxed)));
        match queue.try_send(Packet { release: latest, bytes: buffer[..length].into() }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => return,
        }
    }
}

/// Hands each packet to the device at its time.
fn write(device: &OwnedFd, queue: &Receiver<Packet>) {
    while let Ok(packet) = queue.recv() {
        if packet.release > clock::now() + SPIN {
            clock::sleep_until(packet.release - SPIN);
        }
        while clock::now() < packet.release {
            std::hint::spin_loop();
        }
        // A device that is being taken down refuses packets; so would a cable.
        let _written = unistd::write(device, &packet.bytes);
    }
}
