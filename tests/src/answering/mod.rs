//! A server host with and without answers in the kernel: a client beside it, a real resolver on it, an authority behind.
//!
//! Comes in: which resolver, and whether there is a daemon. Goes out: a world to ask questions in. Never here: what the
//! daemon does by itself; the resolver has addresses that are answered by the kernel, and others that are not, so every
//! question can be asked both ways at once.

mod compare;
mod questions;
mod servers;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::programs::{Xdp, XdpMode, links::FdLink};
use prewarm_ebpf::{abi::PASS, answers::BENCH_DROP};
use tempfile::TempDir;

use crate::{
    clock, daemon,
    daemon::{Daemon, DaemonOptions},
    netns::{Addresses, Namespace, VethEnd, veth},
    question,
    service::Service,
};

pub use compare::{Difference, compare};
pub use questions::{Generator, zone};

/// The resolver's address whose answers the kernel gives.
pub const ANSWERED: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 77, 0, 53), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x53) };
/// The one that is always asked itself.
pub const PLAIN: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 77, 0, 54), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x54) };
/// The resolver's address on loopback, as of a stub.
pub const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// Another address of the client's, to which Unbound tells something else of h1.example.org.
pub const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// What that is.
pub const OTHER_ANSWER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// The client.
pub const CLIENT: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 77, 0, 1), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1) };
/// Where the authority listens, for the resolver alone.
pub(crate) const AUTHORITY: &str = "127.0.0.3";
/// The interface of the server host.
pub const INTERFACE: &str = "pw-server";
/// The client's.
pub const CLIENT_INTERFACE: &str = "pw-client";
/// Questions under way at once.
const WINDOW: usize = 48;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(400);

/// A resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Unbound.
    Unbound,
    /// Knot Resolver.
    KnotResolver,
    /// dnsdist with its packet cache, before the authority.
    Dnsdist,
    /// dnsmasq.
    Dnsmasq,
    /// Knot DNS in its AF_XDP mode, which has the zone itself.
    KnotXdp,
}

/// The world.
pub struct World {
    /// The server host.
    pub server: Namespace,
    /// The client.
    pub client: Namespace,
    /// The daemon, while there is one.
    pub daemon: Option<Daemon>,
    /// Files of all of them.
    pub folder: TempDir,
    resolver: Service,
    authority: Service,
    pass: Option<FdLink>,
}

impl World {
    /// Starts everything but the daemon.
    ///
    /// # Errors
    /// When a part can't be had.
    pub fn start(kind: Kind) -> Result<Self> {
        let (server, client) = (Namespace::create("server")?, Namespace::create("client")?);
        veth(
            &VethEnd { namespace: &server, interface: INTERFACE, addresses: ANSWERED },
            &VethEnd { namespace: &client, interface: CLIENT_INTERFACE, addresses: CLIENT },
        )?;
        server.ip(&["addr", "add", &format!("{}/24", PLAIN.v4), "dev", INTERFACE])?;
        server.ip(&["addr", "add", &format!("{}/64", PLAIN.v6), "dev", INTERFACE, "nodad"])?;
        client.ip(&["addr", "add", &format!("{OTHER_CLIENT}/24"), "dev", CLIENT_INTERFACE])?;
        let folder = tempfile::tempdir()?;
        let pass = pass(&client)?;
        let authority = authority(&server, folder.path(), &zone())?;
        let resolver = servers::start(kind, &server, folder.path())?;
        let mut world = Self { server, client, daemon: None, folder, resolver, authority, pass: Some(pass) };
        if kind == Kind::KnotXdp {
            // It takes what comes to any address, but for the neighbour's first words.
            world.resolver_answers(ANSWERED.v4.into())?;
            return Ok(world);
        }
        world.resolver_answers(PLAIN.v4.into())?;
        world.resolver_answers(ANSWERED.v6.into())?;
        Ok(world)
    }

    /// Starts the daemon with these settings; XDP native unless they say otherwise.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn answer(&mut self, settings: &str) -> Result<()> {
        self.start_daemon(&format!(
            "[capture]\nxdp = \"native\"\ninterfaces = [\"{INTERFACE}\"]\n[resolve]\nservers = [\"{}:53\"]\n\
                 [answers]\nservers = [\"{}@{INTERFACE}\", \"{}@{INTERFACE}\"]\n{settings}",
            PLAIN.v4, ANSWERED.v4, ANSWERED.v6
        ))
    }

    fn start_daemon(&mut self, configuration: &str) -> Result<()> {
        let binary = daemon::binary().context("PREWARM_BIN is not set")?;
        let configuration = configuration.to_owned();
        let options = DaemonOptions { interfaces: Vec::new(), configuration, ingress: true };
        self.daemon = Some(Daemon::start(&self.server, &binary, &options, self.folder.path())?);
        Ok(())
    }

    /// The numbers of answers.
    ///
    /// # Errors
    /// When the daemon doesn't answer.
    pub fn numbers(&self) -> Result<serde_json::Value> {
        let daemon = self.daemon.as_ref().context("there is no daemon")?;
        let mut command = Command::new(daemon::binary().context("PREWARM_BIN is not set")?);
        command.args(["stats", "--json", "--socket"]).arg(daemon.socket()).stdin(Stdio::null());
        // Where events were lost, because more came than anybody reads, its exit code says so.
        let output = command.output()?;
        let stats: serde_json::Value = serde_json::from_slice(&output.stdout).context("prewarm stats --json")?;
        Ok(stats["given"].clone())
    }

    /// Asks one question at an address; none when there is no answer in time.
    ///
    /// # Errors
    /// When it can't be sent.
    pub fn ask(&self, server: IpAddr, message: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut answers = self.ask_all(server, &[message.to_vec()])?;
        Ok(answers.pop().flatten())
    }

    /// Asks many, some at a time, each with another number; gives each answer in its place.
    ///
    /// # Errors
    /// When they can't be sent.
    pub fn ask_all(&self, server: IpAddr, messages: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        self.ask_from(&self.client, server, messages)
    }

    /// The same from another namespace.
    ///
    /// # Errors
    /// When they can't be sent.
    pub fn ask_from(&self, from: &Namespace, server: IpAddr, messages: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        from.enter(|| {
            let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            socket.connect(SocketAddr::new(server, 53))?;
            let mut answers = Vec::with_capacity(messages.len());
            for window in messages.chunks(WINDOW) {
                answers.extend(exchange(&socket, window)?);
            }
            Ok(answers)
        })
    }

    /// Whether the answers to a question differ that an address gives where the kernel answers and one where it doesn't.
    /// The server itself is asked before and after, since it may ask anew in between; only what differs from both, three
    /// times in a row, is a difference.
    ///
    /// # Errors
    /// When it can't be asked.
    pub fn differs(
        &self,
        (answered, plain): (IpAddr, IpAddr),
        message: &[u8],
        elapsed: u32,
    ) -> Result<Option<Difference>> {
        let mut found = None;
        for _ in 0..3 {
            let (before, ours, after) =
                (self.ask(plain, message)?, self.ask(answered, message)?, self.ask(plain, message)?);
            let theirs: Vec<_> = [before, after].into_iter().flatten().collect();
            found = match &ours {
                None if theirs.is_empty() => None,
                None => Some(Difference("no answer".to_owned())),
                Some(_) if theirs.is_empty() => Some(Difference("an answer where the server gives none".to_owned())),
                Some(ours) => {
                    let mut all = theirs.iter().map(|theirs| compare(ours, theirs, elapsed + 10));
                    if all.any(|compared| compared.is_ok()) { None } else { compare(ours, &theirs[0], elapsed).err() }
                }
            };
            if found.is_none() {
                return Ok(None);
            }
        }
        Ok(found)
    }

    /// Lets the server host drop every datagram, until the link is dropped.
    ///
    /// # Errors
    /// When there is another program already.
    pub fn drop_all(&self) -> Result<FdLink> {
        put(&self.server, BENCH_DROP, INTERFACE)
    }

    /// Starts the daemon so that the server's address on loopback is answered.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn answer_loopback(&mut self) -> Result<()> {
        self.start_daemon(&format!(
            "[capture]\ninterfaces = [\"lo\"]\n[resolve]\nservers = [\"{}:53\"]\n\
             [answers]\nservers = [\"{LOOPBACK}@lo\"]\naudit = 0\n",
            PLAIN.v4
        ))
    }

    /// Takes the program off the client's end, for one that brings its own.
    pub fn free_client(&mut self) {
        self.pass = None;
    }

    /// Puts it back.
    ///
    /// # Errors
    /// When another one is there.
    pub fn take_client(&mut self) -> Result<()> {
        self.pass = Some(pass(&self.client)?);
        Ok(())
    }

    /// The resolver's process.
    #[must_use]
    pub fn resolver(&self) -> nix::unistd::Pid {
        self.resolver.pid()
    }

    /// Asks one question from the client's other address.
    ///
    /// # Errors
    /// When it can't be sent.
    pub fn ask_as_other(&self, message: &[u8]) -> Result<Option<Vec<u8>>> {
        self.client.enter(|| {
            let socket = UdpSocket::bind((OTHER_CLIENT, 0))?;
            socket.connect((ANSWERED.v4, 53))?;
            Ok(exchange(&socket, &[message.to_vec()])?.pop().flatten())
        })
    }

    /// Changes the zone, and lets the authority and the resolver start anew with it.
    ///
    /// # Errors
    /// When they don't.
    pub fn replace_zone(&mut self, text: &str) -> Result<()> {
        self.authority.end();
        self.authority = authority(&self.server, self.folder.path(), text)?;
        Ok(())
    }

    /// Ends the authority: what the resolver doesn't have, it can't learn any more.
    pub fn end_authority(&mut self) {
        self.authority.end();
    }

    fn resolver_answers(&mut self, address: IpAddr) -> Result<()> {
        let (client, resolver) = (&self.client, &mut self.resolver);
        resolver.ready(|| {
            client
                .enter(|| {
                    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                    socket.connect(SocketAddr::new(address, 53))?;
                    Ok(exchange(&socket, &[question::bytes("h0.example.org")])?.pop().flatten())
                })
                .ok()
                .flatten()
                .filter(|answer| answer.get(3).is_some_and(|flags| flags & 0xf == 0))
        })?;
        Ok(())
    }
}

/// Sends some messages and gathers what comes back to each, by its number.
fn exchange(socket: &UdpSocket, messages: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut answers = vec![None; messages.len()];
    let mut missing = messages.len();
    for message in messages {
        socket.send(message)?;
    }
    let until = clock::now() + PATIENCE;
    let mut buffer = [0; 4096];
    while missing > 0 {
        let left = until.saturating_sub(clock::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let Ok(length) = socket.recv(&mut buffer) else { break };
        let answer = &buffer[..length];
        let place = messages.iter().position(|message| message[..2] == answer[..2]);
        if let Some(place) = place
            && answers[place].is_none()
        {
            answers[place] = Some(answer.to_vec());
            missing -= 1;
        }
    }
    Ok(answers)
}

/// The program that the client's end needs to take what is sent back to it.
fn pass(client: &Namespace) -> Result<FdLink> {
    put(client, PASS, CLIENT_INTERFACE)
}

/// Puts a program that needs nothing on an interface.
fn put(namespace: &Namespace, program: &'static str, interface: &str) -> Result<FdLink> {
    let object = prewarm_user::kernel::object().context("built without the kernel programs")?;
    namespace.enter(|| {
        let mut bpf = aya::EbpfLoader::new().load(object)?;
        let program: &mut Xdp = bpf.program_mut(program).context("no such program")?.try_into()?;
        program.load()?;
        let id = program.attach(interface, XdpMode::Driver)?;
        Ok(FdLink::try_from(program.take_link(id)?)?)
    })
}

fn authority(namespace: &Namespace, folder: &Path, zone: &str) -> Result<Service> {
    let (file, configuration) = (folder.join("zone"), folder.join("nsd.conf"));
    fs::write(&file, zone)?;
    fs::write(
        &configuration,
        format!(
            "server:\n  ip-address: {AUTHORITY}\n  username: root\n  zonesdir: \"{folder}\"\n  database: \"\"\n  \
             pidfile: \"\"\n  xfrdfile: \"{folder}/xfrd.state\"\n  zonelistfile: \"{folder}/zone.list\"\n  \
             xfrdir: \"{folder}\"\n  server-count: 1\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n\
             zone:\n  name: \"example.org\"\n  zonefile: \"{zone}\"\n",
            folder = folder.display(),
            zone = file.display()
        ),
    )?;
    let mut command = namespace.command("/usr/sbin/nsd");
    command.arg("-d").arg("-c").arg(&configuration);
    let mut service = Service::start("nsd", command, folder)?;
    service.ready(|| {
        let asked = namespace.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect((AUTHORITY, 53))?;
            Ok(exchange(&socket, &[question::bytes("h0.example.org")])?.pop().flatten())
        });
        asked.ok().flatten()
    })?;
    Ok(service)
}
