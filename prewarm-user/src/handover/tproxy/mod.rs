//! Connections that this host forwards, taken over when a lease waits for exactly that destination.
//!
//! Comes in: leases that wait (port [`Offers`]), connections that the kernel program sent here. Goes out: the lease's
//! bytes, through the relay. Never here: a connection that claimed nothing, or one of this host's own programs.
//!
//! [`Offers`]: crate::lease::Offers

mod listener;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::time::{ClockId, clock_gettime};
use prewarm_ebpf::tproxy::YOUNG;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

pub use listener::Listeners;

use super::{
    Way, WayCounters, Witness,
    gate::{self, Gate},
    redirect::KernelOffers,
    relay::{Pipes, Upstream, relay},
};
use crate::{
    kernel::{self, FlowClaim, Flows, TproxyCounters, TproxyCounts, TproxyHooks},
    lease::{Dialer, Fate, Pool, Token},
};

/// Connections at once. Each holds a lease, or held one: their limits stand in the configuration.
const CONNECTIONS: u32 = 1 << 16;
/// How often claims are looked for that nobody came for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long after the relays' grace a listener may take to end.
const SLACK: Duration = Duration::from_millis(500);

/// The running way out.
pub struct Tproxy {
    hooks: TproxyHooks,
    offers: Arc<KernelOffers>,
    counters: TproxyCounters,
    way: Arc<Way>,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
    upkeep: JoinHandle<()>,
}

impl Drop for Tproxy {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

/// What connections are served with.
struct Desk {
    pool: Pool,
    flows: Mutex<Flows>,
    offers: Arc<KernelOffers>,
    dialer: Arc<dyn Dialer>,
    witness: Arc<dyn Witness>,
    pipes: Arc<Pipes>,
    way: Arc<Way>,
}

impl Tproxy {
    /// Offers the pool's leases to whoever is forwarded, and serves those who claim one. Somebody must
    /// [`beat`](super::heartbeat::beat), or nothing is taken over.
    ///
    /// # Errors
    /// When the runtime can't watch the listeners.
    pub fn start(
        parts: kernel::Tproxy,
        listeners: Listeners,
        pool: &Pool,
        dialer: Arc<dyn Dialer>,
        witness: Arc<dyn Witness>,
        pipes: Arc<Pipes>,
        way: Arc<Way>,
    ) -> io::Result<Self> {
        let kernel::Tproxy { offers, flows, counters, hooks } = parts;
        let offers = Arc::new(KernelOffers::new(offers));
        let desk = Arc::new(Desk {
            pool: pool.clone(),
            flows: Mutex::new(flows),
            offers: Arc::clone(&offers),
            dialer,
            witness,
            pipes,
            way: Arc::clone(&way),
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        // Whoever claimed a lease has shown more than an address could.
        let everybody = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let gate = Gate::new(&everybody, CONNECTIONS);
        for listener in listeners.into_tokio()? {
            let desk = Arc::clone(&desk);
            let serve = move |stream, client| Arc::clone(&desk).attend(stream, client);
            tasks.spawn(gate.clone().open(listener, Arc::clone(&way), stopped.clone(), serve));
        }
        let upkeep = tokio::spawn(desk.return_unspent());
        pool.offer_to(Arc::clone(&offers) as _);
        Ok(Self { hooks, offers, counters, way, stop, listeners: tasks, upkeep })
    }

    /// What happened so far, here and in the kernel.
    #[must_use]
    pub fn stats(&self) -> (WayCounters, TproxyCounts) {
        (self.way.counters(), self.counters.read().unwrap_or_default())
    }

    /// Takes nothing over any more, gives what is under way a moment, and takes the program off.
    pub async fn stop(mut self) {
        self.offers.close();
        if let Err(error) = self.hooks.pause() {
            tracing::warn!(%error, "tproxy could not be paused");
        }
        self.stop.send_replace(true);
        let ended = async { while self.listeners.join_next().await.is_some() {} };
        drop(timeout(gate::GRACE + SLACK, ended).await);
        self.listeners.shutdown().await;
        self.hooks.detach();
    }
}

impl Desk {
    /// Gives a connection that was taken over its lease; one whose lease has gone meanwhile gets what it would have had.
    async fn attend(self: Arc<Self>, stream: TcpStream, client: SocketAddr) {
        let claimed = stream.local_addr().and_then(|local| {
            let origin = canonical(local);
            let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
            let claim = flows.spend(canonical(client), origin).map_err(io::Error::other)?;
            Ok(claim.map(|claim| (claim, origin)))
        });
        let (claim, origin) = match claimed {
            Ok(Some(claim)) => claim,
            Ok(None) => {
                self.way.refused();
                return refuse(&stream);
            }
            Err(error) => {
                tracing::warn!(%error, "it could not be found out what a forwarded connection claimed");
                self.way.failed();
                return refuse(&stream);
            }
        };
        let lease = match claim {
            FlowClaim::Lease(token) => {
                self.offers.claimed(token, origin);
                self.pool.redeem(Token(token)).and_then(|taken| Upstream::lease(taken, &self.pool).ok())
            }
            FlowClaim::Late => None,
        };
        self.witness.connected_from(client.ip().to_canonical(), origin, lease.is_some());
        self.way.found(lease.is_some());
        let upstream = match lease {
            Some(lease) => Ok(lease),
            None => self.dial(origin).await.map(Upstream::fresh),
        };
        match upstream {
            Ok(upstream) => {
                let relayed = relay(stream, upstream, || self.dial(origin), &self.pipes, self.way.bytes()).await;
                tracing::debug!(%client, %origin, ?relayed, "a forwarded connection has ended");
                self.way.ended(&relayed);
            }
            Err(error) => {
                tracing::debug!(%client, %origin, %error, "a forwarded connection could not be made good");
                self.way.failed();
                refuse(&stream);
            }
        }
    }

    /// Gives leases back that were claimed by connections that never came: a first packet is cheap to send and to forge.
    async fn return_unspent(self: Arc<Self>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let before = now().saturating_sub(YOUNG);
            let unspent = self.flows.lock().unwrap_or_else(PoisonError::into_inner).unspent(before);
            match unspent {
                Ok(unspent) => {
                    for (token, origin) in unspent {
                        self.offers.claimed(token, origin);
                        if let Some(taken) = self.pool.redeem(Token(token)) {
                            self.pool.settle(taken.id, Fate::Unfit(taken.fd));
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "claims of forwarded connections"),
            }
        }
    }

    /// Opens a fresh connection to exactly where the client wants to go: leases lead only where that is allowed.
    async fn dial(&self, origin: SocketAddr) -> io::Result<TcpStream> {
        let stream = std::net::TcpStream::from(self.dialer.dial(origin).await?.socket);
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }
}

/// Nanoseconds on the monotonic clock, as the kernel program reads it.
fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Closes with a reset: nothing that was sent here is taken for received.
fn refuse(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a connection is closed instead of reset");
    }
}
