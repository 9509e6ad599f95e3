//! Name servers that tell of their clients by dnstap.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use prewarm_tests::{netns::Namespace, servers::Certificates, service::Service};

/// What Unbound answers with, and how.
pub(crate) struct Unbound<'a> {
    /// Where it listens, besides 127.0.0.1, on port 53 and for TLS on 853.
    pub(crate) address: IpAddr,
    /// Names it knows itself, each with its address; all under `.example`.
    pub(crate) names: &'a [(&'a str, &'a str)],
    /// Of those, how long answers are good for, in seconds.
    pub(crate) ttl: u32,
    /// Whom it asks for names under `.test`.
    pub(crate) upstream: Option<IpAddr>,
    /// What it says over dnstap, of its options.
    pub(crate) tells: &'a [&'a str],
}

pub(crate) const CLIENTS: &[&str] = &["client-query-messages", "client-response-messages"];

impl Unbound<'_> {
    /// Starts it as the user of its package, so that the socket's rights are put to the test.
    pub(crate) fn start(&self, namespace: &Namespace, socket: &Path, folder: &Path) -> Result<Service> {
        let certificates = Certificates::issue(&["dns.example".to_owned()], folder)?;
        let names: String = self
            .names
            .iter()
            .map(|(name, address)| format!("  local-data: \"{name} {} IN A {address}\"\n", self.ttl))
            .collect();
        let tells: String = self.tells.iter().map(|what| format!("  dnstap-log-{what}: yes\n")).collect();
        let upstream = self.upstream.map_or_else(String::new, |upstream| {
            format!("forward-zone:\n  name: \"test.\"\n  forward-addr: {upstream}\n")
        });
        let address = self.address;
        let configuration = folder.join("unbound.conf");
        fs::write(
            &configuration,
            format!(
                "server:\n  interface: {address}\n  interface: 127.0.0.1\n  interface: {address}@853\n  tls-port: 853\n  \
                 tls-service-pem: \"{pem}\"\n  tls-service-key: \"{key}\"\n  access-control: 0.0.0.0/0 allow\n  \
                 do-daemonize: no\n  username: \"unbound\"\n  chroot: \"\"\n  directory: \"{folder}\"\n  pidfile: \"\"\n  \
                 use-syslog: no\n  logfile: \"\"\n  num-threads: 2\n  module-config: \"iterator\"\n  \
                 local-zone: \"test.\" transparent\n  qname-minimisation: no\n  local-zone: \"example.\" static\n{names}\
                 {upstream}\
                 dnstap:\n  dnstap-enable: yes\n  dnstap-bidirectional: yes\n  dnstap-socket-path: \"{socket}\"\n{tells}",
                pem = certificates.certificate.display(),
                key = certificates.key.display(),
                folder = folder.display(),
                socket = socket.display(),
            ),
        )?;
        let mut command = namespace.command("/usr/sbin/unbound");
        command.arg("-d").arg("-c").arg(&configuration);
        let mut service = Service::start("unbound", command, folder)?;
        let log = folder.join("unbound.log");
        service.ready(|| fs::read_to_string(&log).ok().filter(|log| log.contains("start of service")))?;
        Ok(service)
    }
}

/// Starts Knot DNS with a zone `knot.example` of these names, which tells of those who ask it.
pub(crate) fn knot(
    namespace: &Namespace,
    address: IpAddr,
    names: &[(&str, &str)],
    socket: &Path,
    folder: &Path,
) -> Result<Service> {
    let zone: String = names.iter().map(|(name, address)| format!("{name}. 60 A {address}\n")).collect();
    fs::write(
        folder.join("knot.zone"),
        format!(
            "$ORIGIN knot.example.\n@ 60 SOA ns hostmaster 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A {address}\n{zone}"
        ),
    )?;
    let folder_name = folder.display();
    let configuration = folder.join("knot.conf");
    fs::write(
        &configuration,
        format!(
            "server:\n  rundir: \"{folder_name}\"\n  listen: {address}@5300\nlog:\n  - target: stdout\n    any: info\n\
             database:\n  storage: \"{folder_name}\"\n\
             mod-dnstap:\n  - id: tap\n    sink: \"unix:{}\"\n    log-queries: on\n    log-responses: on\n\
             template:\n  - id: default\n    global-module: mod-dnstap/tap\n    storage: \"{folder_name}\"\n\
             zone:\n  - domain: knot.example\n    file: knot.zone\n",
            socket.display()
        ),
    )?;
    let mut command = namespace.command("/usr/sbin/knotd");
    command.arg("-c").arg(&configuration);
    let mut service = Service::start("knot", command, folder)?;
    let log = folder.join("knot.log");
    service.ready(|| fs::read_to_string(&log).ok().filter(|log| log.contains("server started")))?;
    Ok(service)
}

/// Asks by kdig, with these further flags, and gives the addresses.
pub(crate) fn ask(namespace: &Namespace, server: IpAddr, name: &str, flags: &[&str]) -> Result<Vec<String>> {
    let mut command = namespace.command("kdig");
    command.arg(format!("@{server}")).args(["+short", "+timeout=3", "+retry=2"]).args(flags).arg(name);
    let output = command.output().context("run kdig")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && !text.trim().is_empty(), "kdig {name}: {text}");
    Ok(text.lines().map(str::to_owned).collect())
}

/// A folder that servers can enter with users of their own.
pub(crate) fn open_folder() -> Result<(tempfile::TempDir, PathBuf)> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let path = folder.path().to_owned();
    Ok((folder, path))
}
