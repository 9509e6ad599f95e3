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
pub use counters::RedirectStats;
pub use error::RedirectError;

pub(in crate::handover) use self::offers::KernelOffers;
use self::{cgroups::Attachments, counters::Tally, entrance::Entrances, serve::Desk};
use super::{Witness, relay::Pipes};
use crate::{
    config::RedirectSettings,
    kernel::{self, RedirectCounters},
    lease::Pool,
};

/// How often cgroups and namespaces are looked at: whoever makes one anew has waited that long for leases.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a `connect()` that was under way when the programs went may take to arrive.
const LAST_CALL: Duration = Duration::from_millis(50);

/// The running redirect. Dropping it ends redirected connections at once; [`Redirect::stop`] lets them end.
pub struct Redirect {
    attachments: Arc<Mutex<Attachments>>,
    entrances: Arc<Mutex<Entrances>>,
    offers: Arc<KernelOffers>,
    upkeep: JoinHandle<()>,
    tally: Arc<Tally>,
    counters: RedirectCounters,
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
        pool: &Pool,
        witness: Arc<dyn Witness>,
        pipes: Arc<Pipes>,
    ) -> Result<Self, RedirectError> {
        let kernel::Redirect { hooks, offers, claims, listeners, counters } = parts;
        let tally = Arc::new(Tally::default());
        let offers = Arc::new(KernelOffers::new(offers));
        let desk = Arc::new(Desk {
            pool: pool.clone(),
            claims: Mutex::new(claims),
            offers: Arc::clone(&offers),
            witness,
            pipes,
            tally: Arc::clone(&tally),
        });
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
        Ok(Self { attachments, entrances, offers, upkeep, tally, counters })
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> RedirectStats {
        self.tally.stats(&self.counters)
    }

    /// Takes the programs at `connect()` off, so that new connections go direct, takes in what was redirected just before, and lets
    /// redirected connections end for as long as `grace`.
    pub async fn stop(self, grace: Duration) {
        self.upkeep.abort();
        lock(&self.attachments).stop_redirecting();
        self.offers.close();
        tokio::time::sleep(LAST_CALL).await;
        let mut tasks = lock(&self.entrances).close();
        if timeout(grace, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("redirected connections that did not end in {} s were cut", grace.as_secs());
            tasks.shutdown().await;
        }
        lock(&self.attachments).detach();
    }
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
