//! The proxies wired up: listeners, who may use them for what, and what is learnt from their clients.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::core::HERE;
use crate::{
    config::{Config, ProxySettings},
    handover::{
        Reports, Way, Witness, connect,
        gate::{self, Gate},
        reach::{Admission, Reach},
        relay::Pipes,
        socks,
    },
    kernel::Key,
    lease::{Dialer, Pacing, Pool},
    model::{Name, Observation, Seen},
    policy::{self, Refusal},
    resolve::{HostResolver, Lookups, Resolved},
    telemetry::Clock,
};

/// What the proxies need of the daemon.
#[derive(Clone)]
pub(super) struct Needs {
    pub(super) lookups: Arc<Lookups<HostResolver>>,
    pub(super) pool: Pool,
    pub(super) dialer: Arc<dyn Dialer>,
    pub(super) guard: Arc<RwLock<policy::Guard>>,
    pub(super) witness: Arc<dyn Witness>,
    pub(super) pipes: Arc<Pipes>,
}

/// The counters of the ways out that end here.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways {
    pub(super) socks: Arc<Way>,
    pub(super) connect: Arc<Way>,
    pub(super) tproxy: Arc<Way>,
}

impl Ways {
    /// Leaves word how their numbers are read.
    pub(super) fn report(&self, reports: &Reports) {
        for (name, way) in [("socks", &self.socks), ("connect", &self.connect), ("tproxy", &self.tproxy)] {
            let way = Arc::clone(way);
            reports.add(name, move || way.counters());
        }
    }
}

/// The running proxies.
pub(super) struct Proxies {
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
}

/// How long after its leases' grace a listener may take to end.
const SLACK: Duration = Duration::from_millis(500);

impl Proxies {
    /// Opens the listeners of the configuration.
    ///
    /// # Errors
    /// When an address can't be listened at.
    pub(super) async fn start(config: &Config, ways: &Ways, needs: Needs) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut proxies = Self { stop, listeners: JoinSet::new() };
        let handover = &config.handover;
        if handover.socks.listen.is_empty() && handover.connect.listen.is_empty() {
            return Ok(proxies);
        }
        let reach = Arc::new(Reach {
            lookups: needs.lookups,
            pool: needs.pool,
            dialer: needs.dialer,
            pacing: Pacing {
                attempt_delay: Duration::from_millis(config.lease.attempt_delay_ms.into()),
                connect_timeout: Duration::try_from_secs_f64(config.lease.connect_timeout_seconds).unwrap_or_default(),
            },
            admission: admission(needs.guard),
            witness: needs.witness,
            pipes: needs.pipes,
        });
        for (listener, gate) in bind("handover.socks", "SOCKS5", &handover.socks).await? {
            let (reach, way) = (Arc::clone(&reach), Arc::clone(&ways.socks));
            let inside = Arc::clone(&way);
            let serve = move |stream, client| {
                let (reach, way) = (Arc::clone(&reach), Arc::clone(&inside));
                async move { socks::serve(stream, client, &reach, &way).await }
            };
            proxies.listeners.spawn(gate.open(listener, way, stopped.clone(), serve));
        }
        for (listener, gate) in bind("handover.connect", "HTTP CONNECT", &handover.connect).await? {
            let (reach, way) = (Arc::clone(&reach), Arc::clone(&ways.connect));
            let inside = Arc::clone(&way);
            let serve = move |stream, client| {
                let (reach, way) = (Arc::clone(&reach), Arc::clone(&inside));
                async move { connect::serve(stream, client, &reach, &way).await }
            };
            proxies.listeners.spawn(gate.open(listener, way, stopped.clone(), serve));
        }
        Ok(proxies)
    }

    /// Closes the listeners, gives what is under way a moment, and then ends it.
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.listeners.join_next().await.is_some() {} };
        // What is not done then ends as it is dropped.
        drop(tokio::time::timeout(gate::GRACE + SLACK, ended).await);
    }
}

/// Listens where the settings say; one gate, so that the limit holds for all addresses together.
async fn bind(key: &str, what: &str, settings: &ProxySettings) -> anyhow::Result<Vec<(TcpListener, Gate)>> {
    let gate = Gate::new(&settings.clients, settings.connections);
    let mut listeners = Vec::new();
    for &address in &settings.listen {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("{key}.listen: could not listen at {address}\nhint: ss -ltnp shows who has that address")
        })?;
        tracing::info!("{what} at {}", listener.local_addr().unwrap_or(address));
        listeners.push((listener, gate.clone()));
    }
    Ok(listeners)
}

/// Where clients may be connected to. A client on this host could go anywhere by itself, so only what the operator
/// denies is denied to it. For any other client this host is a way to places that it can't reach: loopback, the
/// host's own services, its private networks, metadata services; so it may go where prewarm itself may, at any port.
fn admission(guard: Arc<RwLock<policy::Guard>>) -> Admission {
    Arc::new(move |client, address, _port| {
        let guard = guard.read().unwrap_or_else(PoisonError::into_inner);
        match guard.address(address) {
            Err(refusal) if refusal == Refusal::DeniedNetwork || !guard.is_own(client) => Err(refusal.to_string()),
            _ => Ok(()),
        }
    })
}

/// Makes observations of what clients ask for.
pub(super) struct Learning {
    pub(super) observations: mpsc::Sender<Observation>,
    pub(super) key: Key,
    pub(super) clock: Clock,
}

impl Learning {
    fn observe(&self, client: IpAddr, seen: Seen) {
        let observation = Observation { at: self.clock.now(), client, seen };
        // Nobody who waits for a connection waits for this; what the channel has no room for is not learnt.
        if self.observations.try_send(observation).is_err() {
            tracing::debug!("a connection was not learnt from");
        }
    }
}

impl Witness for Learning {
    fn connected(&self, destination: SocketAddr, leased: bool) {
        self.connected_from(HERE, destination, leased);
    }

    fn connected_from(&self, client: IpAddr, destination: SocketAddr, leased: bool) {
        self.observe(client, Seen::Connect { destination, leased });
    }

    fn named(&self, client: IpAddr, name: &Name, port: u16, leased: bool) {
        let resource = self.key.resource_id(name);
        self.observe(client, Seen::Named { resource, name: name.clone(), port, leased });
    }

    fn resolved(&self, name: &Name, answer: &Resolved) {
        let seen = Seen::Answer {
            resource: self.key.resource_id(name),
            name: Some(name.clone()),
            qtype: super::act::A,
            rcode: 0,
            ttl: answer.ttl.min(super::act::LONGEST),
            addresses: answer.addresses.clone(),
            service_binding: false,
        };
        self.observe(HERE, seen);
    }
}
