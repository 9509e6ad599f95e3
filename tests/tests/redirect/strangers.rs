//! Strangers: whoever has claimed nothing gets nothing, with any token, even one that is good at that moment.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use prewarm_ebpf::redirect::{TOKEN_MASK, TOKEN_NETWORK};
use prewarm_tests::netns::Namespace;

use super::bench::{Daemon, Origin, PLAIN, V4, V6, assert_leased, one, python, world};

/// Nothing but a reset comes from there.
fn is_refused(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // It may be refused before anything can be said, and an error is told once.
    let said = stream.write_all(b"hello\n");
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    ensure!(answer.is_empty(), "a stranger was answered: {answer:?}");
    let is_reset = read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
    ensure!(said.is_err() || is_reset, "not reset");
    Ok(())
}

/// A connection as `/proc/net/tcp` lists it: the other end, and the state.
fn connections(namespace_of: u32) -> Result<Vec<(SocketAddr, u8)>> {
    let table = std::fs::read_to_string(format!("/proc/{namespace_of}/net/tcp"))?;
    let row = |line: &str| -> Option<(SocketAddr, u8)> {
        let mut words = line.split_whitespace().skip(2);
        let (ip, port) = words.next()?.split_once(':')?;
        let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
        let state = u8::from_str_radix(words.next()?, 16).ok()?;
        Some((SocketAddr::from((ip, u16::from_str_radix(port, 16).ok()?)), state))
    };
    Ok(table.lines().filter_map(row).collect())
}

/// The listener's port, and on which families it listens: found as any stranger could.
fn listening(daemon: &Daemon) -> Result<(u16, u16)> {
    let ports = |table: &str| -> Result<Vec<u16>> {
        let text = std::fs::read_to_string(format!("/proc/{}/net/{table}", daemon.pid()))?;
        let listen = text.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A"));
        let port = |line: &str| {
            let local = line.split_whitespace().nth(1)?;
            Some((local.to_owned(), u16::from_str_radix(local.split_once(':')?.1, 16).ok()?))
        };
        let loopback = ["00000000:", "00000000000000000000000001000000:"];
        Ok(listen
            .filter_map(port)
            .filter(|(local, _)| loopback.iter().any(|loopback| local.starts_with(loopback)))
            .map(|(_, port)| port)
            .collect())
    };
    Ok((*ports("tcp")?.first().context("v4")?, *ports("tcp6")?.first().context("v6")?))
}

#[test]
fn guesses_are_refused() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 3)?;
        let (port4, port6) = listening(&daemon)?;
        for token in [0, 1, 4711, TOKEN_MASK] {
            is_refused(SocketAddr::from((Ipv4Addr::from(TOKEN_NETWORK | token), port4)))?;
        }
        is_refused(SocketAddr::from(([127, 0, 0, 1], port4)))?;
        is_refused(format!("[::1]:{port6}").parse()?)?;
        is_refused(format!("{V4}:{port4}").parse()?)?;
        daemon.wait("/refused", 7)?;
        let stats = daemon.stats()?;
        ensure!(stats["ready"] == 3 && stats["taken"] == 0, "{stats}");
        Ok(())
    });
}

/// The worst case: a lease is claimed, its claimer has not come yet, and a stranger comes first with the right token.
#[test]
fn the_right_token_in_the_wrong_hand_is_refused() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 1)?;
        // Claims in connect(), and sends its first packet only when it has something to say.
        let code = "TCP_FASTOPEN_CONNECT = 30
open('/proc/sys/net/ipv4/tcp_fastopen', 'w').write('5')
s = sock(); s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1); s.connect((HOST, PORT))
print('claimed', flush=True); sys.stdin.readline(); report(s)";
        let mut claimer = python(Some(cgroup), &origin, code).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(claimer.stdout.take().context("stdout")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        ensure!(line == "claimed\n", "{line}");
        let there = connections(daemon.pid())?;
        let token = there
            .iter()
            .map(|(peer, _)| *peer)
            .find(|peer| matches!(peer.ip(), std::net::IpAddr::V4(ip) if ip.to_bits() & !TOKEN_MASK == TOKEN_NETWORK));
        is_refused(token.with_context(|| format!("the claimer's other end: {there:?}"))?)?;
        daemon.wait("/refused", 1)?;
        claimer.stdin.take().context("stdin")?.write_all(b"go\n")?;
        line.clear();
        said.read_line(&mut line)?;
        ensure!(claimer.wait()?.success());
        assert_leased(&serde_json::from_str(&line)?, &origin, 1);
        ensure!(daemon.stats()?["taken"] == 1);
        Ok(())
    });
}

#[test]
fn a_claim_is_good_for_one_connection() {
    world(|cgroup| {
        for address in [V4, V6] {
            let origin = Origin::start(address)?;
            let mut daemon = Daemon::start(cgroup, "")?;
            daemon.lease(&origin, 1)?;
            let (port4, port6) = listening(&daemon)?;
            // The same socket comes again, straight to where it was redirected to.
            let code = format!(
                "s = sock(); s.connect((HOST, PORT)); ask(s)
family = socket.AF_INET6 if ':' in HOST else socket.AF_INET
import ctypes
assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0
s.settimeout(5)
again = ('::1', {port6}) if ':' in HOST else ('127.64.0.1', {port4})
try:
    s.connect(again); s.sendall(b'again\\n'); got = s.recv(100)
except ConnectionResetError: got = None
except BrokenPipeError: got = None
print(json.dumps(got is None))"
            );
            let reports = super::run(&mut python(Some(cgroup), &origin, &code))?;
            ensure!(reports == [serde_json::json!(true)], "{reports:?}");
            ensure!(daemon.stats()?["refused"] == 1);
        }
        Ok(())
    });
}

#[test]
fn nobody_comes_from_another_namespace() {
    world(|cgroup| {
        let elsewhere = Namespace::create("elsewhere")?;
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 1)?;
        let (port4, port6) = listening(&daemon)?;
        // Joined by a link, as a container is.
        let here = std::process::id();
        prewarm_tests::veth::ip(&format!("link add pw-near type veth peer name pw-far netns {}", elsewhere.name()))?;
        prewarm_tests::veth::ip("addr add 198.51.100.1/24 dev pw-near")?;
        prewarm_tests::veth::ip("link set pw-near up")?;
        elsewhere.ip(&["addr", "add", "198.51.100.2/24", "dev", "pw-far"])?;
        elsewhere.ip(&["link", "set", "pw-far", "up"])?;
        elsewhere.enter(|| {
            let near = SocketAddr::from(([198, 51, 100, 1], port4));
            let refused = TcpStream::connect_timeout(&near, Duration::from_secs(5));
            ensure!(refused.is_err(), "the listener can be reached from outside ({here})");
            for address in [format!("127.64.0.1:{port4}"), format!("[::1]:{port6}")] {
                ensure!(TcpStream::connect(&address).is_err(), "{address} is another one's loopback");
            }
            Ok(())
        })?;
        let stats = daemon.stats()?;
        ensure!(stats["refused"] == 0 && stats["ready"] == 1, "{stats}");
        assert_leased(&one(Some(cgroup), &origin, PLAIN)?, &origin, 1);
        Ok(())
    });
}
