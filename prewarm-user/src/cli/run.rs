//! `run`: the flags of the daemon.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use crate::{
    config::{AnswerAt, Config, ConfigError, RedirectSettings, Source, Sources, load},
    kernel::cgroup_mount,
    telemetry::LogFormat,
};

/// Flags of `prewarm run`.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// An interface to attach to; may be given several times.
    #[arg(short, long = "iface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Another source of names, also instead of an interface: dnstap:/PATH listens there for DNS servers, getaddrinfo
    /// watches this host's C libraries, getaddrinfo:/PATH one of them; may be given several times.
    #[arg(long, value_name = "SOURCE")]
    source: Vec<Source>,
    #[command(flatten)]
    settings: SettingsArguments,
    /// The control socket.
    #[arg(long, value_name = "PATH", env = "PREWARM_SOCKET")]
    socket: Option<PathBuf>,
    /// Where state and the key of the resource IDs are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/prewarm")]
    pub state: PathBuf,
    /// Serves SOCKS5 there; may be given several times.
    #[arg(long, value_name = "ADDR:PORT")]
    socks: Vec<SocketAddr>,
    /// Serves HTTP CONNECT there; may be given several times.
    #[arg(long, value_name = "ADDR:PORT")]
    connect: Vec<SocketAddr>,
    /// Takes over forwarded connections that arrive by this interface where a lease waits for them; may be given several
    /// times.
    #[arg(long, value_name = "IF")]
    tproxy: Vec<String>,
    /// Gives the answers of a DNS server on this host from inside the kernel, to clients that come by this interface; may
    /// be given several times.
    #[arg(long = "answer", value_name = "ADDRESS@IF")]
    answers: Vec<AnswerAt>,
    /// Does not watch what arrives.
    #[arg(long)]
    no_ingress: bool,
    /// Does not watch what leaves.
    #[arg(long)]
    no_egress: bool,
    /// Redirects connections of the programs in a cgroup to leases [default: in those of the configuration]
    #[arg(long, value_name = "CGROUP", num_args = 0..=1, require_equals = true)]
    redirect: Option<Option<PathBuf>>,
    /// What to log, in the notation of RUST_LOG, which wins over it.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Flags of every command that reads the configuration.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SettingsArguments {
    /// The configuration file [default: /etc/prewarm/config.toml, where it is there]
    #[arg(short, long, value_name = "FILE", env = "PREWARM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key, over file and environment: --set policy.waste_budget=1.0
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl SettingsArguments {
    pub(crate) fn sources(&self) -> Sources {
        Sources { file: self.config.clone(), set: self.set.clone() }
    }
}

impl RunArguments {
    /// The configuration, with what the flags say on top. Read again at a reload.
    ///
    /// # Errors
    /// When a source is bad.
    pub fn configuration(&self) -> Result<Config, ConfigError> {
        let mut config = load(&self.settings.sources())?;
        add(&mut config.capture.interfaces, &self.interfaces);
        add(&mut config.sources.list, &self.source);
        add(&mut config.answers.servers, &self.answers);
        for at in &config.answers.servers {
            add(&mut config.capture.interfaces, std::slice::from_ref(&at.interface));
        }
        let handover = &mut config.handover;
        add(&mut handover.socks.listen, &self.socks);
        add(&mut handover.connect.listen, &self.connect);
        add(&mut handover.tproxy.interfaces, &self.tproxy);
        config.capture.ingress &= !self.no_ingress;
        config.capture.egress &= !self.no_egress;
        if let Some(socket) = &self.socket {
            config.control.socket.clone_from(socket);
        }
        if let Some(cgroup) = &self.redirect {
            let redirect = &mut config.handover.redirect;
            redirect.enabled = true;
            match cgroup {
                Some(cgroup) => redirect.cgroups = vec![cgroup.clone()],
                // Where cgroup v1 is there too, v2 lies elsewhere than the usual settings say.
                None if redirect.cgroups == RedirectSettings::default().cgroups => {
                    redirect.cgroups.splice(.., cgroup_mount());
                }
                None => {}
            }
        }
        config.check()?;
        Ok(config)
    }
}

/// What flags name comes on top of what the file does.
fn add<T: Clone + PartialEq>(list: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}
