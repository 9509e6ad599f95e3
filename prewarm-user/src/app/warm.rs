//! Warm requests: from an intent to a request over a connection of its own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    config::{Config, Method},
    lease::{self, DialError, Dialer, Guard, Pacing, TrustError, WarmError, WarmMethod, WarmRequest, interleave, race},
    model::{Origin, Verdict},
    telemetry::Clock,
};

/// Sends the configured requests.
pub(super) struct Warming {
    requests: RwLock<Vec<WarmRequest>>,
    warmer: lease::Warmer,
    dialer: Arc<dyn Dialer>,
    guard: Guard,
    pacing: Pacing,
    clock: Clock,
    pub(super) sent: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Warming {
    /// The requests of the configuration, over connections that `guard` allows.
    pub(super) fn new(
        config: &Config,
        dialer: Arc<dyn Dialer>,
        guard: Guard,
        clock: Clock,
    ) -> Result<Self, TrustError> {
        let pacing = Pacing {
            attempt_delay: Duration::from_millis(u64::from(config.lease.attempt_delay_ms)),
            connect_timeout: Duration::from_secs_f64(config.lease.connect_timeout_seconds),
        };
        Ok(Self {
            requests: RwLock::new(requests(config)),
            warmer: lease::Warmer::new(&config.requests)?,
            dialer,
            guard,
            pacing,
            clock,
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Takes other requests.
    pub(super) fn set(&self, config: &Config) {
        *self.requests.write().unwrap_or_else(PoisonError::into_inner) = requests(config);
    }

    /// How requests travelled.
    pub(super) fn counters(&self) -> lease::WarmCounters {
        self.warmer.counters()
    }

    fn request(&self, origin: &Origin, path: &str) -> Option<WarmRequest> {
        let requests = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        requests.iter().find(|request| request.origin == *origin && request.path == path).cloned()
    }

    /// Sends the request for `path`, over a connection that is held, else to one of the addresses, which are only looked
    /// up then.
    pub(super) async fn send<L, F>(&self, origin: &Origin, path: &str, addresses: L) -> Result<(), Verdict>
    where
        L: FnOnce() -> F + Send,
        F: Future<Output = Result<Vec<IpAddr>, Verdict>> + Send,
    {
        let Some(request) = self.request(origin, path) else { return Err(Verdict::Refused) };
        let unresolved = OnceLock::new();
        let dial = || async {
            let addresses = addresses().await.map_err(|verdict| {
                // There is one look-up at most.
                drop(unresolved.set(verdict));
                DialError::Unreachable(std::io::ErrorKind::NotFound.into())
            })?;
            let destinations: Vec<SocketAddr> =
                interleave(&addresses).into_iter().map(|address| SocketAddr::new(address, origin.port)).collect();
            let won = race(Arc::clone(&self.dialer), &destinations, self.pacing, &self.guard).await?;
            Ok(won.dialled.socket)
        };
        let warmed = self.warmer.warm(dial, &request, self.clock.now()).await;
        if let Some(verdict) = unresolved.into_inner() {
            return Err(verdict);
        }
        match warmed {
            Err(WarmError::Dial(DialError::Guarded(reason))) => {
                tracing::debug!(%origin, reason, "warm: refused");
                Err(Verdict::Refused)
            }
            Ok(warmed) if warmed.status < 400 => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%origin, path, status = warmed.status, hot = ?warmed.was_hot(), "warm: sent");
                Ok(())
            }
            Ok(warmed) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%origin, path, status = warmed.status, "warm: the origin refuses this request");
                Err(Verdict::Failed)
            }
            Err(WarmError::Resting(_)) => Err(Verdict::Refused),
            Err(WarmError::Overloaded { rest, .. }) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                Err(Verdict::PushedBack { retry_after: Some(rest) })
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%origin, path, %error, "warm: failed");
                Err(Verdict::Failed)
            }
        }
    }
}

fn requests(config: &Config) -> Vec<WarmRequest> {
    let request = |request: &crate::config::WarmRequest| {
        let method = match request.method {
            Method::Head => WarmMethod::Head,
            Method::Get => WarmMethod::Get,
        };
        Some(WarmRequest { origin: request.origin()?, path: request.path(), method, tls: request.is_secure() })
    };
    config.warm.iter().filter_map(request).collect()
}
