//! `prewarm exec` with real programs: each test can tell a leased connection from one that the program opened itself,
//! because the origin notes over which of its connections each request came.

#[path = "exec/bench.rs"]
mod bench;
#[path = "exec/faults.rs"]
mod faults;
#[path = "exec/fitness.rs"]
mod fitness;
#[path = "exec/launch.rs"]
mod launch;

use bench::{Daemon, Origin, counts};
use prewarm_user::model::Verdict;

const PYTHON: [&str; 2] = ["python3", "-c"];

/// Python that makes one request over a connected socket `s`.
const REQUEST: &str = r#"
def request(s):
    s.setblocking(True)
    s.sendall(b'GET / HTTP/1.0\r\n\r\n')
    text = b''
    while part := s.recv(4096): text += part
    os.write(1, text.split(b'\r\n\r\n')[1])
    s.close()
"#;

fn python(code: &str, origin: &Origin) -> Vec<String> {
    let address = format!("ADDRESS = ({:?}, {})\n", origin.address.ip().to_string(), origin.address.port());
    let family = if origin.address.is_ipv4() { "AF_INET" } else { "AF_INET6" };
    let head = format!("import socket, os, sys\nFAMILY = socket.{family}\n{address}{REQUEST}\n");
    [PYTHON[0], PYTHON[1], &(head + code)].map(str::to_owned).to_vec()
}

/// Runs a program that makes `leases` requests, with that many leases open: it must use exactly those connections.
fn uses_exactly_the_leases(ip: &str, leases: usize, command: impl FnOnce(&Origin) -> Vec<String>) {
    let (mut daemon, origin) = (Daemon::start(), Origin::start(ip));
    daemon.lease(&origin, leases);
    let mut run = daemon.exec(command(&origin));
    let mut bodies: Vec<usize> = run.stdout().lines().map(|line| line.trim().parse().unwrap()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..leases).collect::<Vec<_>>(), "answers came over the connections that were open before");
    assert_eq!(origin.accepted(), leases, "the program opened none itself");
    daemon.wait_taken(leases as u64);
    assert_eq!(daemon.desk.counters().taken, leases as u64);
    let outcomes = daemon.outcomes();
    assert_eq!(outcomes.len(), leases);
    assert!(outcomes.iter().all(|outcome| matches!(outcome.verdict, Verdict::Used { saved } if !saved.is_zero())));
    assert_eq!(run.report(), counts([("replaced", leases as u64), ("supervisors_started", 1)]));
}

fn curl(origin: &Origin) -> Vec<String> {
    ["curl", "-sS", "--noproxy", "*", &origin.url()].map(str::to_owned).to_vec()
}

#[test]
fn curl_gets_the_lease() {
    uses_exactly_the_leases("127.0.0.1", 1, curl);
}

#[test]
fn curl_gets_the_lease_over_ipv6() {
    uses_exactly_the_leases("::1", 1, curl);
}

#[test]
fn children_get_leases() {
    uses_exactly_the_leases("127.0.0.1", 3, |origin| {
        let url = origin.url();
        let script = format!("curl -sS {url}; (curl -sS {url}); curl -sS {url} & wait");
        ["sh", "-c", &script].map(str::to_owned).to_vec()
    });
}

#[test]
fn blocking_python_gets_the_lease() {
    for ip in ["127.0.0.1", "::1"] {
        uses_exactly_the_leases(ip, 1, |origin| {
            python("s = socket.socket(FAMILY)\ns.connect(ADDRESS)\nrequest(s)", origin)
        });
    }
}

#[test]
fn non_blocking_python_gets_the_lease() {
    uses_exactly_the_leases("127.0.0.1", 1, |origin| {
        let code = "
import select, fcntl
s = socket.socket(FAMILY); s.setblocking(False)
e = s.connect_ex(ADDRESS)
assert e == 0, e
assert select.select([], [s], [], 1)[1] == [s]
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
assert fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK
assert fcntl.fcntl(s, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
assert s.getpeername()[:2] == ADDRESS
request(s)";
        python(code, origin)
    });
}

#[test]
fn asyncio_gets_leases() {
    uses_exactly_the_leases("127.0.0.1", 4, |origin| {
        let code = "
import asyncio
async def one():
    reader, writer = await asyncio.open_connection(*ADDRESS)
    writer.write(b'GET / HTTP/1.0\\r\\n\\r\\n')
    text = await reader.read()
    print(text.split(b'\\r\\n\\r\\n')[1].decode().strip())
    writer.close()
async def main():
    await asyncio.gather(*(one() for _ in range(4)))
asyncio.run(main())";
        python(code, origin)
    });
}

#[test]
fn threads_get_leases() {
    uses_exactly_the_leases("127.0.0.1", 16, |origin| {
        let code = "
import threading
gate = threading.Barrier(16)
def one():
    s = socket.socket(FAMILY)
    gate.wait()
    s.connect(ADDRESS)
    request(s)
threads = [threading.Thread(target=one) for _ in range(16)]
for t in threads: t.start()
for t in threads: t.join()";
        python(code, origin)
    });
}

#[test]
fn tokio_gets_leases() {
    uses_exactly_the_leases("127.0.0.1", 8, |origin| {
        [env!("CARGO_BIN_EXE_tokio-client"), &origin.address.to_string(), "8"].map(str::to_owned).to_vec()
    });
}

#[test]
fn go_gets_the_lease() {
    if std::process::Command::new("go").arg("version").output().is_err() {
        println!("skipped: no Go compiler here (Debian package golang-go)");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (source, program) = (directory.path().join("main.go"), directory.path().join("client"));
    let code = r#"package main
import ("fmt"; "io"; "net/http"; "os")
func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil { panic(err) }
	body, _ := io.ReadAll(answer.Body)
	fmt.Print(string(body))
}"#;
    std::fs::write(&source, code).unwrap();
    let built = std::process::Command::new("go")
        .args(["build", "-o"])
        .args([&program, &source])
        .env("GOCACHE", directory.path())
        .env("GO111MODULE", "off")
        .status();
    assert!(built.unwrap().success());
    uses_exactly_the_leases("127.0.0.1", 1, |origin| vec![program.display().to_string(), origin.url()]);
}

#[test]
fn without_a_lease_nothing_changes() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    let other = Origin::start("127.0.0.1");
    daemon.lease(&other, 1);
    let mut run = daemon.exec(curl(&origin));
    assert_eq!(run.stdout(), "0\n");
    assert_eq!((origin.accepted(), other.asked()), (1, vec![]));
    assert_eq!(run.report(), counts([("no_lease", 1), ("supervisors_started", 1)]));
}

#[test]
fn a_refused_connection_is_refused() {
    let daemon = Daemon::start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = daemon.exec(["curl", "-sS", &format!("http://{nobody}/")]).output();
    assert_eq!(output.status.code(), Some(7), "curl: could not connect");
}
