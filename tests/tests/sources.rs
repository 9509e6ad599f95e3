//! Names that are asked for where packets tell nothing: real name servers that write dnstap, asked over TLS as well.
//!
//! A client and a host share a veth pair. The daemon runs on the host, attached to no interface unless a test says so:
//! what it knows then can only have come from the source.

#[path = "sources/getaddrinfo.rs"]
mod getaddrinfo;
#[path = "sources/servers.rs"]
mod servers;
#[path = "sources/writers.rs"]
mod writers;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    path::PathBuf,
    thread,
    time::Duration,
};

use prewarm_tests::{
    clock,
    daemon::{self, Daemon, DaemonOptions, Source, Stats},
    needs::{self, skip},
    netns::{Addresses, Namespace, VethEnd, veth},
    servers::{Authority, Record},
};
use serde_json::Value;
use servers::{CLIENTS, Unbound, ask, knot, open_folder};

const HOST: Addresses = Addresses { v4: Ipv4Addr::new(10, 85, 3, 1), v6: Ipv6Addr::new(0xfd85, 3, 0, 0, 0, 0, 0, 1) };
const CLIENT: Addresses = Addresses { v4: Ipv4Addr::new(10, 85, 3, 2), v6: Ipv6Addr::new(0xfd85, 3, 0, 0, 0, 0, 0, 2) };
const WAIT: Duration = Duration::from_secs(10);

struct Bench {
    daemon: Daemon,
    client: Namespace,
    host: Namespace,
    socket: PathBuf,
    folder: PathBuf,
    _folder: tempfile::TempDir,
}

/// A daemon with these sources ("{folder}" stands for its folder) and settings, on these interfaces.
fn bench(sources: &[&str], interfaces: &[&str], configuration: &str) -> Bench {
    let (host, client) = (Namespace::create("host").unwrap(), Namespace::create("client").unwrap());
    let ends = [
        VethEnd { namespace: &host, interface: "pw-host", addresses: HOST },
        VethEnd { namespace: &client, interface: "pw-client", addresses: CLIENT },
    ];
    veth(&ends[0], &ends[1]).unwrap();
    let (kept, folder) = open_folder().unwrap();
    let list: Vec<String> = sources
        .iter()
        .map(|source| format!("\"{}\"", source.replace("{folder}", &folder.display().to_string())))
        .collect();
    let options = DaemonOptions {
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        configuration: format!(
            "[sources]\nlist = [{}]\ngroup = \"unbound\"\n[resolve]\nservers = [\"127.0.0.1:53\"]\n{configuration}",
            list.join(", ")
        ),
        ingress: true,
    };
    let daemon = Daemon::start(&host, &daemon::binary().unwrap(), &options, &folder).unwrap();
    Bench { daemon, client, host, socket: folder.join("tap.sock"), folder, _folder: kept }
}

const DNSTAP: &[&str] = &["dnstap:{folder}/tap.sock"];

impl Bench {
    fn wait(&mut self, what: &str, mut reached: impl FnMut(&Stats) -> bool) -> Stats {
        let (daemon, mut last) = (&mut self.daemon, String::new());
        let reached = clock::wait_for(what, WAIT, || {
            let stats = daemon.stats()?;
            last = format!("{stats:?}");
            Ok(reached(&stats).then_some(stats))
        });
        reached.unwrap_or_else(|error| panic!("{error:#}: {last}\n{}", self.daemon.log_tail()))
    }

    /// What is known of a name.
    fn name(&self, name: &str) -> Option<Value> {
        let names: Value = serde_json::from_str(&self.daemon.command(&["names", "--json"]).ok()?).unwrap();
        names["names"].as_array().unwrap().iter().find(|known| known["name"] == name).cloned()
    }

    /// Waits until a name is known with an address.
    fn wait_for_name(&self, name: &str, address: &str) -> Value {
        let mut last = None;
        let found = clock::wait_for(&format!("{name} with {address}"), WAIT, || {
            last = self.name(name);
            let known = |known: &&Value| known["addresses"].as_array().is_some_and(|all| all.contains(&address.into()));
            Ok(last.as_ref().filter(known).cloned())
        });
        found.unwrap_or_else(|error| panic!("{error:#}: {last:?}\n{}", self.daemon.log_tail()))
    }

    fn unbound<'a>(&self, names: &'a [(&'a str, &'a str)]) -> Unbound<'a> {
        Unbound { address: HOST.v4.into(), names, ttl: 30, upstream: None, tells: CLIENTS }
    }
}

fn of(stats: &Stats, kind: &str) -> Source {
    stats.sources.iter().find(|(name, _)| name.starts_with(kind)).map(|(_, source)| *source).unwrap_or_default()
}

#[test]
fn what_is_asked_over_tls_is_learnt_from_unbound() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let mut bench = bench(DNSTAP, &[], "");
    let names = [("secret.example", "192.0.2.7"), ("plain.example", "192.0.2.8")];
    let _unbound = bench.unbound(&names).start(&bench.host, &bench.socket, &bench.folder).unwrap();
    bench.wait("the writer", |stats| of(stats, "dnstap").feeds > 0);
    ask(&bench.client, HOST.v4.into(), "Secret.example", &["+tls", "-p", "853"]).unwrap();
    ask(&bench.client, HOST.v4.into(), "plain.example", &[]).unwrap();
    let secret = bench.wait_for_name("secret.example", "192.0.2.7");
    assert_eq!(secret["asked"], 1, "{secret}");
    let ttl = secret["ttl_seconds"].as_f64().unwrap();
    assert!((20.0..=30.0).contains(&ttl), "{secret}");
    bench.wait_for_name("plain.example", "192.0.2.8");
    let stats = bench.wait("both answers", |stats| of(stats, "dnstap").answers >= 2);
    // Nothing is attached, so nothing but the server can have told.
    assert_eq!((stats.questions, stats.packets.ingress, stats.packets.egress), (0, 0, 0), "{stats:?}");
}

#[test]
fn a_follower_is_made_ready_for_clients_of_unbound() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let allowed = "[policy]\nassume_ports = [8080]\n\
                   [policy.guard]\nports = [8080]\nallow_networks = [\"10.85.3.0/24\"]\n";
    let mut bench = bench(DNSTAP, &[], allowed);
    let listener = bench.client.enter(|| Ok(TcpListener::bind((CLIENT.v4, 8080))?)).unwrap();
    thread::spawn(move || listener.incoming().flatten().collect::<Vec<_>>());
    let address = CLIENT.v4.to_string();
    let names = [("lead.example", "192.0.2.1"), ("follow.example", &address)];
    let unbound = Unbound { ttl: 1, ..bench.unbound(&names) };
    let _unbound = unbound.start(&bench.host, &bench.socket, &bench.folder).unwrap();
    bench.wait("the writer", |stats| of(stats, "dnstap").feeds > 0);
    for _ in 0..8 {
        for name in ["lead.example", "follow.example"] {
            ask(&bench.client, HOST.v4.into(), name, &["+tls", "-p", "853"]).unwrap();
            thread::sleep(Duration::from_millis(1600));
        }
    }
    let stats = bench.wait("a name looked up ahead", |stats| stats.names.warmed > 0);
    bench.wait("a connection to the address that the server told", |stats| stats.leases.opened > 0);
    assert_eq!(stats.questions, 0);
    // The daemon asks the same server, which tells of that too: it is told apart by the port that it asked from.
    bench.wait("the daemon's own questions", |stats| of(stats, "dnstap").own > 0);
    let follow = bench.name("follow.example").unwrap();
    assert_eq!(follow["asked"], 8, "its own look-ups are no accesses: {follow}");
}

#[test]
fn servers_come_and_go_and_write_side_by_side() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let mut bench = bench(DNSTAP, &[], "");
    let names = [("a.example", "192.0.2.1"), ("b.example", "192.0.2.2"), ("c.example", "192.0.2.3")];
    let address = IpAddr::V4(HOST.v4);
    let own = [("k.knot.example", "192.0.2.9"), ("l.knot.example", "192.0.2.10")];
    // Told apart by the folder: each writes its log there.
    let second = bench.folder.join("second");
    fs::create_dir(&second).unwrap();
    let mut unbound = bench.unbound(&names).start(&bench.host, &bench.socket, &bench.folder).unwrap();
    let mut knot_dns = knot(&bench.host, address, &own, &bench.socket, &second).unwrap();
    bench.wait("both writers", |stats| of(stats, "dnstap").feeds >= 2);
    ask(&bench.client, address, "a.example", &[]).unwrap();
    ask(&bench.client, address, "k.knot.example", &["-p", "5300"]).unwrap();
    bench.wait_for_name("a.example", "192.0.2.1");
    bench.wait_for_name("k.knot.example", "192.0.2.9");
    // One is stopped and one is killed; both come back.
    unbound.end();
    nix::sys::signal::kill(knot_dns.pid(), nix::sys::signal::Signal::SIGKILL).unwrap();
    bench.wait("no writer", |stats| of(stats, "dnstap").feeds == 0);
    knot_dns.end();
    drop(knot_dns);
    let _unbound = bench.unbound(&names).start(&bench.host, &bench.socket, &bench.folder).unwrap();
    let _knot = knot(&bench.host, address, &own, &bench.socket, &second).unwrap();
    bench.wait("both writers again", |stats| of(stats, "dnstap").feeds >= 2);
    ask(&bench.client, address, "b.example", &["+tls", "-p", "853"]).unwrap();
    ask(&bench.client, address, "l.knot.example", &["-p", "5300"]).unwrap();
    bench.wait_for_name("b.example", "192.0.2.2");
    bench.wait_for_name("l.knot.example", "192.0.2.10");
    let stats = bench.daemon.stats().unwrap();
    assert_eq!((of(&stats, "dnstap").broken, of(&stats, "dnstap").unread), (0, 0), "{stats:?}");
}

#[test]
fn a_server_that_comes_after_the_daemon_was_restarted_is_heard() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let mut bench = bench(DNSTAP, &[], "");
    let names = [("a.example", "192.0.2.1"), ("b.example", "192.0.2.2")];
    let _unbound = bench.unbound(&names).start(&bench.host, &bench.socket, &bench.folder).unwrap();
    bench.wait("the writer", |stats| of(stats, "dnstap").feeds > 0);
    // Killed, it leaves the socket's file; the next one takes its place, and the server finds it.
    nix::sys::signal::kill(bench.daemon.pid(), nix::sys::signal::Signal::SIGKILL).unwrap();
    clock::wait_for("the daemon to end", WAIT, || Ok(bench.daemon.check().is_err().then_some(()))).unwrap();
    assert!(bench.socket.exists());
    let options = DaemonOptions {
        interfaces: Vec::new(),
        configuration: fs::read_to_string(bench.folder.join("prewarm.toml")).unwrap(),
        ingress: true,
    };
    bench.daemon = Daemon::start(&bench.host, &daemon::binary().unwrap(), &options, &bench.folder).unwrap();
    bench.wait("the writer again", |stats| of(stats, "dnstap").feeds > 0);
    ask(&bench.client, HOST.v4.into(), "b.example", &[]).unwrap();
    bench.wait_for_name("b.example", "192.0.2.2");
    bench.daemon.end();
    assert!(!bench.socket.exists(), "the socket is still there");
}

#[test]
fn a_connection_waits_for_the_server_that_names_it() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let mut bench = bench(DNSTAP, &[], "");
    bench.host.set_resolver("127.0.0.1".parse().unwrap()).unwrap();
    let address = CLIENT.v4.to_string();
    let names = [("web.example", address.as_str())];
    let _unbound = bench.unbound(&names).start(&bench.host, &bench.socket, &bench.folder).unwrap();
    bench.wait("the writer", |stats| of(stats, "dnstap").feeds > 0);
    let listener = bench.client.enter(|| Ok(TcpListener::bind((CLIENT.v4, 8080))?)).unwrap();
    thread::spawn(move || listener.incoming().flatten().count());
    // It is connected, and over, long before the server empties its buffer.
    let mut curl = bench.host.command("curl");
    let _reset = curl.args(["--silent", "--max-time", "0.3", "http://web.example:8080/"]).output().unwrap();
    let stats = bench.wait("the connection", |stats| stats.connects.named + stats.connects.blind == 1);
    assert_eq!(stats.connects.named, 1, "{stats:?}");
    let web = bench.name("web.example").unwrap();
    assert_eq!((&web["ports"][0], &web["asked"]), (&8080.into(), &1.into()), "{web}");
}

#[test]
fn what_packets_and_server_tell_is_one_access() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let mut bench = bench(DNSTAP, &["pw-host"], "");
    let far = [
        Record { name: "one.test".to_owned(), address: "192.0.2.1".parse().unwrap() },
        Record { name: "two.test".to_owned(), address: "192.0.2.2".parse().unwrap() },
    ];
    let hour = Duration::from_secs(3600);
    let _authority = Authority::start(&bench.client, CLIENT.v4.into(), "test", hour, &far, &bench.folder).unwrap();
    let upstream = Unbound {
        upstream: Some(CLIENT.v4.into()),
        tells: &[
            "client-query-messages",
            "client-response-messages",
            "forwarder-query-messages",
            "forwarder-response-messages",
        ],
        ..bench.unbound(&[("first.example", "192.0.2.9")])
    };
    let _unbound = upstream.start(&bench.host, &bench.socket, &bench.folder).unwrap();
    bench.wait("the writer", |stats| of(stats, "dnstap").feeds > 0);
    ask(&bench.client, HOST.v4.into(), "first.example", &[]).unwrap();
    // In the clear: the question is seen arriving, the server's own is seen leaving, and both are told of.
    ask(&bench.client, HOST.v4.into(), "one.test", &[]).unwrap();
    // Encrypted: the server's own question leaves in the clear, a second before the server tells why.
    ask(&bench.client, HOST.v4.into(), "two.test", &["+tls", "-p", "853"]).unwrap();
    let stats = bench.wait("the server's word", |stats| {
        of(stats, "dnstap").questions >= 3
            && of(stats, "dnstap").upstream >= 4
            && stats.encrypted.ingress_connections > 0
    });
    assert!(stats.questions >= 4, "the packets were not seen: {stats:?}");
    thread::sleep(Duration::from_secs(2));
    for name in ["first.example", "one.test", "two.test"] {
        let known = bench.name(name).unwrap();
        assert_eq!(known["asked"], 1, "{known}: {:?} {}", bench.daemon.stats().unwrap(), bench.daemon.log_tail());
    }
    assert!(stats.drops["told_before"] >= 2 && stats.drops["passed_on"] >= 1, "{stats:?}");
}
