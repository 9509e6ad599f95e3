//! Resolvers from Debian packages, each on one thread and one processor, with the same names behind them.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::{ANSWERED, AUTHORITY, INTERFACE, Kind, LOOPBACK, OTHER_ANSWER, OTHER_CLIENT, PLAIN};
use crate::{netns::Namespace, service::Service};

/// Starts one.
pub(super) fn start(kind: Kind, namespace: &Namespace, folder: &Path) -> Result<Service> {
    match kind {
        Kind::Unbound => unbound(namespace, folder),
        Kind::KnotResolver => knot_resolver(namespace, folder),
        Kind::Dnsdist => dnsdist(namespace, folder),
        Kind::Dnsmasq => dnsmasq(namespace, folder),
        Kind::KnotXdp => knot_xdp(namespace, folder),
    }
}

/// A command on the first processor; the client is on another.
fn pinned(namespace: &Namespace, program: &str) -> Command {
    let mut command = namespace.command("taskset");
    command.args(["-c", "0", program]);
    command
}

fn unbound(namespace: &Namespace, folder: &Path) -> Result<Service> {
    let configuration = folder.join("unbound.conf");
    fs::write(
        &configuration,
        format!(
            "server:\n  interface: {LOOPBACK}\n  interface: {}\n  interface: {}\n  interface: {}\n  interface: {}\n  access-control: 0.0.0.0/0 allow\n  \
             access-control: ::/0 allow\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{folder}\"\n  \
             pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  num-threads: 1\n  module-config: \"iterator\"\n  \
             do-not-query-localhost: no\n  qname-minimisation: no\n  access-control-view: {OTHER_CLIENT}/32 other\n\
             view:\n  name: other\n  view-first: yes\n  local-data: \"h1.example.org. 300 A {OTHER_ANSWER}\"\n\
             remote-control:\n  control-enable: no\n\
             stub-zone:\n  name: \"example.org\"\n  stub-addr: {AUTHORITY}\n",
            ANSWERED.v4,
            PLAIN.v4,
            ANSWERED.v6,
            PLAIN.v6,
            folder = folder.display(),
        ),
    )?;
    let mut command = pinned(namespace, "/usr/sbin/unbound");
    command.arg("-d").arg("-c").arg(&configuration);
    Service::start("unbound", command, folder)
}

fn knot_resolver(namespace: &Namespace, folder: &Path) -> Result<Service> {
    let (configuration, run) = (folder.join("kresd.conf"), folder.join("kresd"));
    fs::create_dir_all(&run)?;
    fs::write(
        &configuration,
        format!(
            "net.listen({{'{}', '{}', '{}', '{}'}}, 53, {{ kind = 'dns' }})\n\
             trust_anchors.remove('.')\ncache.size = 20 * MB\n\
             policy.add(policy.suffix(policy.STUB('{AUTHORITY}'), policy.todnames({{'example.org'}})))\n",
            ANSWERED.v4, PLAIN.v4, ANSWERED.v6, PLAIN.v6,
        ),
    )?;
    let mut command = pinned(namespace, "/usr/sbin/kresd");
    command.arg("-n").arg("-c").arg(&configuration).arg(&run);
    Service::start("kresd", command, folder)
}

fn dnsdist(namespace: &Namespace, folder: &Path) -> Result<Service> {
    let configuration = folder.join("dnsdist.conf");
    fs::write(
        &configuration,
        format!(
            "setLocal('{}:53')\naddLocal('{}:53')\naddLocal('[{}]:53')\naddLocal('[{}]:53')\n\
             setACL({{'0.0.0.0/0', '::/0'}})\nnewServer({{address='{AUTHORITY}:53', checkName='h0.example.org.'}})\n\
             cache = newPacketCache(10000)\ngetPool(''):setCache(cache)\nsetSecurityPollSuffix('')\n",
            ANSWERED.v4, PLAIN.v4, ANSWERED.v6, PLAIN.v6
        ),
    )?;
    let mut command = pinned(namespace, "/usr/bin/dnsdist");
    command.args(["--supervised", "--disable-syslog", "-C"]).arg(&configuration);
    Service::start("dnsdist", command, folder)
}

fn dnsmasq(namespace: &Namespace, folder: &Path) -> Result<Service> {
    let mut command = pinned(namespace, "/usr/sbin/dnsmasq");
    command.args(["-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces", "-u", "root"]);
    command.args(["--cache-size=10000", "--dns-forward-max=10000", &format!("--server={AUTHORITY}")]);
    for address in [ANSWERED, PLAIN] {
        command.args([format!("--listen-address={}", address.v4), format!("--listen-address={}", address.v6)]);
    }
    command.arg(format!("--pid-file={}", folder.join("dnsmasq.pid").display()));
    Service::start("dnsmasq", command, folder)
}

fn knot_xdp(namespace: &Namespace, folder: &Path) -> Result<Service> {
    let configuration = folder.join("knot.conf");
    fs::write(
        &configuration,
        format!(
            "server:\n  rundir: {folder}\n  user: root\n  listen: [ {v4}@53, {v6}@53 ]\n  udp-workers: 1\n\
             xdp:\n  listen: {INTERFACE}@53\n\
             database:\n  storage: {folder}\n\
             zone:\n  - domain: example.org\n    file: {folder}/zone\n    zonefile-sync: -1\n    journal-content: none\n",
            folder = folder.display(),
            v4 = PLAIN.v4,
            v6 = PLAIN.v6,
        ),
    )?;
    let mut command = pinned(namespace, "/usr/sbin/knotd");
    command.arg("-c").arg(&configuration);
    Service::start("knotd", command, folder)
}
