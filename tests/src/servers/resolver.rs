//! The caching resolver near the clients: Unbound, forwarding everything over the long link.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{address_type, resolves};
use crate::netns::Namespace;
use crate::service::Service;

/// A running resolver.
#[derive(Debug)]
pub struct Resolver {
    _service: Service,
    control: PathBuf,
}

/// What the resolver counted since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResolverCounts {
    /// Answered from its cache.
    pub hits: u64,
    /// Asked far away.
    pub misses: u64,
}

impl Resolver {
    /// Listens on the address and on the loopback addresses, and forwards to `upstream`, without prefetch and without
    /// serving what has expired: a name is in the cache because somebody asked for it.
    ///
    /// # Errors
    /// When Unbound can't be started or doesn't resolve `probe`.
    pub fn start(
        namespace: &Namespace,
        address: IpAddr,
        upstream: IpAddr,
        probe: &str,
        log_everything: bool,
        directory: &Path,
    ) -> Result<Self> {
        let control = directory.join("unbound.sock");
        let configuration = directory.join("unbound.conf");
        fs::write(
            &configuration,
            format!(
                "server:\n  interface: {address}\n  interface: 127.0.0.1\n  access-control: 0.0.0.0/0 allow\n  \
                 access-control: ::/0 allow\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  \
                 directory: \"{folder}\"\n  pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  num-threads: 1\n  {logged}\
                 module-config: \"iterator\"\n  cache-min-ttl: 0\n  prefetch: no\n  serve-expired: no\n  \
                 qname-minimisation: no\n\
                 remote-control:\n  control-enable: yes\n  control-interface: \"{control}\"\n  control-use-cert: no\n\
                 forward-zone:\n  name: \".\"\n  forward-addr: {upstream}\n",
                // Four lines a question: for who wants to know, not while microseconds are measured.
                logged = if log_everything { "log-queries: yes\n  log-replies: yes\n  " } else { "" },
                folder = directory.display(),
                control = control.display(),
            ),
        )?;
        let mut command = namespace.command("/usr/sbin/unbound");
        command.arg("-d").arg("-c").arg(&configuration);
        let mut service = Service::start("unbound", command, directory)?;
        service.ready(|| resolves(namespace, address, probe, address_type(upstream)))?;
        Ok(Self { _service: service, control })
    }

    /// Forgets every answer.
    ///
    /// # Errors
    /// When the control socket doesn't answer.
    pub fn flush(&self) -> Result<()> {
        self.ask("flush_zone .").map(drop)
    }

    /// What was counted since the start.
    ///
    /// # Errors
    /// When the control socket doesn't answer, or not with these counters.
    pub fn counts(&self) -> Result<ResolverCounts> {
        let reply = self.ask("stats_noreset")?;
        let values: HashMap<_, _> = reply.lines().filter_map(|line| line.split_once('=')).collect();
        let count = |name: &str| -> Result<u64> {
            let value = values.get(name).with_context(|| format!("unbound has no {name}"))?;
            value.parse().with_context(|| format!("{name}={value}"))
        };
        Ok(ResolverCounts { hits: count("total.num.cachehits")?, misses: count("total.num.cachemiss")? })
    }

    /// What `unbound-control COMMAND` would print; the protocol is one line each way.
    fn ask(&self, command: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.control).context("unbound's control socket")?;
        writeln!(stream, "UBCT1 {command}")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    }
}
