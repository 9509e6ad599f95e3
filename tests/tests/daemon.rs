//! The daemon on a live interface: what it counts, how it goes, and what a hostile neighbour can do to it.
//!
//! A client and a host share a veth pair; the daemon runs on the host's end. The questions are real datagrams that no
//! server answers, so nothing but the kernel side can have seen them.

#![expect(clippy::print_stderr, reason = "a test that is skipped says why")]

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::ensure;
use nix::sys::signal::{Signal, kill};
use prewarm_tests::{
    clock,
    daemon::{self, Daemon, DaemonOptions},
    netns::{Addresses, Namespace, VethEnd, veth},
    question,
    service::Service,
};

const HOST: Addresses = Addresses { v4: Ipv4Addr::new(10, 77, 0, 1), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1) };
const CLIENT: Addresses = Addresses { v4: Ipv4Addr::new(10, 77, 0, 2), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2) };
const WAIT: Duration = Duration::from_secs(10);

struct Bench {
    daemon: Daemon,
    client: Namespace,
    host: Namespace,
    folder: tempfile::TempDir,
}

/// A daemon on the host's end of a veth pair; none where this machine cannot run one, with the reason.
fn bench(configuration: &str) -> Option<Bench> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: network namespaces and kernel programs need root");
        return None;
    }
    let Some(binary) = daemon::binary() else {
        eprintln!("skipped: PREWARM_BIN is not set (cargo xtask test sets it)");
        return None;
    };
    let (host, client) = (Namespace::create("host").unwrap(), Namespace::create("client").unwrap());
    let ends = [
        VethEnd { namespace: &host, interface: "pw-host", addresses: HOST },
        VethEnd { namespace: &client, interface: "pw-client", addresses: CLIENT },
    ];
    veth(&ends[0], &ends[1]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&host, &binary, configuration, folder.path());
    Some(Bench { daemon, client, host, folder })
}

fn start(host: &Namespace, binary: &Path, configuration: &str, folder: &Path) -> Daemon {
    let options = DaemonOptions {
        interfaces: vec!["pw-host".to_owned()],
        configuration: format!("[resolve]\nservers = [\"127.0.0.1:53\"]\n{configuration}"),
        ingress: true,
    };
    Daemon::start(host, binary, &options, folder).unwrap()
}

impl Bench {
    /// Sends datagrams from the client to the host's port 53.
    fn send(&self, to: SocketAddr, datagrams: impl Iterator<Item = Vec<u8>> + Send) {
        self.client
            .enter(|| {
                let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                socket.connect(to)?;
                for datagram in datagrams {
                    // Nobody listens: the refusal that comes back is the next call's error, and that call sends nothing.
                    while let Err(error) = socket.send(&datagram) {
                        ensure!(error.kind() == ErrorKind::ConnectionRefused, "send to {to}: {error}");
                    }
                }
                Ok(())
            })
            .unwrap();
    }

    fn ask(&self, names: &[&str]) {
        self.send((HOST.v4, 53).into(), names.iter().map(|name| question::bytes(name)));
    }

    fn wait(&mut self, what: &str, mut reached: impl FnMut(&daemon::Stats) -> bool) -> daemon::Stats {
        let (daemon, mut last) = (&mut self.daemon, String::new());
        let reached = clock::wait_for(what, WAIT, || {
            let stats = daemon.stats()?;
            last = format!("{stats:?}");
            Ok(reached(&stats).then_some(stats))
        });
        reached.unwrap_or_else(|error| panic!("{error:#}: {last}"))
    }

    /// Ends the daemon with SIGTERM and starts another one in its folder.
    fn restart(&mut self) {
        kill(self.daemon.pid(), Signal::SIGTERM).unwrap();
        clock::wait_for("the daemon to end", WAIT, || Ok(self.daemon.check().is_err().then_some(()))).unwrap();
        self.daemon = start(&self.host, &daemon::binary().unwrap(), "", self.folder.path());
    }

    /// `prewarm explain --json`.
    fn explain(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.daemon.command(&[&["explain", "--json"], arguments].concat()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// What `ip` and the kernel say is attached to the host's end.
    fn attached(&self) -> String {
        let show = self.host.command("ip").args(["-details", "link", "show", "pw-host"]).output().unwrap();
        String::from_utf8(show.stdout).unwrap()
    }
}

#[test]
fn questions_of_both_families_become_events_and_names() {
    let Some(mut bench) = bench("") else { return };
    assert!(bench.attached().contains("xdp"), "{}", bench.attached());
    bench.ask(&["a.example", "b.example", "A.example"]);
    bench.send((HOST.v6, 53).into(), [question::bytes("c.example")].into_iter());
    let stats = bench.wait("three names", |stats| stats.names.known == 3);
    // The second question for a.example, in other letters, is folded into the first.
    assert_eq!((stats.questions, stats.events), (4, 3), "{stats:?}");
    assert_eq!(stats.schema, 1);
    assert_eq!(stats.leases.opened, 0);
}

#[test]
fn the_hosts_own_questions_are_seen_leaving() {
    let Some(mut bench) = bench("") else { return };
    bench
        .host
        .enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(&question::bytes("own.example"), (CLIENT.v4, 53))?;
            Ok(())
        })
        .unwrap();
    let stats = bench.wait("the name", |stats| stats.names.known == 1);
    assert!(stats.packets.egress >= 1, "{stats:?}");
}

#[test]
fn what_was_learnt_is_explained_and_outlives_a_restart() {
    let Some(mut bench) = bench("[capture]\nfold_ms = 50\n") else { return };
    for visit in 1..=6 {
        for name in ["page.example", "part.example"] {
            bench.ask(&[name]);
            // Longer than the questions for one name that are folded into one.
            clock::sleep_until(clock::now() + Duration::from_millis(150));
        }
        bench.wait("the visit", |stats| stats.events == 2 * visit);
    }
    bench.ask(&["page.example"]);
    bench.wait("the last page", |stats| stats.events == 13);
    // The latest access is a visit's first, so the second is expected, because it followed five or six times of six.
    let explained = bench.explain(&["part.example", "--client", &CLIENT.v4.to_string()]);
    let said = &explained["candidates"][0];
    assert_eq!((&explained["schema"], &said["name"]), (&1.into(), &"part.example".into()), "{explained:#}");
    assert!(said["probability"].as_f64().unwrap() > 0.3, "{said:#}");
    let vote = said["votes"].as_array().unwrap().iter().find(|vote| vote["context"] == "one").unwrap();
    assert_eq!((&vote["access"], &vote["trials"]), (&"page.example".into(), &6.into()), "{vote:#}");
    assert!(vote["hits"].as_u64().unwrap() >= 5, "{vote:#}");
    // No answer ever came, so nothing may be opened, and the question may be asked ahead only if it pays.
    assert_eq!(said["actions"][0]["action"], "resolve", "{said:#}");
    let all = bench.explain(&[]);
    assert_eq!(all["client"], CLIENT.v4.to_string(), "who asked last");
    let shown = bench.daemon.command(&["explain", "part.example"]).unwrap();
    assert!(shown.contains("page.example, this client") && shown.contains("The judgement turned on"), "{shown}");
    let unknown = bench.daemon.command(&["explain", "never.example"]).unwrap_err();
    assert!(format!("{unknown:#}").contains("never.example was not asked for here yet"), "{unknown:#}");

    let followed = |bench: &Bench| bench.explain(&["page.example"])["followers"][0].clone();
    let before = followed(&bench);
    assert_eq!(before["name"], "part.example");
    bench.restart();
    let stats = bench.wait("an answer", |_| true);
    assert_eq!((stats.names.known, stats.events), (2, 0), "names are known without a question");
    assert_eq!(followed(&bench), before);

    // Damaged files are left out, with a warning, and what they held is learnt anew.
    kill(bench.daemon.pid(), Signal::SIGKILL).unwrap();
    clock::wait_for("the daemon to end", WAIT, || Ok(bench.daemon.check().is_err().then_some(()))).unwrap();
    let state = bench.folder.path().join("state");
    for file in ["predictor.bin", "names.json"] {
        let mut bytes = fs::read(state.join(file)).unwrap();
        bytes.truncate(bytes.len() - 1);
        fs::write(state.join(file), bytes).unwrap();
    }
    bench.daemon = start(&bench.host, &daemon::binary().unwrap(), "", bench.folder.path());
    let stats = bench.wait("an answer", |_| true);
    assert_eq!(stats.names.known, 0);
    let log = bench.daemon.log_tail();
    assert!(log.contains("the predictor begins anew") && log.contains("names are learnt anew"), "{log}");
}

#[test]
fn stopping_it_leaves_nothing() {
    let Some(mut bench) = bench("") else { return };
    bench.ask(&["a.example"]);
    bench.wait("the name", |stats| stats.names.known == 1);
    let socket = bench.folder.path().join("control.sock");
    assert!(socket.exists());
    kill(bench.daemon.pid(), Signal::SIGTERM).unwrap();
    clock::wait_for("the daemon to end", WAIT, || Ok(bench.daemon.check().is_err().then_some(()))).unwrap();
    let log = bench.daemon.log_tail();
    assert!(!bench.attached().contains("xdp"), "{}\n{log}", bench.attached());
    assert!(!socket.exists(), "the control socket is still there\n{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn killed_it_leaves_traffic_alone() {
    let Some(mut bench) = bench("") else { return };
    // Datagrams to a port that is not DNS's, and to DNS's, must all arrive, before, while and after it is killed.
    let sent = 20_000_u32;
    for port in [53, 5300] {
        let receiver = bench.host.enter(|| Ok(UdpSocket::bind((HOST.v4, port))?)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let mut got = 0;
            while got < sent && receiver.recv(&mut buffer).is_ok() {
                got += 1;
                // Acknowledged, so that the sender never overruns the socket's buffer.
                if got == 1 {
                    receiver.connect((CLIENT.v4, 5353)).unwrap();
                }
                receiver.send(&buffer[..1]).unwrap();
            }
            got
        });
        let pid = bench.daemon.pid();
        bench
            .client
            .enter(|| {
                let socket = UdpSocket::bind((CLIENT.v4, 5353))?;
                socket.connect((HOST.v4, port))?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                let mut buffer = [0; 512];
                for number in 0..sent {
                    socket.send(&question::bytes(&format!("n{number}.example")))?;
                    socket.recv(&mut buffer)?;
                    if number == sent / 2 && port == 53 {
                        kill(pid, Signal::SIGKILL)?;
                    }
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(reader.join().unwrap(), sent, "datagrams to port {port} were lost");
    }
    clock::wait_for("the daemon to end", WAIT, || Ok(bench.daemon.check().is_err().then_some(()))).unwrap();
    // The last descriptor of a link goes a moment after the process.
    clock::wait_for("the programs to go", WAIT, || Ok((!bench.attached().contains("xdp")).then_some(()))).unwrap();
}

#[test]
fn a_flood_of_random_names_opens_nothing_and_stays_in_its_memory() {
    let Some(mut bench) =
        bench("[policy]\nassume_ports = [443]\n[policy.guard]\nallow_networks = [\"10.77.0.0/24\"]\n")
    else {
        return;
    };
    let resident = |pid: nix::unistd::Pid| {
        let status = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/status"))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap()
    };
    let pid = bench.daemon.pid();
    let flood = |from: u32, to: u32| (from..to).map(|number| question::bytes(&question::random_name(number)));
    bench.send((HOST.v4, 53).into(), flood(0, 200_000));
    bench.wait("the first part of the flood", |stats| stats.questions >= 200_000);
    let (before, tables) = (resident(pid), bench.daemon.stats().unwrap().memory_bytes);
    bench.send((HOST.v4, 53).into(), flood(200_000, 1_000_000));
    let stats = bench.wait("the whole flood", |stats| stats.questions >= 1_000_000);
    let after = resident(pid);
    assert_eq!((stats.leases.opened, stats.names.warmed), (0, 0), "{stats:?}");
    assert!(after < before + 16 * 1024, "resident memory went from {before} to {after} KiB");
    assert!(stats.memory_bytes <= tables + (1 << 20), "tables went from {tables} to {} bytes", stats.memory_bytes);
    // It is still there for a name that matters.
    bench.ask(&["a.example"]);
    let asked = stats.questions;
    bench.wait("another question", |stats| stats.questions > asked);
}

#[test]
fn a_reload_takes_what_is_good_and_refuses_what_is_bad() {
    let Some(mut bench) = bench("") else { return };
    let file = bench.folder.path().join("prewarm.toml");
    fs::write(&file, "[policy]\nwaste_budget = \"much\"\n").unwrap();
    kill(bench.daemon.pid(), Signal::SIGHUP).unwrap();
    clock::wait_for("the refusal in the log", WAIT, || {
        Ok(bench.daemon.log_tail().contains("waste_budget").then_some(()))
    })
    .unwrap();
    bench.daemon.stats().unwrap();
    fs::write(&file, "[policy]\nwaste_budget = 1.0\n").unwrap();
    let reply = bench.daemon.command(&["config", "reload"]).unwrap();
    assert!(reply.contains("read again"), "{reply}");
}

#[test]
fn interfaces_come_and_go_while_it_runs() {
    let Some(mut bench) = bench("") else { return };
    bench.daemon.command(&["detach", "pw-host"]).unwrap();
    assert!(!bench.attached().contains("xdp"), "{}", bench.attached());
    bench.ask(&["unseen.example"]);
    bench.daemon.command(&["attach", "pw-host"]).unwrap();
    assert!(bench.attached().contains("xdp"), "{}", bench.attached());
    bench.ask(&["seen.example"]);
    let stats = bench.wait("the name", |stats| stats.names.known > 0);
    assert_eq!(stats.names.known, 1, "a question was seen while nothing was attached");
    assert!(bench.daemon.command(&["attach", "no-such-if"]).is_err());
}

#[test]
fn the_metrics_page_is_served_where_it_is_switched_on() {
    let Some(mut bench) = bench("[metrics]\nenabled = true\nlisten = \"127.0.0.1:9153\"\n") else { return };
    bench.ask(&["a.example"]);
    bench.wait("the name", |stats| stats.names.known == 1);
    let page = bench
        .host
        .enter(|| {
            let mut stream = TcpStream::connect("127.0.0.1:9153")?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        })
        .unwrap();
    assert!(page.contains("prewarm_kernel_questions_total 1"), "{page}");
    assert!(page.contains("prewarm_history_known_names 1"), "{page}");
}

#[test]
fn systemd_is_told_what_happens() {
    let Some(bench) = bench("") else { return };
    let socket = bench.folder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(WAIT)).unwrap();
    let mut command = bench.host.command(daemon::binary().unwrap());
    command.args(["run", "--iface", "lo", "--set", "resolve.servers=[\"127.0.0.1:53\"]"]);
    command.arg("--socket").arg(bench.folder.path().join("second.sock"));
    command.arg("--state").arg(bench.folder.path().join("second"));
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "300000");
    let service = Service::start("notifying", command, bench.folder.path()).unwrap();
    let told = |wanted: &str| {
        let mut buffer = [0; 512];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("waiting for {wanted}: {error}\n{}", service.log_tail());
            });
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == wanted) {
                return;
            }
        }
    };
    told("READY=1");
    told("WATCHDOG=1");
    kill(service.pid(), Signal::SIGTERM).unwrap();
    told("STOPPING=1");
}
