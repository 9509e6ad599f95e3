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
