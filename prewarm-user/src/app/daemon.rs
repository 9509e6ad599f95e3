//! From the configuration to running tasks, and back to nothing.

use std::{
    net::IpAddr,
    os::fd::AsFd as _,
    process::ExitCode,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::Context as _;
use ipnet::IpNet;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{
    act::Actor,
    answers::{Answering, Around},
    core::{Core, HERE, Question},
    explain::explain,
    handle::Daemon,
    keep, key,
    memory::{self, Memory},
    numbers::Gauges,
    proxies::{Learning, Needs},
    sockops::Watch,
    sources::{self, Sources},
    uses::Uses,
    warm::Warming,
    ways::WaysOut,
};
use crate::{
    cli::RunArguments,
    config::Config,
    control,
    decide::Decider,
    handover::{Reports, peer::Rule, relay::Pipes},
    kernel::{self, KernelError, Key, Programs},
    lease::{Dialer, Guard, Pool, TcpDialer},
    observe::Merge,
    policy,
    resolve::{HostResolver, Lookups},
    telemetry::{self, Clock, Latency},
};

/// Slots of the channels between tasks; what does not fit is refused and counted.
const SLOTS: usize = 1024;
/// How long tasks may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration is bad, a privilege is missing, or a part cannot start.
pub fn run(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let config = arguments.configuration()?;
    anyhow::ensure!(
        !config.capture.interfaces.is_empty() || !config.sources.list.is_empty(),
        "neither an interface nor another source is named\nhint: prewarm run --iface IF, or capture.interfaces in the \
         configuration; --source where names are asked for encrypted"
    );
    telemetry::init(&arguments.log, arguments.log_format).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(daemon(arguments, config))?;
    Ok(ExitCode::SUCCESS)
}

async fn daemon(arguments: RunArguments, config: Config) -> anyhow::Result<()> {
    let clock = Clock::new();
    let installation = key::read_or_make(&arguments.state)?;
    // Signals are watched before anything is attached, so that none finds us half-way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;

    let object = kernel::object().ok_or(KernelError::NoObject)?;
    let settings = kernel::Settings {
        own_mark: config.resolve.mark,
        window: Duration::from_millis(u64::from(config.capture.fold_ms)),
        ingress: config.capture.ingress.then_some(config.capture.xdp),
        egress: config.capture.egress,
        redirect: config.handover.redirect.enabled,
        tproxy: !config.handover.tproxy.interfaces.is_empty(),
        lookups: config.sources.libraries().is_some(),
        answers: if config.answers.servers.is_empty() { 0 } else { config.answers.entries },
        ..kernel::Settings::new(Key::from_secret(&installation))
    };
    let mut programs = Programs::load(object, &settings).map_err(explain)?;
    let (source, known, counters) = (programs.source()?, programs.known()?, programs.counters()?);
    let log = match programs.log() {
        Ok(pump) => Some(tokio::spawn(pump.run())),
        // Programs that have nothing to say have no map for it.
        Err(KernelError::NoMap(_)) => None,
        Err(error) => return Err(explain(error)),
    };
    let watch = Watch::start(&mut programs, &config.capture);
    for interface in &config.capture.interfaces {
        let attachment = programs.attach(interface).map_err(explain)?;
        let view = control::AttachmentView::from(&attachment);
        tracing::info!("attached to {interface}: {}", view.shown());
    }
    let listener = control::bind(&config.control.socket, &config.control.group).await?;

    let own = own_networks();
    let guard = Arc::new(std::sync::RwLock::new(policy::Guard::new(&config.policy.guard, &own)));
    let shared = Arc::clone(&guard);
    let dial_guard: Guard = Arc::new(move |address, port| {
        let guard = shared.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        guard.check(address, port).map_err(|refusal| refusal.to_string())
    });
    let (outcomes, outcomes_in) = mpsc::channel(SLOTS);
    let (observations, observations_in) = mpsc::channel(SLOTS);
    let (intents, intents_in) = mpsc::channel(SLOTS);
    let (questions, questions_in) = mpsc::channel(SLOTS);
    let (stop, stopped) = watch::channel(false);

    let announce = watch.announce.clone();
    let dialer = Arc::new(TcpDialer { keepalive: config.lease.idle_seconds > 30.0, announce });
    let fresh: Arc<dyn Dialer> = Arc::clone(&dialer) as _;
    let warming =
        Warming::new(&config, Arc::clone(&dialer) as _, Arc::clone(&dial_guard), clock).context("requests.ca_file")?;
    let warming = Arc::new(warming);
    let pool = Pool::start(&config.lease, dialer, dial_guard, outcomes.clone(), clock.now())
        .context("could not start the pool of leases")?;
    let state = arguments.state.clone();
    let origins = keep::recollect(&pool, &state);
    let uses = Arc::new(Uses::default());
    if watch.is_on() {
        let uses = Arc::clone(&uses);
        pool.on_taken(move |taken| {
            // What happens inside this host is not watched.
            if !taken.destination.ip().to_canonical().is_loopback()
                && let Ok(socket) = kernel::cookie(taken.fd.as_fd())
            {
                uses.handed(clock.now(), socket, (&taken.origin, taken.rtt), taken.intent);
            }
        });
    }
    let resolver = HostResolver::new(&config.resolve)?;
    let here = |server: &IpAddr| server.is_loopback() || own.iter().any(|network| network.addr() == *server);
    let resolver_is_here = resolver.servers().iter().any(here);
    let (batches, batches_in) = mpsc::channel(sources::BATCHES);
    let of_ours = sources::Own {
        key: Key::from_secret(&installation),
        ports: resolver.ports().clone(),
        addresses: own.iter().map(IpNet::addr).collect(),
        namespaces: config.capture.namespaces.clone(),
    };
    let mut sources = Sources::start(&config.sources, &mut programs, of_ours, clock, batches).await?;
    let lookups = Arc::new(Lookups::new(resolver, config.resolve.concurrent));
    let (saved, ring_to_dial, ring_to_intent) =
        (Arc::new(Latency::new()), Arc::new(Latency::new()), Arc::new(Latency::new()));
    let around = Around {
        own: &own,
        key: Key::from_secret(&installation),
        pool: pool.clone(),
        observations: observations.clone(),
        clock,
    };
    let answering = Answering::start(&config, &mut programs, around)?;
    let reports = Reports::default();
    let gauges = Arc::new(Gauges {
        clock,
        started: clock.now(),
        pool: pool.clone(),
        lookups: Arc::clone(&lookups),
        saved: Arc::clone(&saved),
        ring_to_dial: Arc::clone(&ring_to_dial),
        ring_to_intent: Arc::clone(&ring_to_intent),
        warming: Arc::clone(&warming),
        uses: Arc::clone(&uses),
        reports: reports.clone(),
        sources: sources.counters.clone(),
        unwatched: watch.reason.clone(),
        answers: answering.handle.clone(),
    });
    let handle = Arc::new(Daemon {
        arguments,
        questions: questions.clone(),
        observations: observations.clone(),
        pool: pool.clone(),
        gauges: Arc::clone(&gauges),
        clock,
        watched: watch.is_on(),
        connects_dropped: AtomicU64::new(0),
    });

    let learning = Learning { observations: observations.clone(), key: Key::from_secret(&installation), clock };
    let needs = Needs {
        lookups: Arc::clone(&lookups),
        pool: pool.clone(),
        dialer: fresh,
        guard: Arc::clone(&guard),
        witness: Arc::new(learning),
        pipes: Arc::new(Pipes::default()),
    };
    let metrics = metrics(&config, &questions, &gauges).await?;
    let mut ways = WaysOut::start(&config, &mut programs, needs, &reports).await?;

    let memory = Memory::new(&state, &Key::from_secret(&installation));
    let predictor = memory.predictor(&config.predict);
    let mut decider = Decider::with_predictor(&config.history, predictor, &config.policy, &own, clock.now());
    decider.set_warm(config.warm_targets());
    decider.set_namespaces(watch.namespaces);
    decider.set_echoes(resolver_is_here);
    let core = Core {
        source,
        programs,
        known,
        counters,
        decider,
        clock,
        intents,
        outcomes: outcomes_in,
        observations: observations_in,
        batches: batches_in,
        merge: (!config.sources.list.is_empty()).then(|| Merge::new(own.iter().map(IpNet::addr).collect(), HERE)),
        sources: sources.counters.clone(),
        questions: questions_in,
        own,
        key: Key::from_secret(&installation),
        remembered: memory.names(),
        guard,
        ring_to_intent,
        saved,
        uses,
        answers: answering.handle.clone(),
        stop: stopped.clone(),
    };
    let actor = Actor {
        lookups,
        pool: pool.clone(),
        warming,
        outcomes,
        observations,
        clock,
        ring_to_dial,
        answers: answering.handle.clone(),
    };
    let mut core = tokio::spawn(core.run());
    let actor = tokio::spawn(actor.run(intents_in, stopped));
    let rule = Rule::new(&config.handover);
    let control = tokio::spawn(control::serve(listener, pool.clone(), rule, Arc::clone(&handle), reports));
    tracing::info!("ready, control socket {}", config.control.socket.display());
    notify(&[sd_notify::NotifyState::Ready]);
    let watchdog = tokio::spawn(watchdog(questions.clone()));
    let keeping = tokio::spawn(keep::keep(config.lease.keep.clone(), Arc::clone(&gauges.lookups), pool.clone()));
    let remembering = [
        tokio::spawn(keep::remember_often(pool.clone(), origins.clone())),
        tokio::spawn(memory::remember_often(questions.clone(), memory.clone())),
    ];

    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hang_up.recv() => match handle.reload().await {
                Ok(message) => tracing::info!("{message}"),
                Err(failure) => tracing::error!("the configuration stays as it was: {}", failure.message),
            },
            ended = &mut core => break ended.context("the deciding task panicked").and_then(|ended| ended),
        }
    };

    // First nobody is promised anything any more, then what is under way ends, then the hooks go.
    notify(&[sd_notify::NotifyState::Stopping]);
    control.abort();
    watchdog.abort();
    keeping.abort();
    remembering.iter().for_each(JoinHandle::abort);
    let (log, metrics) = (log.map(|log| log.abort_handle()), metrics.map(|metrics| metrics.abort_handle()));
    for task in [log, metrics].into_iter().flatten() {
        task.abort();
    }
    drop(std::fs::remove_file(&config.control.socket));
    sources.stop();
    answering.stop();
    ways.close().await;
    if tokio::time::timeout(GRACE, memory::remember(&questions, &memory)).await.is_err() {
        tracing::warn!("what was learnt could not be written in {} s", GRACE.as_secs());
    }
    stop.send_replace(true);
    let drained = async {
        let draining = ways.stop().await;
        drop(actor.await);
        pool.drain().await;
        if !core.is_finished() {
            drop((&mut core).await);
        }
        draining
    };
    let drained = tokio::time::timeout(GRACE, drained).await;
    keep::remember(&pool, &origins);
    match drained {
        Err(_elapsed) => tracing::warn!("some tasks did not end in {} s", GRACE.as_secs()),
        // Programs are still talking; a second signal says that nobody cares.
        Ok(draining) => tokio::select! {
            () = draining.end() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        },
    }
    tracing::info!("stopped; nothing is attached any more");
    ended
}

/// The metrics endpoint, where it is switched on.
async fn metrics(
    config: &Config,
    questions: &mpsc::Sender<Question>,
    gauges: &Arc<Gauges>,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    if !config.metrics.enabled {
        return Ok(None);
    }
    let listen = config.metrics.listen;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("metrics.listen: could not bind {listen}"))?;
    let (questions, gauges) = (questions.clone(), Arc::clone(gauges));
    let page = move || {
        let (questions, gauges) = (questions.clone(), Arc::clone(&gauges));
        async move {
            let (to, numbers) = oneshot::channel();
            if questions.send(Question::Numbers(to)).await.is_err() {
                return String::new();
            }
            numbers.await.map(|numbers| control::exposition(gauges.stats(&numbers))).unwrap_or_default()
        }
    };
    tracing::info!("metrics at http://{listen}/metrics");
    Ok(Some(tokio::spawn(telemetry::serve(listener, page))))
}

/// Tells systemd that the deciding task still answers, where systemd asked to be told.
async fn watchdog(questions: mpsc::Sender<Question>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    loop {
        tokio::time::sleep(limit / 3).await;
        let (to, numbers) = oneshot::channel();
        if questions.send(Question::Numbers(to)).await.is_err() || numbers.await.is_err() {
            return;
        }
        notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// The addresses of this host with their networks.
fn own_networks() -> Vec<IpNet> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let network = |interface: nix::ifaddrs::InterfaceAddress| {
        let ip = |storage: Option<nix::sys::socket::SockaddrStorage>| -> Option<IpAddr> {
            let storage = storage?;
            let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        };
        IpNet::with_netmask(ip(interface.address)?, ip(interface.netmask)?).ok()
    };
    interfaces.filter_map(network).collect()
}
