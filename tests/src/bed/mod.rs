//! The bed on which one way is tested at a time: client ─ gateway ─ server, three namespaces, with or without a long
//! link between the last two.
//!
//! In: a round trip (none: veth throughout) and a way out; out: a daemon that keeps leases to the server, and commands of
//! the plain client whose connections take that way. The daemon is where the way needs it: on the client or on the
//! gateway. Without a daemon the same commands connect cold.

pub mod origins;
mod peer;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path as File, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::client::{Target, Way};
use crate::daemon::{Daemon, DaemonOptions};
use crate::link::DelayedLink;
use crate::netns::{Addresses, Namespace, VethEnd, owned_name, veth};
use crate::path::{Path, Site};
use crate::program::program;
use crate::servers::{Authority, Record};
use crate::service::Service;

pub use peer::Peer;

const CLIENT: Addresses = Addresses { v4: Ipv4Addr::new(10, 79, 0, 2), v6: Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 2) };
const NEAR: Addresses = Addresses { v4: Ipv4Addr::new(10, 79, 0, 1), v6: Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 1) };
const CLIENT_NETWORKS: [&str; 2] = ["10.79.0.0/24", "fd79::/64"];
const FAR: Addresses = Addresses { v4: Ipv4Addr::new(10, 79, 1, 1), v6: Ipv6Addr::new(0xfd79, 0, 0, 1, 0, 0, 0, 1) };
const SERVER: Addresses = Addresses { v4: Ipv4Addr::new(10, 79, 1, 2), v6: Ipv6Addr::new(0xfd79, 0, 0, 1, 0, 0, 0, 2) };
/// Where origins listen; a network that prewarm leaves alone unless it is allowed.
const ORIGIN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const ORIGIN_NETWORK: &str = "198.51.100.0/24";
/// The name server of the zone, on the server.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ZONE: &str = "bed.example";
const UPLINK: &str = "uplink";
const CLIENTS: &str = "clients";
const OUTSIDE: &str = "outside";
/// Where the plain forwarder listens.
const FORWARDER_PORT: u16 = 7000;
/// Leases that are kept to an origin, unless said otherwise.
const KEPT: u32 = 16;
/// How long leases may take until they stand.
const KEPT_WITHIN: Duration = Duration::from_secs(10);

/// Three namespaces and what they need. Fields drop in order: servers, link, namespaces, files.
#[derive(Debug)]
pub struct Bed {
    _authority: Authority,
    _link: Option<DelayedLink>,
    /// Where programs run.
    pub client: Namespace,
    /// What forwards.
    pub gateway: Namespace,
    /// Where origins run.
    pub server: Namespace,
    cgroup: Cgroup,
    directory: TempDir,
}

/// A lease that the daemon keeps to a port of the origin.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The port.
    pub port: u16,
    /// How many.
    pub count: u32,
}

impl Keep {
    /// The usual number of leases to a port.
    pub fn to(port: u16) -> Self {
        Self { port, count: KEPT }
    }
}

impl Bed {
    /// Builds it.
    ///
    /// # Errors
    /// Without root, or when a package is missing.
    pub fn build(round_trip: Option<Duration>) -> Result<Self> {
        let directory = TempDir::with_prefix(owned_name("bed-"))?;
        let mut client = Namespace::create("client")?;
        let mut gateway = Namespace::create("gateway")?;
        let server = Namespace::create("server")?;
        veth(
            &VethEnd { namespace: &client, interface: UPLINK, addresses: CLIENT },
            &VethEnd { namespace: &gateway, interface: CLIENTS, addresses: NEAR },
        )?;
        let link = match round_trip {
            None => {
                veth(
                    &VethEnd { namespace: &gateway, interface: OUTSIDE, addresses: FAR },
                    &VethEnd { namespace: &server, interface: OUTSIDE, addresses: SERVER },
                )?;
                None
            }
            Some(round_trip) => {
                let link = DelayedLink::join((&gateway, OUTSIDE), (&server, OUTSIDE), round_trip)?;
                for (namespace, addresses) in [(&gateway, FAR), (&server, SERVER)] {
                    namespace.ip(&["addr", "add", &format!("{}/24", addresses.v4), "dev", OUTSIDE])?;
                }
                Some(link)
            }
        };
        for address in [ORIGIN, NAME_SERVER] {
            server.ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"])?;
        }
        client.ip(&["route", "add", "default", "via", &NEAR.v4.to_string()])?;
        gateway.ip(&["route", "add", ORIGIN_NETWORK, "via", &SERVER.v4.to_string()])?;
        server.ip(&["route", "add", "default", "via", &FAR.v4.to_string()])?;
        gateway.sysctl("net/ipv4/ip_forward", "1")?;
        for namespace in [&client, &gateway] {
            // Ten thousand connections one after the other leave as many ports behind that wait.
            namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        }
        client.set_resolver(NAME_SERVER.into())?;
        gateway.set_resolver(NAME_SERVER.into())?;
        let record = Record { name: origin_name(), address: ORIGIN.into() };
        let ttl = Duration::from_secs(300);
        let authority = Authority::start(&server, NAME_SERVER.into(), ZONE, ttl, &[record], directory.path())?;
        let cgroup = Cgroup::create("bed")?;
        Ok(Self { _authority: authority, _link: link, client, gateway, server, cgroup, directory })
    }

    /// For the files of further programs; removed at the end.
    pub fn directory(&self) -> &File {
        self.directory.path()
    }

    /// A port of the origin.
    pub fn origin(&self, port: u16) -> SocketAddr {
        SocketAddr::new(ORIGIN.into(), port)
    }

    /// The client's own address.
    pub fn client_address(&self) -> IpAddr {
        CLIENT.v4.into()
    }

    /// The cgroup whose programs are redirected.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Starts a daemon for this way and waits until its leases stand.
    ///
    /// # Errors
    /// When it doesn't start, or doesn't get its leases.
    pub fn daemon(&self, path: Path, binary: &File, keeps: &[Keep]) -> Result<Daemon> {
        let mut daemon = self.start_daemon(path, binary, keeps)?;
        self.wait_for_leases(&mut daemon, keeps)?;
        Ok(daemon)
    }

    /// Starts a daemon for this way.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start_daemon(&self, path: Path, binary: &File, keeps: &[Keep]) -> Result<Daemon> {
        let (namespace, interface) = if path.is_local() { (&self.client, UPLINK) } else { (&self.gateway, CLIENTS) };
        let options = DaemonOptions {
            interfaces: vec![interface.to_owned()],
            configuration: configuration(keeps) + &path.settings(&self.site()),
            ingress: true,
        };
        Daemon::start(namespace, binary, &options, self.directory())
    }

    /// Waits until the leases stand that are to be kept.
    ///
    /// # Errors
    /// When they don't come.
    pub fn wait_for_leases(&self, daemon: &mut Daemon, keeps: &[Keep]) -> Result<()> {
        let wanted: u64 = keeps.iter().map(|keep| u64::from(keep.count)).sum();
        let stand = crate::clock::wait_for(&format!("{wanted} leases to stand"), KEPT_WITHIN, || {
            Ok((daemon.ready_leases()? >= wanted).then_some(()))
        });
        stand.with_context(|| format!("log of prewarm:\n{}", daemon.log_tail()))
    }

    /// A command of the plain client whose connections take this way; cold without a daemon. Flags of the task follow.
    ///
    /// # Errors
    /// When the plain client isn't built.
    pub fn client(&self, path: Path, daemon: Option<&Daemon>, task: &str) -> Result<Command> {
        let plain = program("plain-client")?;
        let wrapper = daemon.filter(|_| path == Path::Exec).map(Daemon::wrapper).unwrap_or_default();
        let mut words = wrapper.iter().map(|word| word.as_os_str()).chain([plain.as_os_str()]);
        let mut command = self.client.command(words.next().unwrap_or(plain.as_os_str()));
        command.args(words);
        if daemon.is_some() && path == Path::Redirect {
            self.cgroup.adopt(&mut command)?;
        }
        command.args([task, "--way", &self.way(path, daemon).to_string()]);
        Ok(command)
    }

    /// The plain client's way.
    pub fn way(&self, path: Path, daemon: Option<&Daemon>) -> Way {
        let Some(daemon) = daemon else { return Way::Direct };
        match (path, path.listener(&self.site())) {
            (Path::Socks, Some(proxy)) => Way::Socks(proxy),
            (Path::Connect, Some(proxy)) => Way::Connect(proxy),
            (Path::Fd, _) => Way::Fd(daemon.socket().to_owned()),
            _ => Way::Direct,
        }
    }

    /// What the plain client is told to connect to: a name where a proxy asks for it.
    pub fn target(&self, path: Path, daemon: Option<&Daemon>, port: u16) -> Target {
        match self.way(path, daemon) {
            Way::Socks(_) | Way::Connect(_) => Target::Name(origin_name(), port),
            Way::Direct | Way::Fd(_) => Target::Address(self.origin(port)),
        }
    }

    /// Starts a plain forwarder to a port of the origin where the daemon of this way would be; its address.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn forwarder(&self, path: Path, port: u16) -> Result<(Service, SocketAddr)> {
        let (namespace, address) = if path.is_local() {
            (&self.client, IpAddr::from(Ipv4Addr::LOCALHOST))
        } else {
            (&self.gateway, IpAddr::from(NEAR.v4))
        };
        let listen = SocketAddr::new(address, FORWARDER_PORT);
        let mut command = namespace.command(program("plain-client")?);
        command.args(["forward", "--listen", &listen.to_string(), "--to", &self.origin(port).to_string()]);
        let mut service = Service::start("forwarder", command, self.directory())?;
        service.ready(|| self.client.enter(|| Ok(std::net::TcpStream::connect(listen)?)).ok())?;
        Ok((service, listen))
    }

    fn site(&self) -> Site<'_> {
        Site {
            address: NEAR.v4.into(),
            interface: CLIENTS,
            clients: &CLIENT_NETWORKS,
            cgroup: Some(self.cgroup.path()),
        }
    }
}

/// The one name of the zone.
fn origin_name() -> String {
    format!("origin.{ZONE}")
}

/// Runs a command to its end and reads the JSON that it prints.
///
/// # Errors
/// When it fails, with what it complained of.
pub fn outcome<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let output = command.stdin(Stdio::null()).output().context("run the plain client")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, complaint.trim());
    serde_json::from_slice(&output.stdout).context("read what the plain client says")
}

/// The daemon's configuration without a way out: leases as fast as they are taken.
fn configuration(keeps: &[Keep]) -> String {
    let ports: Vec<_> = keeps.iter().map(|keep| keep.port).collect();
    let mut text = format!(
        "[policy.guard]\nallow_networks = [{ORIGIN_NETWORK:?}]\nports = {ports:?}\n\n[resolve]\nservers = [\"{NAME_SERVER}:53\"]\n\n\
         [lease]\ntotal = 1024\nper_origin = 64\nper_address = 256\ndials_per_second = 10000.0\ndial_burst = 10000\n"
    );
    for Keep { port, count } in keeps {
        text.push_str(&format!("\n[[lease.keep]]\norigin = \"{}:{port}\"\ncount = {count}\n", origin_name()));
    }
    text
}

/// The folder of a test's own files.
pub fn folder(bed: &Bed, name: &str) -> Result<PathBuf> {
    let folder = bed.directory().join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
