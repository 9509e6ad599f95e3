//! Sockets that can't be replaced are left alone, and those that can look the same afterwards.

use super::{
    bench::{Daemon, Origin, counts},
    python,
};

/// Runs a program whose socket is not fit: it must open its own connection (number 1, the lease is number 0), and the
/// lease must be there for the next program.
fn is_left_alone(code: &str, reason: &str) {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    let mut run = daemon.exec(python(code, &origin));
    assert_eq!(run.stdout(), "1\n", "{reason}");
    let mut report = run.report();
    report.remove("leases_given_back");
    assert_eq!(report, counts([(reason, 1), ("supervisors_started", 1)]));
    super::bench::wait_for("the lease is back", || daemon.ready() == 1);
    assert_eq!(daemon.exec(super::curl(&origin)).stdout(), "0\n", "the lease is still good");
    daemon.wait_taken(1);
}

#[test]
fn a_socket_in_an_epoll_set() {
    let code = "
import select
s = socket.socket(FAMILY); s.setblocking(False)
e = select.epoll(); e.register(s, select.EPOLLOUT | select.EPOLLIN | select.EPOLLET)
s.connect_ex(ADDRESS)
assert any(event & select.EPOLLOUT and not event & select.EPOLLHUP for _, event in e.poll(5))
request(s)";
    is_left_alone(code, "left_epoll");
}

#[test]
fn a_socket_with_a_second_descriptor() {
    let code = "
s = socket.socket(FAMILY); t = s.dup()
s.connect(ADDRESS)
assert t.getpeername()[:2] == ADDRESS
s.close()
request(t)";
    is_left_alone(code, "left_duplicate");
}

#[test]
fn a_socket_with_a_source_address() {
    is_left_alone("s = socket.socket(FAMILY); s.bind(('127.0.0.1', 0)); s.connect(ADDRESS); request(s)", "left_bound");
}

#[test]
fn a_socket_with_a_mark() {
    let code = "s = socket.socket(FAMILY); s.setsockopt(socket.SOL_SOCKET, 36, 9); s.connect(ADDRESS); request(s)";
    is_left_alone(code, "left_bound");
}

#[test]
fn a_socket_on_a_device() {
    let code =
        "s = socket.socket(FAMILY); s.setsockopt(socket.SOL_SOCKET, 25, b'lo\\0'); s.connect(ADDRESS); request(s)";
    is_left_alone(code, "left_bound");
}

#[test]
fn a_transparent_socket() {
    let code = "s = socket.socket(FAMILY); s.setsockopt(socket.SOL_IP, 19, 1); s.connect(ADDRESS); request(s)";
    is_left_alone(code, "left_bound");
}

#[test]
fn a_fast_open_socket() {
    let code = "s = socket.socket(FAMILY); s.setsockopt(socket.IPPROTO_TCP, 30, 1); s.connect(ADDRESS); request(s)";
    is_left_alone(code, "left_option");
}

#[test]
fn a_v6_socket_to_a_v4_address() {
    let code = "
s = socket.socket(socket.AF_INET6)
s.connect(('::ffff:' + ADDRESS[0], ADDRESS[1]))
request(s)";
    is_left_alone(code, "left_address");
}

#[test]
fn datagrams_and_paths_go_on() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    let code = "
u = socket.socket(FAMILY, socket.SOCK_DGRAM); u.connect(ADDRESS)
assert u.getpeername()[:2] == ADDRESS
a = socket.socket(socket.AF_UNIX); a.bind('\\0' + 'prewarm-test-' + str(os.getpid())); a.listen()
b = socket.socket(socket.AF_UNIX); b.connect(a.getsockname())
for length in (13, 25):
    c = socket.socket(socket.AF_UNIX)
    try: c.connect('/' + 'x' * (length - 1)); assert False
    except FileNotFoundError: pass
n = socket.socket(FAMILY)
try: n.connect(('127.0.0.1', 0)); assert False
except OSError: pass
print('fine')";
    let mut run = daemon.exec(python(code, &origin));
    assert_eq!(run.stdout(), "fine\n");
    let report = run.report();
    assert_eq!((report.get("left_kind"), report.get("replaced")), (Some(&1), None));
    assert_eq!(daemon.ready(), 1);
}

#[test]
fn a_second_connect_says_connected() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 2);
    let code = "
import errno
s = socket.socket(FAMILY); s.setblocking(False)
assert s.connect_ex(ADDRESS) == 0
assert s.connect_ex(ADDRESS) == errno.EISCONN
request(s)";
    let mut run = daemon.exec(python(code, &origin));
    // Either of the two: which of them the origin accepted first is not said.
    assert!(["0\n", "1\n"].contains(&run.stdout().as_str()));
    assert_eq!(run.report(), counts([("replaced", 1), ("left_state", 1), ("supervisors_started", 1)]));
}

#[test]
fn options_are_carried_over() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    let code = "
import struct, fcntl
s = socket.socket(FAMILY)
S, I, T = socket.SOL_SOCKET, socket.SOL_IP, socket.IPPROTO_TCP
for level, name, value in [
    (S, socket.SO_KEEPALIVE, 1), (S, socket.SO_OOBINLINE, 1), (S, socket.SO_RCVLOWAT, 3), (S, socket.SO_PRIORITY, 5),
    (S, socket.SO_RCVBUF, 50000), (S, socket.SO_SNDBUF, 60000), (S, socket.SO_REUSEADDR, 1),
    (S, socket.SO_LINGER, struct.pack('ii', 1, 4)), (S, socket.SO_RCVTIMEO, struct.pack('qq', 3, 8000)),
    (S, socket.SO_SNDTIMEO, struct.pack('qq', 5, 0)), (I, socket.IP_TOS, 0x48), (I, socket.IP_TTL, 44),
    (T, socket.TCP_KEEPIDLE, 11), (T, socket.TCP_KEEPINTVL, 12), (T, socket.TCP_KEEPCNT, 4),
    (T, socket.TCP_USER_TIMEOUT, 9000), (T, socket.TCP_NOTSENT_LOWAT, 16384), (T, socket.TCP_LINGER2, 7),
    (T, socket.TCP_CONGESTION, b'reno'), (T, socket.TCP_QUICKACK, 1),
]: s.setsockopt(level, name, value)
fcntl.fcntl(s, fcntl.F_SETFD, 0)
before = os.fstat(s.fileno()).st_ino
s.connect(ADDRESS)
print('replaced' if os.fstat(s.fileno()).st_ino != before else 'own', file=sys.stderr)
for level, names in (S, range(1, 76)), (I, range(1, 53)), (T, range(1, 40)):
    for name in names:
        # Changing by nature: type of address, error, peer, cookies, processor, NAPI, memory, statistics, window and
        # segment of the connection, information, timestamps, local port; and no delay, which leases always have.
        if (level, name) in {(S, 17), (S, 28), (S, 31), (S, 49), (S, 55), (S, 56), (S, 57), (S, 59), (S, 71), (S, 77),
                             (T, 1), (T, 2), (T, 10), (T, 11), (T, 24), (T, 26), (T, 35), (I, 14), (I, 36),
                             (I, 52)}: continue
        try: print(level, name, s.getsockopt(level, name, 64).hex())
        except OSError as error: print(level, name, error.errno)
print(fcntl.fcntl(s, fcntl.F_GETFL), fcntl.fcntl(s, fcntl.F_GETFD))
s.close()";
    let command = python(code, &origin);
    let own = std::process::Command::new(&command[0]).args(&command[1..]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&own.stderr), "own\n");
    super::bench::wait_for("that connection is counted", || origin.accepted() == 1);
    daemon.lease(&origin, 1);
    let leased = daemon.exec(command).output();
    assert_eq!(String::from_utf8_lossy(&leased.stderr), "replaced\n");
    let (own, leased) = (String::from_utf8(own.stdout).unwrap(), String::from_utf8(leased.stdout).unwrap());
    assert!(own.lines().count() > 100);
    let differing: Vec<_> = own.lines().zip(leased.lines()).filter(|(own, leased)| own != leased).collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

/// A daemon that hands out its one lease only when the program has gone on in another thread.
fn slow_daemon(socket: &std::path::Path, origin: &Origin, go: std::fs::File) -> std::thread::JoinHandle<Vec<String>> {
    use std::{
        io::{BufRead, BufReader, IoSlice, Read},
        os::fd::AsRawFd,
    };

    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let lease = std::net::TcpStream::connect(origin.address).unwrap();
    let asked = socket.with_file_name("asked");
    std::thread::spawn(move || {
        let mut go = go;
        // The first connection only looks whether somebody listens.
        let (stream, lines) = loop {
            let stream = listener.accept().unwrap().0;
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let mut first = String::new();
            if lines.read_line(&mut first).unwrap() > 0 {
                break (stream, lines);
            }
        };
        let mut reports = Vec::new();
        for line in lines.lines() {
            let request: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            if !request["request"]["take"].is_object() {
                reports.push(request["request"].to_string());
                continue;
            }
            std::fs::write(&asked, "").unwrap();
            go.read_exact(&mut [0]).unwrap();
            let reply = serde_json::json!({
                "v": 1, "id": request["id"], "ok": {"lease": {"rtt_us": 1, "origin": "origin.example:80", "destination": "192.0.2.1:80"}}
            });
            let (line, fds) = (format!("{reply}\n"), [lease.as_raw_fd()]);
            let parts = [IoSlice::new(line.as_bytes())];
            let rights = [ControlMessage::ScmRights(&fds)];
            sendmsg::<UnixAddr>(stream.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
        }
        reports
    })
}

#[test]
fn a_number_that_means_something_else_by_now() {
    let origin = Origin::start("127.0.0.1");
    let directory = tempfile::tempdir().unwrap();
    let (socket, fifo) = (directory.path().join("control.sock"), directory.path().join("go"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let go = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
    let asked = directory.path().join("asked");
    let daemon = slow_daemon(&socket, &origin, go);
    let code = format!(
        "
import threading, time
s = socket.socket(FAMILY)
file = os.open('/dev/zero', os.O_RDONLY)
def call():
    try: s.connect(ADDRESS)
    except OSError: pass
t = threading.Thread(target=call); t.start()
while not os.path.exists({asked:?}): time.sleep(0.001)
os.dup2(file, s.fileno())
with open({fifo:?}, 'w') as go: go.write('!')
t.join()
print(os.readlink(f'/proc/self/fd/{{s.fileno()}}'))
os._exit(0)"
    );
    let mut run = super::bench::Run::patient(&socket, python(&code, &origin));
    assert_eq!(run.stdout(), "/dev/zero\n", "what another thread opened is not replaced");
    assert_eq!(run.report(), counts([("gone", 1), ("leases_given_back", 1), ("supervisors_started", 1)]));
    let reports = daemon.join().unwrap();
    assert!(reports.last().unwrap().contains("unfit"), "{reports:?}");
}
