//! Connections of unmodified programs, redirected in `connect()` when a lease waits for exactly that destination.
//!
//! Comes in: leases that wait (port [`Offers`]), connections on loopback that the kernel programs sent here. Goes out:
//! the lease's bytes, through the relay. Never here: a connection of anybody who did not claim a lease, a pinned link,
//! or a decision about what to lease.
//!
//! `offers` puts leases where `connect()` finds them; `cgroups` keeps the programs attached; `entrance` listens in each
//! namespace; `identity` says whose socket a connection comes from; `serve` relays.
//!
//! [`Offers`]: crate::lease::Offers

mod cgroups;
mod counters;
mod entrance;
mod error;
mod identity;
mod offers;
mod serve;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

pub use cgroups::rules;
pub use counters::{RedirectGauge, RedirectStats};
pub use error::RedirectError;

pub(in crate::handover) use self::offers::KernelOffers;
use self::{cgroups::Attachments, entrance::Entrances, identity::Identity, serve::Desk};
use super::{Witness, relay::Pipes};
use crate::{
    config::RedirectSettings,
    kernel::{self, Cgroup, cgroup_mount},
    lease::{Dialer, Pool},
};

/// How often cgroups and namespaces are looked at: whoever makes one anew has waited that long for leases.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a `connect()` that was under way when the programs went may take to arrive.
const LAST_CALL: Duration = Duration::from_millis(50);

/// What redirected connections are served with.
pub struct Service {
    /// Has the leases.
    pub pool: Pool,
    /// Opens a fresh connection in the place of a lease that has gone. It must be this process that connects.
    pub dialer: Arc<dyn Dialer>,
    /// Hears of connections.
    pub witness: Arc<dyn Witness>,
    /// For relays with much to carry.
    pub pipes: Arc<Pipes>,
}

/// The running redirect. Dropping it ends redirected connections at once; [`Redirect::drain`] lets them end.
pub struct Redirect {
    attachments: Arc<Mutex<Attachments>>,
    entrances: Arc<Mutex<Entrances>>,
    offers: Arc<KernelOffers>,
    upkeep: JoinHandle<()>,
    gauge: RedirectGauge,
}

impl Redirect {
    /// Listens, offers the pool's leases, and last attaches the programs. Somebody must
    /// [`beat`](super::heartbeat::beat), or nothing is redirected.
    ///
    /// # Errors
    /// When a cgroup or namespace isn't there, loopback can't be listened on, or the kernel lacks something.
    pub fn start(
        parts: kernel::Redirect,
        settings: &RedirectSettings,
        service: Service,
    ) -> Result<Self, RedirectError> {
        let kernel::Redirect { hooks, offers, claims, listeners, counters } = parts;
        let (gauge, pool) = (RedirectGauge::new(counters), service.pool.clone());
        let offers = Arc::new(KernelOffers::new(offers));
        let desk =
            Arc::new(Desk { service, claims: Mutex::new(claims), offers: Arc::clone(&offers), tally: gauge.tally() });
        let mut entrances = Entrances::new(listeners, desk);
        entrances.open(None)?;
        for namespace in &settings.namespaces {
            entrances.open(Some(namespace))?;
        }
        let attachments = Attachments::attach(hooks, &settings.cgroups)?;
        pool.offer_to(Arc::clone(&offers) as _);
        let (attachments, entrances) = (Arc::new(Mutex::new(attachments)), Arc::new(Mutex::new(entrances)));
        let upkeep =
            tokio::spawn(upkeep(Arc::clone(&attachments), Arc::clone(&entrances), settings.namespaces.clone()));
        Ok(Self { attachments, entrances, offers, upkeep, gauge })
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> RedirectStats {
        self.gauge.stats()
    }

    /// The reader of what happened so far, for whoever shows it.
    #[must_use]
    pub fn gauge(&self) -> RedirectGauge {
        self.gauge.clone()
    }

    /// Takes the programs at `connect()` off, so that new connections go direct, and takes in what was redirected just
    /// before.
    pub async fn close(&self) {
        self.upkeep.abort();
        lock(&self.attachments).stop_redirecting();
        self.offers.close();
        tokio::time::sleep(LAST_CALL).await;
        lock(&self.entrances).close();
        tokio::time::sleep(LAST_CALL).await;
    }

    /// Lets redirected connections end for as long as `grace`, and cuts those that don't; after [`Self::close`].
    pub async fn drain(self, grace: Duration) {
        let mut tasks = lock(&self.entrances).tasks();
        if timeout(grace, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("redirected connections that did not end in {} s were cut", grace.as_secs_f64());
            tasks.shutdown().await;
        }
        lock(&self.attachments).detach();
    }
}

/// Tries whether connections could be redirected here: the programs are loaded and attached for a moment in which
/// nothing is on offer.
///
/// # Errors
/// When they could not.
pub fn probe(object: &[u8]) -> Result<PathBuf, RedirectError> {
    let path = cgroup_mount().ok_or_else(|| RedirectError::Cgroup {
        path: PathBuf::from("/sys/fs/cgroup"),
        source: std::io::Error::other("cgroup v2 is not mounted"),
    })?;
    Identity::open().map_err(RedirectError::Identity)?;
    let cgroup = Cgroup::open(&path).map_err(|source| RedirectError::Cgroup { path: path.clone(), source })?;
    kernel::Redirect::probe(object, cgroup)?;
    Ok(path)
}

impl Drop for Redirect {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

/// Attaches again where a cgroup was made anew, and listens where a namespace was.
async fn upkeep(attachments: Arc<Mutex<Attachments>>, entrances: Arc<Mutex<Entrances>>, namespaces: Vec<PathBuf>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        lock(&attachments).mend();
        lock(&entrances).mend(&namespaces);
    }
}

/// A lock that a panic elsewhere does not take down with it: what it guards is consistent between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
