//! What the kernel tells of the host's connections: measured over a link of a known length, and read back from the
//! daemon.
//!
//! The program sits on the real root of the cgroups, so it sees every connection of this machine meanwhile; each test
//! looks only at those of its own namespaces.

#![expect(clippy::print_stderr, reason = "a test that is skipped says why")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    thread,
    time::Duration,
};

use anyhow::Result;
use aya::{
    programs::{ProgramInfo, loaded_programs},
    sys::{Stats, enable_stats},
};
use prewarm_ebpf::abi::SOCKOPS;
use prewarm_tests::{
    clock,
    daemon::{self, Daemon, DaemonOptions},
    kernel,
    link::DelayedLink,
    needs::{self, skip},
    netns::{Addresses, Namespace, VethEnd, veth},
    question,
};
use prewarm_user::{
    kernel::{Dialled, Key, Programs, Ring, Settings, cgroup_mount, object},
    lease::netns_cookie,
    model::{Connection, Phase, Seen},
};
use socket2::{Domain, Socket, Type};

const ROUND_TRIP: Duration = Duration::from_millis(40);
const WAIT: Duration = Duration::from_secs(10);
const FAR: &str = "10.77.9.2:7";
const FAR6: &str = "[fd77:9::2]:7";
const MAPPED: &str = "[::ffff:10.77.9.2]:7";

/// Two namespaces with the link between them, and a server on the far end that echoes once and waits for the end.
struct World {
    near: Namespace,
    far: Namespace,
    _link: DelayedLink,
}

impl World {
    fn new() -> Result<Self> {
        let (near, far) = (Namespace::create("near")?, Namespace::create("far")?);
        let link = DelayedLink::join((&near, "wan"), (&far, "wan"), ROUND_TRIP)?;
        for (namespace, v4, v6) in [(&near, "10.77.9.1/30", "fd77:9::1/64"), (&far, "10.77.9.2/30", "fd77:9::2/64")] {
            namespace.ip(&["addr", "add", v4, "dev", "wan"])?;
            namespace.ip(&["addr", "add", v6, "dev", "wan", "nodad"])?;
        }
        for address in [FAR, FAR6] {
            let listener = far.enter(|| Ok(TcpListener::bind(address.parse::<SocketAddr>()?)?))?;
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || echo(stream));
                }
            });
        }
        Ok(Self { near, far, _link: link })
    }

    fn cookie(namespace: &Namespace) -> u64 {
        namespace.enter(|| Ok(netns_cookie(UdpSocket::bind("0.0.0.0:0")?.as_fd())?)).unwrap()
    }
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

/// The programs, watching this machine's connections.
struct Watching {
    _programs: Programs,
    ring: Ring,
    dialled: Dialled,
    seen: Vec<Connection>,
}

impl Watching {
    fn start() -> Option<Self> {
        if let Some(reason) = kernel::missing() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let mut programs = Programs::load(object().unwrap(), &Settings::new(Key::from_secret(&[1; 32]))).unwrap();
        let dialled = programs.watch_connections(&cgroup_mount().expect("cgroup v2 is mounted")).unwrap();
        let ring = programs.ring().unwrap();
        Some(Self { _programs: programs, ring, dialled, seen: Vec::new() })
    }

    /// The phases of the connection to there, in a namespace, once there are so many.
    fn phases(&mut self, namespace: u64, destination: &str, count: usize) -> Vec<Phase> {
        let destination: SocketAddr = destination.parse().unwrap();
        let canonical = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        let mut phases = Vec::new();
        let what = format!("{count} records of {destination}");
        clock::wait_for(&what, WAIT, || {
            self.ring.drain(4096, |record| {
                if let Some(Seen::Connection(connection)) = record.into_observation().map(|seen| seen.seen) {
                    self.seen.push(connection);
                }
            });
            let here = |seen: &&Connection| seen.namespace == namespace && seen.destination == canonical;
            phases = self.seen.iter().filter(here).map(|seen| seen.phase).collect();
            Ok((phases.len() >= count).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", self.seen));
        assert_eq!(self.ring.garbled(), 0);
        phases
    }
}

fn close_to_the_link(measured: Duration) -> bool {
    measured >= ROUND_TRIP && measured < ROUND_TRIP + Duration::from_millis(4)
}

#[test]
fn handshakes_use_and_ends_are_measured_for_both_families() {
    if skip(needs::WORLD) {
        return;
    }
    let Some(mut watching) = Watching::start() else { return };
    let world = World::new().unwrap();
    let namespace = World::cookie(&world.near);
    // The mapped address goes to the IPv4 server, from an IPv6 socket; its records join those of the first.
    for (destination, records) in [(FAR, 2), (FAR6, 2), (MAPPED, 4)] {
        let server: SocketAddr = destination.parse().unwrap();
        world
            .near
            .enter(|| {
                let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
                socket.connect(&server.into())?;
                let mut stream = TcpStream::from(socket);
                stream.write_all(&[7; 1000])?;
                stream.read_exact(&mut [0; 1000])?;
                Ok(())
            })
            .unwrap();
        let phases = watching.phases(namespace, destination, records);
        let [.., Phase::Established { round_trip: Some(handshake), own: false }, closed] = phases[..] else {
            panic!("{destination}: {phases:?}")
        };
        assert!(close_to_the_link(handshake), "{destination}: {handshake:?}");
        let Phase::Closed { round_trip, carried: true, sent, received } = closed else { panic!("{closed:?}") };
        assert!(close_to_the_link(round_trip), "{destination}: {round_trip:?}");
        // The kernel counts the FIN as a byte.
        assert!((1000..=1001).contains(&sent) && (1000..=1001).contains(&received), "{sent}, {received}");
    }
    let far = World::cookie(&world.far);
    assert!(watching.seen.iter().all(|seen| seen.namespace != far), "what was accepted is nobody's access");
}

#[test]
fn a_connection_without_a_byte_is_told_apart() {
    if skip(needs::WORLD) {
        return;
    }
    let Some(mut watching) = Watching::start() else { return };
    let world = World::new().unwrap();
    let namespace = World::cookie(&world.near);
    drop(world.near.enter(|| Ok(TcpStream::connect(FAR)?)).unwrap());
    let phases = watching.phases(namespace, FAR, 2);
    let [Phase::Established { own: false, .. }, Phase::Closed { carried: false, received: 0..=1, .. }] = phases[..]
    else {
        panic!("{phases:?}")
    };
}

#[test]
fn the_daemons_own_are_told_apart_and_their_first_use_is_told_at_once() {
    if skip(needs::WORLD) {
        return;
    }
    let Some(mut watching) = Watching::start() else { return };
    let world = World::new().unwrap();
    let namespace = World::cookie(&world.near);
    let server: SocketAddr = FAR.parse().unwrap();
    let mut stream = world
        .near
        .enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            watching.dialled.announce(socket.as_fd());
            socket.connect(&server.into())?;
            Ok(TcpStream::from(socket))
        })
        .unwrap();
    let phases = watching.phases(namespace, FAR, 1);
    assert!(matches!(phases[..], [Phase::Established { own: true, .. }]), "{phases:?}");
    // Nothing more is told of it while it waits, nor twice when it is used.
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let phases = watching.phases(namespace, FAR, 2);
    assert_eq!(phases[1], Phase::Carried);
    stream.write_all(b"b").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    drop(stream);
    let phases = watching.phases(namespace, FAR, 3);
    assert!(matches!(phases[2], Phase::Closed { carried: true, .. }), "{phases:?}");
    // The announcement was for one connection.
    drop(world.near.enter(|| Ok(TcpStream::connect(FAR)?)).unwrap());
    let phases = watching.phases(namespace, FAR, 4);
    assert!(matches!(phases[3], Phase::Established { own: false, .. }), "{phases:?}");
}

#[test]
fn what_stays_inside_the_host_is_not_told() {
    if skip(needs::WORLD) {
        return;
    }
    let Some(mut watching) = Watching::start() else { return };
    let world = World::new().unwrap();
    let namespace = World::cookie(&world.near);
    world
        .near
        .enter(|| {
            for address in ["127.0.0.1:0", "127.64.0.9:0", "[::1]:0"] {
                let listener = TcpListener::bind(address)?;
                drop(TcpStream::connect(listener.local_addr()?)?);
            }
            // Something that is told, as the end of the list.
            drop(TcpStream::connect(FAR)?);
            Ok(())
        })
        .unwrap();
    watching.phases(namespace, FAR, 2);
    let here: Vec<_> = watching.seen.iter().filter(|seen| seen.namespace == namespace).collect();
    assert_eq!(here.len(), 2, "{here:?}");
}

const HOST: Addresses = Addresses { v4: Ipv4Addr::new(10, 77, 0, 1), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1) };
const CLIENT: Addresses = Addresses { v4: Ipv4Addr::new(10, 77, 0, 2), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2) };

/// An answer to a question without EDNS or with it, which the answer leaves out: one address, for IPv4.
fn answer(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap() + 5;
    let mut bytes = question[..end].to_vec();
    (bytes[2], bytes[3], bytes[11]) = (0x81, 0x80, 0);
    if bytes[end - 3] != 1 {
        return bytes;
    }
    bytes[7] = 1;
    bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    bytes.extend(address.octets());
    bytes
}

/// A daemon on the near end, and a client whose questions it hears.
struct Watched {
    daemon: Daemon,
    client: Namespace,
    world: World,
    _folder: tempfile::TempDir,
}

impl Watched {
    fn start(configuration: &str) -> Self {
        let (world, client) = (World::new().unwrap(), Namespace::create("client").unwrap());
        veth(
            &VethEnd { namespace: &world.near, interface: "pw-host", addresses: HOST },
            &VethEnd { namespace: &client, interface: "pw-client", addresses: CLIENT },
        )
        .unwrap();
        // Answers whatever it is asked, the daemon and the client.
        let server = world.near.enter(|| Ok(UdpSocket::bind("10.77.0.1:53")?)).unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = server.recv_from(&mut bytes) {
                if server.send_to(&answer(&bytes[..length], Ipv4Addr::new(10, 77, 9, 2)), from).is_err() {
                    return;
                }
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let options = DaemonOptions {
            interfaces: vec!["pw-host".to_owned()],
            configuration: format!("[resolve]\nservers = [\"10.77.0.1:53\"]\n{configuration}"),
            ingress: true,
        };
        let daemon = Daemon::start(&world.near, &daemon::binary().unwrap(), &options, folder.path()).unwrap();
        Self { daemon, client, world, _folder: folder }
    }

    /// The client asks for the name, and is answered.
    fn ask(&mut self) {
        let asking = self.client.enter(|| Ok(UdpSocket::bind("10.77.0.2:0")?)).unwrap();
        asking.send_to(&question::bytes("www.example.org"), "10.77.0.1:53").unwrap();
        clock::wait_for("the name", WAIT, || Ok((self.daemon.stats()?.names.known == 1).then_some(()))).unwrap();
    }

    fn json(&self, command: &str) -> serde_json::Value {
        serde_json::from_str(&self.daemon.command(&[command, "--json"]).unwrap()).unwrap()
    }

    /// The row of the origin, once it is as wanted.
    fn origin(&self, what: &str, reached: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let mut last = String::new();
        let found = clock::wait_for(what, WAIT, || {
            // Without any origin the command says so by its exit code.
            let Ok(text) = self.daemon.command(&["origins", "--json"]) else { return Ok(None) };
            last.clone_from(&text);
            let listed: serde_json::Value = serde_json::from_str(&text)?;
            assert_eq!(listed["schema"], 1);
            let origin = &listed["origins"][0];
            Ok((origin["origin"] == "www.example.org:7" && reached(origin)).then(|| origin.clone()))
        });
        found.unwrap_or_else(|error| panic!("{error:#}: {last}\n{}", self.daemon.log_tail()))
    }
}

#[test]
fn the_daemon_lists_origins_of_programs_that_take_nothing_from_it() {
    if skip(needs::DAEMON) {
        return;
    }
    let mut watched = Watched::start("");
    watched.ask();
    watched
        .world
        .near
        .enter(|| {
            for _ in 0..3 {
                let mut stream = TcpStream::connect(FAR)?;
                stream.write_all(b"hello")?;
                stream.read_exact(&mut [0; 5])?;
            }
            drop(TcpStream::connect("[fd77:9::2]:7")?);
            Ok(())
        })
        .unwrap();
    // In a namespace that nobody named: nothing is learnt from it.
    watched
        .world
        .far
        .enter(|| {
            let listener = TcpListener::bind("10.77.9.2:0")?;
            drop(TcpStream::connect(listener.local_addr()?)?);
            Ok(())
        })
        .unwrap();
    let origin = watched.origin("three connections and their ends", |origin| origin["closed"] == 3);
    assert_eq!((&origin["missed"], &origin["leased"], &origin["unused"]), (&3.into(), &0.into(), &0.into()));
    let number = |key: &str| origin[key].as_f64().unwrap();
    assert!((40.0..44.0).contains(&number("handshake_ms")), "{origin}");
    assert!((120.0..132.0).contains(&number("would_have_saved_ms")), "{origin}");
    assert!((15..=18).contains(&origin["sent_bytes"].as_u64().unwrap()), "{origin}");
    assert_eq!(number("hit_rate"), 0.0);
    let table = watched.daemon.command(&["origins"]).unwrap();
    assert!(table.contains("www.example.org:7"), "{table}");
    // The port was learnt without `prewarm exec`, and what no answer named is counted.
    assert_eq!(watched.json("names")["names"][0]["ports"], serde_json::json!([7]));
    let stats = watched.json("stats");
    assert_eq!((&stats["connects"]["named"], &stats["connects"]["blind"]), (&3.into(), &1.into()), "{stats}");
    assert_eq!(stats["blind_share"], 25.0, "{stats}");
    // Others of this machine may have connected meanwhile.
    assert!(stats["connects"]["elsewhere"].as_u64() >= Some(1), "{stats}");
}

#[test]
fn a_lease_that_carried_nothing_was_wasted() {
    if skip(needs::DAEMON) {
        return;
    }
    let mut watched = Watched::start(
        "[policy.guard]\nallow_networks = [\"10.77.9.0/24\"]\nports = [7]\n\
         [[lease.keep]]\norigin = \"www.example.org:7\"\ncount = 1\n",
    );
    watched.ask();
    let wrapper = watched.daemon.wrapper();
    for (taken, script) in [
        (1, "exec 3<>/dev/tcp/10.77.9.2/7; exec 3>&-"),
        (2, "exec 3<>/dev/tcp/10.77.9.2/7; echo hello >&3; read -u 3 line; test $line = hello"),
    ] {
        let ready = || {
            let leases = watched.json("stats")["leases"].clone();
            Ok((leases["taken"].as_u64() == Some(taken - 1) && leases["ready"] == 1).then_some(()))
        };
        clock::wait_for("a lease", WAIT, ready)
            .unwrap_or_else(|error| panic!("{error:#}: {}\n{}", watched.json("stats"), watched.daemon.log_tail()));
        let mut command = watched.world.near.command(&wrapper[0]);
        command.args(&wrapper[1..]).args(["bash", "-c", script]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let origin = watched.origin("both ends", |origin| origin["leased"] == 2 && origin["wasted"] == 1);
    assert_eq!((&origin["used"], &origin["missed"], &origin["closed"]), (&1.into(), &0.into(), &0.into()), "{origin}");
    assert!((40.0..44.0).contains(&origin["saved_ms"].as_f64().unwrap()), "{origin}");
    let stats = watched.json("stats");
    let leases = &stats["leases"];
    assert_eq!((&leases["taken"], &leases["carried"], &leases["empty"]), (&2.into(), &1.into(), &1.into()), "{stats}");
    // What the daemon dials is no program's access.
    assert_eq!((&stats["connects"]["named"], &stats["connects"]["blind"]), (&2.into(), &0.into()), "{stats}");
    assert!(stats["connects"]["own"].as_u64().unwrap() >= 2, "{stats}");
}

/// What the program costs each connection: by the kernel's own clock around it, and in `connect()` as programs see it.
#[test]
fn a_connection_pays_little_for_being_watched() {
    const ROUNDS: usize = 10;
    const CONNECTIONS: usize = 200;
    /// A thousandth of the shortest round trip that a lease could save.
    const MOST: Duration = Duration::from_micros(10);
    if skip(needs::WORLD) || kernel::missing().is_some() {
        return;
    }
    let (near, far) = (Namespace::create("near").unwrap(), Namespace::create("far").unwrap());
    veth(
        &VethEnd { namespace: &near, interface: "pw-near", addresses: HOST },
        &VethEnd { namespace: &far, interface: "pw-far", addresses: CLIENT },
    )
    .unwrap();
    let listener = far.enter(|| Ok(TcpListener::bind("10.77.0.2:7")?)).unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    let connect = || {
        near.enter(|| {
            let mut times = Vec::with_capacity(CONNECTIONS);
            for _ in 0..CONNECTIONS {
                let begun = clock::now();
                let stream = TcpStream::connect("10.77.0.2:7")?;
                times.push(clock::now() - begun);
                drop(stream);
            }
            Ok(times)
        })
        .unwrap()
    };
    let stats = enable_stats(Stats::RunTime).unwrap();
    let (mut bare, mut watched) = (connect(), Vec::new());
    let (mut spent, mut calls) = (Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        bare.extend(connect());
        let others: Vec<_> = watchers().iter().map(ProgramInfo::id).collect();
        let watching = Watching::start().unwrap();
        watched.extend(connect());
        let ours = watchers().into_iter().find(|info| !others.contains(&info.id())).unwrap();
        spent += ours.run_time();
        calls += ours.run_count();
        drop(watching);
    }
    drop(stats);
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    // Other connections of this machine are among the calls, so this is what ours cost at most.
    let each = spent / u32::try_from(ROUNDS * CONNECTIONS).unwrap();
    println!(
        "{} calls, {:.0} ns each, {each:?} a connection; connect() takes {:?}, and {:?} watched",
        calls,
        spent.as_nanos() as f64 / calls as f64,
        median(&mut bare),
        median(&mut watched),
    );
    assert!(each < MOST, "{each:?} a connection");
}

fn watchers() -> Vec<ProgramInfo> {
    let all = loaded_programs().filter_map(Result::ok);
    all.filter(|info| info.name_as_str() == Some(SOCKOPS)).collect()
}
