//! Three namespaces, servers that say who reached them, and the daemon on the gateway.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prewarm_tests::{
    kernel, needs,
    needs::Need,
    netns::{Addresses, Namespace, VethEnd, veth},
};
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) const WAIT: Duration = Duration::from_secs(10);
pub(crate) const TABLE: u32 = 177;
pub(crate) const MARK: u32 = 0x7072_7401;
pub(crate) const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 81, 1, 2);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd81, 1, 0, 0, 0, 0, 0, 2);
const NEAR4: Ipv4Addr = Ipv4Addr::new(10, 81, 1, 1);
const NEAR6: Ipv6Addr = Ipv6Addr::new(0xfd81, 1, 0, 0, 0, 0, 0, 1);
pub(crate) const GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 81, 2, 1));
pub(crate) const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd81, 2, 0, 0, 0, 0, 0, 1));
pub(crate) const ORIGIN4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 81, 2, 2));
pub(crate) const ORIGIN6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd81, 2, 0, 0, 0, 0, 0, 2));

pub(crate) struct World {
    daemon: Option<Daemon>,
    pub(crate) client: Namespace,
    pub(crate) gateway: Namespace,
    origin: Namespace,
}

/// The three hosts with a daemon on the gateway.
pub(crate) fn world() -> Option<World> {
    if needs::skip(&[Need::Root]) {
        return None;
    }
    if let Some(reason) = kernel::missing() {
        // A closed standard error doesn't make the test possible.
        let _written = writeln!(std::io::stderr(), "skipped: {reason}");
        return None;
    }
    let [client, gateway, origin] = ["client", "gateway", "origin"].map(|role| Namespace::create(role).unwrap());
    let end = |namespace, interface, v4, v6| VethEnd { namespace, interface, addresses: Addresses { v4, v6 } };
    veth(&end(&client, "pw-c", CLIENT4, CLIENT6), &end(&gateway, "pw-lan", NEAR4, NEAR6)).unwrap();
    let (IpAddr::V4(far4), IpAddr::V6(far6)) = (GATEWAY4, GATEWAY6) else { return None };
    let (IpAddr::V4(origin4), IpAddr::V6(origin6)) = (ORIGIN4, ORIGIN6) else { return None };
    veth(&end(&gateway, "pw-wan", far4, far6), &end(&origin, "pw-o", origin4, origin6)).unwrap();
    for sysctl in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        gateway.sysctl(sysctl, "1").unwrap();
    }
    for (host, via4, via6) in [(&client, NEAR4, NEAR6), (&origin, far4, far6)] {
        host.ip(&["route", "add", "default", "via", &via4.to_string()]).unwrap();
        host.ip(&["-6", "route", "add", "default", "via", &via6.to_string()]).unwrap();
    }
    let mut world = World { daemon: None, client, gateway, origin };
    world.start_daemon(TABLE).unwrap();
    Some(world)
}

impl World {
    /// A server that tells each client by which address it came.
    pub(crate) fn serve(&self, address: IpAddr) -> SocketAddr {
        self.listen(address, |mut stream| {
            let mut byte = [0];
            // A lease says nothing until it is used.
            if matches!(stream.read(&mut byte), Ok(1)) {
                let from = stream.peer_addr().unwrap().ip();
                drop(stream.write_all(from.to_string().as_bytes()));
            }
        })
    }

    /// A server that says everything again.
    pub(crate) fn serve_echo(&self, address: IpAddr) -> SocketAddr {
        self.listen(address, |mut stream| {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..read]).is_err() {
                    return;
                }
            }
            drop(stream.shutdown(Shutdown::Write));
        })
    }

    fn listen(&self, address: IpAddr, answer: fn(TcpStream)) -> SocketAddr {
        let listener = self.origin.enter(|| Ok(TcpListener::bind((address, 0))?)).unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(stream));
            }
        });
        at
    }

    /// Asks a server from the client, and gives its answer.
    pub(crate) fn visit(&self, to: SocketAddr) -> String {
        let visited = self.client.enter(|| {
            let mut stream = TcpStream::connect_timeout(&to, WAIT)?;
            stream.set_read_timeout(Some(WAIT))?;
            stream.write_all(b"?")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        visited.unwrap()
    }

    /// The client's own address of the same family.
    pub(crate) fn client_like(&self, origin: IpAddr) -> String {
        if origin.is_ipv4() { CLIENT4.to_string() } else { CLIENT6.to_string() }
    }

    /// Sends the first packet of a connection from an address that nobody has.
    pub(crate) fn syn(&self, from: Ipv4Addr, port: u16, to: SocketAddrV4) {
        let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
        packet.extend(from.octets());
        packet.extend(to.ip().octets());
        let mut tcp = Vec::new();
        tcp.extend(port.to_be_bytes());
        tcp.extend(to.port().to_be_bytes());
        // Sequence, acknowledgement, length and SYN, window, checksum, urgent.
        tcp.extend([0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        let mut pseudo = [&from.octets()[..], &to.ip().octets(), &[0, 6, 0, 20], &tcp].concat();
        if pseudo.len() % 2 != 0 {
            pseudo.push(0);
        }
        let mut sum: u32 = pseudo.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        tcp[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        packet.extend(tcp);
        let sent = self.client.enter(|| {
            let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            Ok(raw.send_to(&packet, &SocketAddr::from((*to.ip(), 0)).into())?)
        });
        assert_eq!(sent.unwrap(), packet.len());
    }

    pub(crate) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the daemon runs")
    }

    /// Starts a daemon; what it complains of, if it doesn't run.
    pub(crate) fn start_daemon(&mut self, table: u32) -> Result<(), String> {
        let mut command = self.gateway.command(env!("CARGO_BIN_EXE_tproxy-daemon"));
        command.args(["pw-lan", &table.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut daemon = Daemon { child, to, from };
        if daemon.line() == "\"ready\"" {
            self.daemon = Some(daemon);
            return Ok(());
        }
        let mut complaint = String::new();
        daemon.child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        Err(complaint)
    }

    pub(crate) fn stop_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            assert_eq!(daemon.ask("stop"), "\"stopped\"");
            assert!(daemon.child.wait().unwrap().success());
        }
    }

    pub(crate) fn kill_daemon(&mut self) {
        self.signal(Signal::SIGKILL);
        let mut daemon = self.daemon.take().unwrap();
        daemon.child.wait().unwrap();
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.daemon().child.id().cast_signed()), signal).unwrap();
    }

    /// All rules and the routes of the table, of both families.
    pub(crate) fn rules(&self) -> String {
        let show = |arguments: &[&str]| {
            let output = self.gateway.command("ip").args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let table = TABLE.to_string();
        [
            show(&["rule", "show"]),
            show(&["-6", "rule", "show"]),
            show(&["route", "show", "table", &table]),
            show(&["-6", "route", "show", "table", &table]),
        ]
        .concat()
    }

    /// Whether the rules and routes of both families are there; half of them is neither.
    pub(crate) fn is_steered(&self) -> bool {
        let text = self.rules();
        let found =
            (text.matches("fwmark 0x70727401 lookup 177").count(), text.matches("local default dev lo").count());
        assert!(matches!(found, (0, 0) | (2, 2)), "{text}");
        found == (2, 2)
    }

    /// The ports of IPv4's loopback at which somebody listens on the gateway.
    pub(crate) fn listening(&self) -> Vec<u16> {
        let output = self.gateway.command("ss").args(["-Htln4"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let port = |line: &str| line.split_whitespace().nth(3)?.strip_prefix("127.0.0.1:")?.parse().ok();
        text.lines().filter_map(port).collect()
    }
}

/// The daemon's process.
pub(crate) struct Daemon {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) claimed: u64,
    pub(crate) stale: u64,
    pub(crate) packets: u64,
    pub(crate) taken: u64,
    pub(crate) missed: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) ready: u64,
    pub(crate) returned: u64,
}

impl Daemon {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.to, "{question}").unwrap();
        self.line()
    }

    pub(crate) fn lease(&mut self, to: SocketAddr, count: usize) {
        assert_eq!(self.ask(&format!("lease {to} {count}")), "\"leased\"");
    }

    pub(crate) fn stats(&mut self) -> Stats {
        let stats: serde_json::Value = serde_json::from_str(&self.ask("stats")).unwrap();
        let number = |path: &str| stats.pointer(path).and_then(serde_json::Value::as_u64).unwrap();
        Stats {
            claimed: number("/kernel/claimed"),
            stale: number("/kernel/stale"),
            packets: number("/kernel/packets"),
            taken: number("/way/taken"),
            missed: number("/way/missed"),
            failed: number("/way/failed"),
            refused: number("/way/refused"),
            ready: number("/ready"),
            returned: number("/returned"),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be stopped, and it may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
