//! Names that programs look up through a C library, whatever that does with them: here it finds them in a hosts file, so
//! that not a single packet is sent.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    process::{Command, Output},
    thread,
    time::Duration,
};

use aya::programs::loaded_programs;
use nix::sys::signal::{Signal, kill};
use prewarm_ebpf::getaddrinfo::LOOKUP_ANSWERED;
use prewarm_tests::{
    clock,
    daemon::{self, Daemon, DaemonOptions},
    needs::{self, skip},
    netns::Namespace,
};

use super::{Bench, CLIENT, HOST, Unbound, WAIT, bench, of};

const LIBRARIES: &[&str] = &["getaddrinfo"];

impl Bench {
    /// Runs a command on the host, for which these names stand in the hosts file.
    fn with_hosts(&self, hosts: &str, command: &str) -> Output {
        self.with_hosts_in(&self.host, hosts, command)
    }

    /// The same in another namespace.
    fn with_hosts_in(&self, namespace: &Namespace, hosts: &str, command: &str) -> Output {
        let file = self.folder.join("hosts");
        fs::write(&file, format!("127.0.0.1 localhost\n{hosts}")).unwrap();
        let script = format!("mount --bind {} /etc/hosts && exec {command}", file.display());
        let mut inside: Command = namespace.command("unshare");
        let output = inside.args(["--mount", "sh", "-c", &script]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

#[test]
fn names_and_addresses_of_a_hosts_file_are_learnt() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let mut bench = bench(LIBRARIES, &[], "");
    let hosts = "192.0.2.7 hidden.example\n2001:db8::7 hidden.example\n192.0.2.8 other.example\n";
    bench.with_hosts(hosts, "getent ahosts Hidden.example");
    let hidden = bench.wait_for_name("hidden.example", "192.0.2.7");
    assert_eq!(hidden["asked"], 1, "{hidden}");
    bench.wait_for_name("hidden.example", "2001:db8::7");
    // Python asks through the same function; addresses in their many spellings are no names.
    bench.with_hosts(
        hosts,
        "python3 -c 'import socket\nfor name in [\"192.0.2.9\", \"127.1\", \"::1\", \"other.example\"]: \
         socket.getaddrinfo(name, 443)'",
    );
    bench.wait_for_name("other.example", "192.0.2.8");
    let stats = bench.wait("the addresses", |stats| of(stats, "getaddrinfo").ignored >= 3);
    assert!(of(&stats, "getaddrinfo").feeds >= 1 && stats.questions == 0, "{stats:?}");
    assert!(bench.name("127.1").is_none());
}

#[test]
fn a_connection_to_a_name_that_was_looked_up_is_not_blind() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let mut bench = bench(LIBRARIES, &[], "");
    let listener = bench.client.enter(|| Ok(TcpListener::bind((CLIENT.v4, 8080))?)).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _answered = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    // By its address: nothing says what that is called.
    let curl = |url: &str| format!("curl --silent --max-time 5 --noproxy '*' {url}");
    bench.with_hosts("", &curl(&format!("http://{}:8080/", CLIENT.v4)));
    let stats = bench.wait("a connection", |stats| stats.connects.blind + stats.connects.named == 1);
    assert_eq!(stats.connects.blind, 1, "{stats:?}");
    // By its name, which stands in no packet.
    bench.with_hosts(&format!("{} web.example\n", CLIENT.v4), &curl("http://web.example:8080/"));
    let stats = bench.wait("another", |stats| stats.connects.blind + stats.connects.named == 2);
    assert_eq!((stats.connects.blind, stats.connects.named), (1, 1), "{stats:?}");
    let web = bench.name("web.example").unwrap();
    assert_eq!((&web["ports"][0], &web["asked"]), (&8080.into(), &1.into()), "{web}");
}

#[test]
fn what_packets_and_library_tell_is_one_access() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    // The resolver is across the veth, so that the host's questions leave by it in the clear.
    let mut bench = bench(LIBRARIES, &["pw-host"], "");
    bench.host.set_resolver(CLIENT.v4.into()).unwrap();
    let names = [("clear.example", "192.0.2.5")];
    let unbound = Unbound { address: CLIENT.v4.into(), ..bench.unbound(&names) };
    let _unbound = unbound.start(&bench.client, &bench.socket, &bench.folder).unwrap();
    let asked = bench.host.command("getent").args(["ahosts", "clear.example"]).status().unwrap();
    assert!(asked.success());
    let stats = bench.wait("both", |stats| of(stats, "getaddrinfo").questions > 0 && stats.questions >= 2);
    let known = bench.wait_for_name("clear.example", "192.0.2.5");
    assert_eq!(known["asked"], 1, "{known}: {stats:?}");
    // The library doesn't know how long its answer is good for; the packet did.
    assert!(known["ttl_seconds"].as_f64().unwrap() > 20.0, "{known}");
    bench.wait("the fold", |stats| stats.drops["told_before"] >= 1);
}

#[test]
fn questions_over_tls_are_counted_and_their_names_learnt() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    // A stub on the host that asks over TLS, as systemd-resolved or stubby do; programs ask it by way of the library.
    let mut bench = bench(LIBRARIES, &["pw-host"], "");
    let far = Unbound { address: CLIENT.v4.into(), ..bench.unbound(&[("dot.example", "192.0.2.6")]) };
    let _far = far.start(&bench.client, &bench.socket, &bench.folder).unwrap();
    let stub = bench.folder.join("stub");
    fs::create_dir(&stub).unwrap();
    let configuration = stub.join("unbound.conf");
    fs::write(
        &configuration,
        format!(
            "server:\n  interface: 127.0.0.1\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  \
             use-syslog: no\n  logfile: \"\"\n  module-config: \"iterator\"\n\
             forward-zone:\n  name: \".\"\n  forward-tls-upstream: yes\n  forward-addr: {}@853\n",
            CLIENT.v4
        ),
    )
    .unwrap();
    let mut command = bench.host.command("/usr/sbin/unbound");
    command.arg("-d").arg("-c").arg(&configuration);
    let mut service = prewarm_tests::service::Service::start("stub", command, &stub).unwrap();
    let log = stub.join("stub.log");
    service.ready(|| fs::read_to_string(&log).ok().filter(|log| log.contains("start of service"))).unwrap();
    bench.host.set_resolver("127.0.0.1".parse().unwrap()).unwrap();
    let asked = bench.host.command("getent").args(["ahostsv4", "dot.example"]).status().unwrap();
    assert!(asked.success());
    bench.wait_for_name("dot.example", "192.0.2.6");
    let stats = bench.wait("the encrypted connection", |stats| stats.encrypted.connections > 0);
    assert!(stats.encrypted.egress_connections > 0 && stats.encrypted.ingress_connections == 0, "{stats:?}");
    assert_eq!(stats.questions, 0, "nothing was asked in the clear: {stats:?}");
    // A datagram of DNS over QUIC, towards the host.
    bench
        .client
        .enter(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(&[0xc0; 64], (HOST.v4, 853))?;
            Ok(())
        })
        .unwrap();
    bench.wait("the datagram", |stats| stats.encrypted.ingress_packets == 1);
    let doctor = bench.daemon.command(&["doctor"]);
    let said = doctor.unwrap_or_else(|error| format!("{error:#}"));
    assert!(said.contains("encrypted DNS"), "{said}");
}

#[test]
fn programs_of_another_library_are_seen_too() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let bench = bench(LIBRARIES, &[], "");
    let (source, program) = (bench.folder.join("ask.c"), bench.folder.join("ask"));
    fs::write(
        &source,
        "#include <netdb.h>\nint main(int n, char **v) { struct addrinfo *r; return getaddrinfo(v[1], 0, 0, &r); }\n",
    )
    .unwrap();
    let built = Command::new("musl-gcc").arg("-o").arg(&program).arg(&source).status().unwrap();
    assert!(built.success());
    bench.with_hosts("192.0.2.44 musl.example\n", &format!("{} musl.example", program.display()));
    bench.wait_for_name("musl.example", "192.0.2.44");
}

#[test]
fn other_namespaces_are_learnt_from_where_they_are_named() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let mut bench = bench(LIBRARIES, &[], "");
    // It waits, so that it can be asked where it lives.
    let lookup =
        |name: &str| format!("python3 -c 'import socket, time\nsocket.getaddrinfo(\"{name}\", 443); time.sleep(1)'");
    bench.with_hosts_in(&bench.client, "192.0.2.50 away.example\n", &lookup("away.example"));
    bench.with_hosts("192.0.2.51 here.example\n", &lookup("here.example"));
    bench.wait_for_name("here.example", "192.0.2.51");
    assert_eq!(bench.name("away.example"), None);
    bench.daemon.end();
    let configuration = fs::read_to_string(bench.folder.join("prewarm.toml")).unwrap();
    let options = DaemonOptions {
        interfaces: Vec::new(),
        configuration: format!("{configuration}[capture]\nnamespaces = [\"{}\"]\n", bench.client.name()),
        ingress: true,
    };
    bench.daemon = Daemon::start(&bench.host, &daemon::binary().unwrap(), &options, &bench.folder).unwrap();
    bench.with_hosts_in(&bench.client, "192.0.2.52 away.example\n", &lookup("away.example"));
    bench.wait_for_name("away.example", "192.0.2.52");
}

#[test]
fn killed_it_leaves_no_probe() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let ours = || -> Vec<u32> {
        let programs = loaded_programs().filter_map(Result::ok);
        programs.filter(|program| program.name_as_str() == Some(LOOKUP_ANSWERED)).map(|program| program.id()).collect()
    };
    let mut bench = bench(LIBRARIES, &[], "");
    let with = ours();
    assert!(!with.is_empty());
    // Look-ups go on while it dies.
    let pid = bench.daemon.pid();
    let killer = thread::spawn(move || {
        clock::pause(Duration::from_millis(200));
        kill(pid, Signal::SIGKILL).unwrap();
    });
    for number in 0..200 {
        let name = format!("n{number}.example");
        bench.with_hosts(&format!("192.0.2.1 {name}\n"), &format!("getent ahosts {name}"));
        if number > 20 && killer.is_finished() {
            break;
        }
    }
    killer.join().unwrap();
    clock::wait_for("the daemon to end", WAIT, || Ok(bench.daemon.check().is_err().then_some(()))).unwrap();
    // Others of this machine's daemons may have theirs; of those that were there with ours, at least one must go.
    clock::wait_for("the probe to go", WAIT, || Ok((!with.iter().all(|id| ours().contains(id))).then_some(())))
        .unwrap();
}
