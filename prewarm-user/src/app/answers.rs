//! Answers in the kernel wired up: the servers they stand for, the task that keeps them, and its end of the rest.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use prewarm_ebpf::answers::{AnswerRules, ServerKey};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    config::{AnswersSettings, Config},
    kernel::{Key, Programs, XdpMode, unseen_vlans},
    lease::Pool,
    model::Observation,
    resolve::answers::{self, Handle, Parts, Ready, Server, ServerView, Service, Store, address},
    telemetry::Clock,
};

/// What the answers need of the rest.
pub(super) struct Around<'a> {
    pub(super) own: &'a [IpNet],
    pub(super) key: Key,
    pub(super) pool: Pool,
    pub(super) observations: mpsc::Sender<Observation>,
    pub(super) clock: Clock,
}

/// The task, where answers are switched on.
#[derive(Default)]
pub(super) struct Answering {
    pub(super) handle: Option<Handle>,
    task: Option<JoinHandle<()>>,
}

impl Answering {
    /// Starts it where the settings name servers; the interfaces must be attached.
    ///
    /// # Errors
    /// When a server is not on this host, an interface is not watched, or the kernel refuses.
    pub(super) fn start(config: &Config, programs: &mut Programs, around: Around<'_>) -> anyhow::Result<Self> {
        let settings = &config.answers;
        if settings.servers.is_empty() {
            return Ok(Self::default());
        }
        let (servers, views) = servers(settings, programs, around.own)?;
        let parts = programs.answers()?;
        let mut maps = parts.maps;
        let (socket, port) = answers::socket(config.resolve.mark).context("answers: a socket to ask servers by")?;
        maps.rule(&rules(settings, port))?;
        for (server, _) in &servers {
            let key = ServerKey { address: address(server.address), interface: server.interface, reserved: 0 };
            maps.serve(key)?;
        }
        let (handle, commands, numbers) = Handle::new(parts.counters);
        if let Ok(mut numbers) = numbers.lock() {
            numbers.servers = views;
        }
        let exclude = settings.exclude.iter().filter_map(|zone| zone.parse().ok()).collect();
        let (key, pool) = (around.key, around.pool);
        let ready: Option<Ready> = settings.lease_first.then(|| Arc::new(move || pool.waiting()) as _);
        let longest = Duration::from_secs(settings.max_seconds.into());
        let service = Service::new(Parts {
            store: Store::new(maps, longest, around.clock.now().as_nanos()),
            wanted: parts.wanted,
            socket,
            servers,
            exclude,
            per_second: settings.fills_per_second,
            stale: Duration::from_secs(settings.stale_seconds.into()),
            resource: Box::new(move |name| key.resource_id(name)),
            ready,
            observations: around.observations,
            clock: around.clock,
            numbers,
        });
        let task = tokio::spawn(service.run(commands));
        Ok(Self { handle: Some(handle), task: Some(task) })
    }

    /// Ends it; what is laid ready is given until the programs go.
    pub(super) fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

type Servers = (Vec<(Server, String)>, Vec<ServerView>);

/// The servers, and how the interfaces are attached by which their clients come.
fn servers(settings: &AnswersSettings, programs: &mut Programs, own: &[IpNet]) -> anyhow::Result<Servers> {
    let (mut servers, mut views) = (Vec::new(), Vec::new());
    for at in &settings.servers {
        let is_here = at.address.is_loopback() || own.iter().any(|network| network.addr() == at.address);
        ensure!(
            is_here,
            "answers.servers: {at}: this host does not have the address {}\nhint: ip address; answers are given only for \
             a server on this host",
            at.address
        );
        let attachment = programs.attachments().find(|attachment| attachment.interface == at.interface);
        let attachment =
            attachment.with_context(|| format!("answers.servers: {at}: {} is not watched", at.interface))?;
        let vlans = unseen_vlans(&at.interface);
        ensure!(
            vlans.is_empty(),
            "answers.servers: {at}: {} has VLANs ({}) whose tags are taken off before XDP sees them, so their clients' \
             answers would go to another network\nhint: ethtool -K {} rxvlan off",
            at.interface,
            vlans.join(", "),
            at.interface
        );
        let (mode, reason) = match attachment.xdp {
            XdpMode::Native => ("native", None),
            XdpMode::Generic => ("generic", attachment.xdp_reason.clone()),
            XdpMode::Off => ("off", Some("what arrives is not watched (--no-ingress, capture.ingress)".to_owned())),
        };
        tracing::info!("answers of {} are given at {} ({mode} XDP)", at.address, at.interface);
        views.push(ServerView {
            server: at.address.to_string(),
            interface: at.interface.clone(),
            mode: mode.to_owned(),
            reason,
        });
        servers.push((Server { address: at.address, interface: attachment.index }, at.interface.clone()));
    }
    Ok((servers, views))
}

/// The settings as the kernel reads them.
fn rules(settings: &AnswersSettings, port: u16) -> AnswerRules {
    let per_second = u64::from(settings.per_second);
    AnswerRules {
        own_port: port.to_be(),
        longest: settings.longest,
        ratio: settings.ratio,
        truncate: settings.truncate,
        audit: if settings.audit == 0 { u64::MAX } else { u64::from(settings.audit) - 1 },
        client: u64::from(settings.client_seconds) * 1_000_000_000,
        cost: 1_000_000_000_u64.checked_div(per_second).unwrap_or(0),
        burst: 1_000_000_000,
        network4: address(IpAddr::from([255, 255, 255, 0])),
        network6: address(IpAddr::from([0xffff, 0xffff, 0xffff, 0xff00, 0, 0, 0, 0])),
    }
}
