//! What the tests of the redirect stand on: a namespace with addresses, a cgroup, an origin that says over which of its
//! connections it was spoken to, the daemon as a process, and clients in Python, which has every socket option.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpListener},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prewarm_tests::{
    clock, kernel,
    veth::{inside, ip},
};
use serde_json::Value;

use super::cgroup::Cgroup;

pub(crate) const V4: &str = "192.0.2.1";
pub(crate) const V6: &str = "2001:db8::1";

/// How long the daemon may take to answer; the machine may be busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Runs a test in a namespace with the addresses of an origin, and a cgroup for its clients.
pub(crate) fn world(test: impl FnOnce(&Cgroup) -> Result<()> + Send) {
    if let Some(reason) = kernel::missing() {
        skipped(reason);
        return;
    }
    inside(|| {
        addresses()?;
        test(&Cgroup::create("redirect")?)
    })
    .unwrap();
}

/// Says why a test says nothing.
pub(crate) fn skipped(reason: &str) {
    let _written = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// Gives the current namespace the addresses of an origin.
pub(crate) fn addresses() -> Result<()> {
    ip(&format!("addr add {V4}/32 dev lo"))?;
    ip(&format!("-6 addr add {V6}/128 dev lo nodad"))
}

/// A server that answers a line with the number of the connection, as it was accepted, and the other end's address.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Origin {
    pub(crate) fn start(address: &str) -> Result<Self> {
        let ip: IpAddr = address.parse()?;
        Self::start_at((ip, 0).into())
    }

    pub(crate) fn start_at(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let (address, accepted) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || -> std::io::Result<()> {
                    let (mut reader, mut writer) = (BufReader::new(stream.try_clone()?), stream);
                    let mut line = String::new();
                    while reader.read_line(&mut line)? > 0 {
                        let peer = writer.peer_addr()?;
                        writeln!(writer, "{number} {} {} {}", peer.ip().to_canonical(), peer.port(), line.trim())?;
                        line.clear();
                    }
                    Ok(())
                });
            }
        });
        Ok(Self { address, accepted })
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// `redirect-daemon` as a process; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Daemon {
    /// Starts it for a cgroup, with more settings in the form of `[handover]`.
    pub(crate) fn start(cgroup: &Cgroup, more: &str) -> Result<Self> {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_redirect-daemon")), cgroup, more)
    }

    /// Starts it by another command, of which it is the last word but one.
    pub(crate) fn start_as(mut command: Command, cgroup: &Cgroup, more: &str) -> Result<Self> {
        let mut settings: toml::Table = more.parse()?;
        let redirect = settings.entry("redirect").or_insert_with(|| toml::Table::new().into());
        let redirect = redirect.as_table_mut().context("redirect")?;
        redirect.insert("enabled".into(), true.into());
        redirect.insert("cgroups".into(), vec![cgroup.path().display().to_string()].into());
        let mut child = command.arg(settings.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().context("stdin")?;
        let answers = BufReader::new(child.stdout.take().context("stdout")?);
        let mut daemon = Self { child, orders, answers };
        ensure!(daemon.answer()? == "ready");
        Ok(daemon)
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "redirect-daemon ended: {:?}", self.child.try_wait()?);
        Ok(serde_json::from_str(&line)?)
    }

    pub(crate) fn order(&mut self, line: &str) -> Result<Value> {
        writeln!(self.orders, "{line}")?;
        self.answer()
    }

    /// Opens so many leases, and waits until they are there.
    pub(crate) fn lease(&mut self, origin: &Origin, count: usize) -> Result<()> {
        ensure!(self.order(&format!("lease {} {count}", origin.address))? == "leased");
        Ok(())
    }

    pub(crate) fn stats(&mut self) -> Result<Value> {
        self.order("stats")
    }

    /// Waits until a number of the statistics (a JSON pointer) has this value.
    pub(crate) fn wait(&mut self, pointer: &str, value: u64) -> Result<()> {
        let mut last = Value::Null;
        let waited = clock::wait_for(pointer, ANSWER_WITHIN, || {
            last = self.stats()?;
            Ok((last.pointer(pointer).and_then(Value::as_u64) == Some(value)).then_some(()))
        });
        waited.with_context(|| format!("{pointer} should become {value}: {last}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid().cast_signed()), signal)?)
    }

    /// Asks for a stop without waiting for its end.
    pub(crate) fn ask_to_stop(&mut self, grace: Duration) -> Result<()> {
        Ok(writeln!(self.orders, "stop {}", grace.as_millis())?)
    }

    pub(crate) fn wait_stopped(&mut self) -> Result<()> {
        ensure!(self.answer()? == "stopped");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What every client begins with.
const PRELUDE: &str = r#"
import socket, sys, os, time, json, threading, struct, errno
def sock(family=None):
    s = socket.socket(family if family is not None else (socket.AF_INET6 if ":" in HOST else socket.AF_INET))
    s.settimeout(10)
    return s
def name(address):
    host = address[0]
    if host.startswith("::ffff:"): host = host[7:]
    return [host, address[1]]
def ask(s, text="hello"):
    s.sendall((text + "\n").encode())
    return hear(s, text)
def hear(s, text):
    answer = b""
    while not answer.endswith(b"\n"):
        part = s.recv(4096)
        if not part: raise EOFError("closed")
        answer += part
    number, host, port, said = answer.decode().strip().split(" ", 3)
    assert said == text, answer
    return int(number), [host, int(port)]
def report(s, text="hello"):
    number, seen = ask(s, text)
    print(json.dumps({"number": number, "seen": seen, "local": name(s.getsockname()), "peer": name(s.getpeername())}))
"#;

/// A client in Python, in a cgroup if one is named.
pub(crate) fn python(cgroup: Option<&Cgroup>, origin: &Origin, code: &str) -> Command {
    let (host, port) = (origin.address.ip(), origin.address.port());
    let mut command = Command::new("python3");
    command.arg("-c").arg(format!("HOST, PORT = {:?}, {port}\n{PRELUDE}\n{code}\n", host.to_string()));
    if let Some(cgroup) = cgroup {
        cgroup.enter(&mut command);
    }
    command
}

/// Runs it to its end and gives its lines of JSON.
pub(crate) fn run(command: &mut Command) -> Result<Vec<Value>> {
    let output = command.stdin(Stdio::null()).output()?;
    lines(&output)
}

pub(crate) fn lines(output: &Output) -> Result<Vec<Value>> {
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Runs a client that makes one connection and reports on it.
pub(crate) fn one(cgroup: Option<&Cgroup>, origin: &Origin, code: &str) -> Result<Value> {
    run(&mut python(cgroup, origin, code))?.pop().context("the client said nothing")
}

/// The plainest client.
pub(crate) const PLAIN: &str = "s = sock(); s.connect((HOST, PORT)); report(s)";

/// A client's connection was a lease, and its program could not see a difference.
pub(crate) fn assert_leased(report: &Value, origin: &Origin, leases: usize) {
    let number = report["number"].as_u64().unwrap();
    assert!(number < leases as u64, "over a connection that was open before: {report}");
    let address = serde_json::json!([origin.address.ip().to_string(), origin.address.port()]);
    assert_eq!(report["peer"], address, "{report}");
    assert_eq!(report["local"], report["seen"], "{report}");
}

/// A client's connection was its own.
pub(crate) fn assert_direct(report: &Value, leases: usize) {
    let number = report["number"].as_u64().unwrap();
    assert!(number >= leases as u64, "over a connection of its own: {report}");
    assert_eq!(report["local"], report["seen"], "{report}");
}
