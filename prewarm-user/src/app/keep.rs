//! Origins that leases are kept to at all times, and what was learnt about origins, from one life of the daemon to the
//! next.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;

use super::core::chain;
use crate::{
    config::KeepSettings,
    lease::{Pool, Remembered},
    model::{Origin, Timestamp},
    resolve::{Lookups, Resolver},
};

/// A name is looked up again when its addresses run out, but not more often than this, nor more rarely.
const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// The pause after a look-up that gave nothing; it doubles up to the longest time above.
const PAUSE: Duration = Duration::from_secs(1);
/// How often what was learnt is written down: what is lost in a crash.
const WRITE: Duration = Duration::from_secs(300);
/// Its file in the state folder.
const FILE: &str = "origins.json";

/// Keeps leases to the configured origins until it is dropped.
pub(super) async fn keep<R: Resolver>(kept: Vec<KeepSettings>, lookups: Arc<Lookups<R>>, pool: Pool) {
    let mut tasks = tokio::task::JoinSet::new();
    for KeepSettings { origin, count } in kept {
        // Checked with the configuration.
        let Ok(origin) = origin.parse::<Origin>() else { continue };
        let (lookups, pool) = (Arc::clone(&lookups), pool.clone());
        tasks.spawn(async move { keep_one(origin, count, &lookups, &pool).await });
    }
    while tasks.join_next().await.is_some() {}
}

async fn keep_one<R: Resolver>(origin: Origin, count: u32, lookups: &Lookups<R>, pool: &Pool) {
    let mut pause = PAUSE;
    loop {
        match lookups.lookup(&origin.name).await {
            Ok(resolved) if !resolved.addresses.is_empty() => {
                pool.want(origin.clone(), resolved.addresses, Timestamp::from_nanos(u64::MAX), count);
                pause = PAUSE;
                sleep(resolved.ttl.clamp(TTL.0, TTL.1)).await;
            }
            // What there is stays: the old addresses are better than none, and each dial shows whether they are good.
            failed => {
                tracing::warn!(%origin, reason = ?failed.err(), "lease.keep: the name has no address");
                sleep(pause).await;
                pause = (pause * 2).min(TTL.1);
            }
        }
    }
}

/// Lets the pool know what was learnt before, and where to write it.
pub(super) fn recollect(pool: &Pool, state: &Path) -> PathBuf {
    let path = state.join(FILE);
    match Remembered::read(&path) {
        Ok(remembered) => pool.recollect(remembered),
        Err(error) => tracing::warn!("{}; it is learnt anew", chain(&error)),
    }
    path
}

/// Writes down what was learnt.
pub(super) fn remember(pool: &Pool, path: &Path) {
    if let Err(error) = pool.remember().write(path) {
        tracing::warn!("{}", chain(&error));
    }
}

/// Does so now and then, until it is dropped.
pub(super) async fn remember_often(pool: Pool, path: PathBuf) {
    loop {
        sleep(WRITE).await;
        let (pool, path) = (pool.clone(), path.clone());
        // A file is synced: that may take long.
        if tokio::task::spawn_blocking(move || remember(&pool, &path)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, SocketAddr},
        sync::Mutex,
    };

    use super::*;
    use crate::{
        config::LeaseSettings,
        lease::{Dialer, Dialled, Dialling, LeaseState},
        model::Name,
        resolve::{ResolveError, Resolved},
    };

    /// Fails once, then gives one address after the other, each for half a minute.
    struct Script(Mutex<u8>);

    impl Resolver for Script {
        async fn lookup(&self, _name: &Name) -> Result<Resolved, ResolveError> {
            let mut asked = self.0.lock().unwrap();
            *asked += 1;
            if *asked == 1 {
                return Err(ResolveError::Failed("not yet".to_owned()));
            }
            let ttl = Duration::from_secs(30);
            Ok(Resolved { addresses: vec![[192, 0, 2, *asked].into()], ttl, took: Duration::ZERO })
        }
    }

    /// Everything can be reached, and stays.
    #[derive(Default)]
    struct Reach(Arc<Mutex<Vec<std::os::unix::net::UnixStream>>>);

    impl Dialer for Reach {
        fn dial(&self, _destination: SocketAddr) -> Dialling<'_> {
            let peers = Arc::clone(&self.0);
            Box::pin(async move {
                let (socket, peer) = std::os::unix::net::UnixStream::pair()?;
                peers.lock().unwrap().push(peer);
                Ok(Dialled { socket: socket.into(), rtt: Duration::from_millis(40) })
            })
        }
    }

    fn ready(pool: &Pool) -> Vec<IpAddr> {
        let leases = pool.leases().into_iter().filter(|lease| lease.state == LeaseState::Ready);
        leases.filter_map(|lease| Some(lease.destination?.ip())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn leases_follow_the_addresses_of_a_kept_name() {
        let (outcomes, _unread) = tokio::sync::mpsc::channel(1);
        let guard: crate::lease::Guard = Arc::new(|_, _| Ok(()));
        let settings = LeaseSettings::default();
        let pool = Pool::start(&settings, Arc::new(Reach::default()), guard, outcomes, Timestamp::ZERO).unwrap();
        let lookups = Arc::new(Lookups::new(Script(Mutex::new(0)), 8));
        let kept = vec![KeepSettings { origin: "api.example.org:443".to_owned(), count: 2 }];
        let task = tokio::spawn(keep(kept, lookups, pool.clone()));
        let after = |seconds: f64| sleep(Duration::from_secs_f64(seconds));
        after(0.5).await;
        assert_eq!(ready(&pool), [] as [IpAddr; 0], "the first look-up failed");
        after(1.0).await;
        let first: IpAddr = [192, 0, 2, 2].into();
        assert_eq!(ready(&pool), [first; 2]);
        after(24.0).await;
        assert_eq!(ready(&pool), [first; 2], "renewed, because nobody took them");
        assert_eq!(pool.counters().renewed, 2);
        after(10.0).await;
        let second: IpAddr = [192, 0, 2, 3].into();
        assert_eq!(ready(&pool), [second; 2], "the name has moved");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_learnt_is_found_again_and_nonsense_is_left() {
        let (outcomes, _unread) = tokio::sync::mpsc::channel(1);
        let start = || {
            let guard: crate::lease::Guard = Arc::new(|_, _| Ok(()));
            Pool::start(&LeaseSettings::default(), Arc::new(Reach::default()), guard, outcomes.clone(), Timestamp::ZERO)
                .unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let pool = start();
        let path = recollect(&pool, folder.path());
        pool.want("a.example:80".parse().unwrap(), vec![[192, 0, 2, 1].into()], Timestamp::from_nanos(u64::MAX), 1);
        sleep(Duration::from_secs(1)).await;
        // Written now and then.
        let often = tokio::spawn(remember_often(pool.clone(), path.clone()));
        sleep(WRITE + Duration::from_secs(1)).await;
        while !path.exists() {
            tokio::task::yield_now().await;
        }
        often.abort();
        remember(&pool, &path);
        let again = start();
        recollect(&again, folder.path());
        assert_eq!(again.remember(), pool.remember());
        assert_eq!(again.origins()[0].origin, "a.example:80");
        std::fs::write(&path, "{").unwrap();
        let fresh = start();
        recollect(&fresh, folder.path());
        assert_eq!(fresh.origins(), []);
    }
}
