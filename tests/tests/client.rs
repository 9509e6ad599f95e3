//! Programs that ask for leases themselves: through `prewarm_user::client`, in Python, with `prewarm lease take`; and who
//! is refused. The origin notes over which of its connections each request came.

#[path = "client/faults.rs"]
mod faults;
#[path = "client/refused.rs"]
mod refused;

#[expect(dead_code, reason = "the rest of the bench is for `prewarm exec`")]
#[path = "exec/bench.rs"]
mod bench;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Output},
    time::Duration,
};

use bench::{Daemon, Origin, wait_for};
use prewarm_user::client::{AsyncClient, Client};

/// What a machine busy with other tests does not exhaust: what is asserted is which connection a program gets.
const PATIENT: Duration = Duration::from_secs(5);

fn client(daemon: &Daemon) -> Client {
    Client::new(&daemon.socket).with_patience(PATIENT)
}

/// The number of the connection, as the origin says.
fn number(mut stream: TcpStream) -> usize {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split("\r\n\r\n").nth(1).unwrap().trim().parse().unwrap()
}

fn example() -> String {
    format!("{}/../docs/examples/take.py", env!("CARGO_MANIFEST_DIR"))
}

fn text(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_lease_is_taken_by_address_and_by_name() {
    for ip in ["127.0.0.1", "::1"] {
        let (mut daemon, origin) = (Daemon::start(), Origin::start(ip));
        daemon.lease(&origin, 2);
        let client = client(&daemon);
        let lease = client.take(origin.address).unwrap();
        assert_eq!(lease.destination(), origin.address);
        assert_eq!(lease.origin(), format!("origin.example:{}", origin.address.port()));
        assert!(!lease.saves().is_zero());
        let stream = lease.into_stream();
        assert!(stream.nodelay().unwrap());
        let mut numbers = vec![number(stream)];
        let name = format!("origin.example:{}", origin.address.port());
        let lease = client.take(name.as_str()).unwrap();
        assert_eq!(lease.destination(), origin.address);
        numbers.push(number(lease.into_stream()));
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1], "both connections were open before");
        assert!(client.take(name.as_str()).is_none() && client.take(origin.address).is_none(), "there were two");
        daemon.wait_taken(2);
        assert_eq!(origin.accepted(), 2);
        let counters = daemon.desk.counters();
        assert_eq!((counters.taken, counters.failed), (2, 0));
    }
}

#[test]
fn connect_takes_the_lease_and_otherwise_connects() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    let client = client(&daemon);
    let host = origin.address.ip().to_string();
    let leased = client.connect(&host, origin.address.port()).unwrap();
    assert!(leased.is_leased());
    assert_eq!(number(leased.stream), 0);
    let opened = client.connect(&host, origin.address.port()).unwrap();
    assert!(!opened.is_leased());
    assert_eq!(number(opened.stream), 1);
    assert!(client.connect("name.invalid", 1).is_err(), "a name that is none stays none");
}

#[test]
fn an_unused_lease_goes_back() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    let client = client(&daemon);
    drop(client.take(origin.address).unwrap());
    wait_for("the lease is back", || daemon.ready() == 1);
    assert_eq!(daemon.pool.counters().given_back, 1);
    assert_eq!(number(client.take(origin.address).unwrap().into_stream()), 0);
    daemon.wait_taken(1);
}

#[test]
fn threads_share_a_client() {
    const THREADS: usize = 8;
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, THREADS);
    let client = client(&daemon);
    let mut numbers: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| number(client.take(origin.address).unwrap().into_stream()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (0..THREADS).collect::<Vec<_>>(), "each got one of its own");
    daemon.wait_taken(THREADS as u64);
}

#[test]
fn tasks_share_a_client() {
    const TASKS: usize = 8;
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, TASKS);
    let client = AsyncClient::new(&daemon.socket).with_patience(PATIENT);
    let (host, port) = (origin.address.ip().to_string(), origin.address.port());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut numbers: Vec<usize> = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..TASKS {
            let (client, host) = (client.clone(), host.clone());
            tasks.spawn(async move {
                let connection = client.connect(&host, port).await.unwrap();
                assert!(connection.is_leased());
                let stream = connection.stream.into_std().unwrap();
                stream.set_nonblocking(false).unwrap();
                tokio::task::spawn_blocking(move || number(stream)).await.unwrap()
            });
        }
        tasks.join_all().await
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (0..TASKS).collect::<Vec<_>>());
    let opened = runtime.block_on(client.connect(&host, port)).unwrap();
    assert!(!opened.is_leased(), "there were as many as tasks");
    daemon.wait_taken(TASKS as u64);
}

#[test]
fn without_a_daemon_connections_are_opened_as_ever() {
    let origin = Origin::start("127.0.0.1");
    let host = origin.address.ip().to_string();
    let client = Client::new("/nowhere/control.sock");
    assert!(client.take(origin.address).is_none());
    assert_eq!(number(client.connect(&host, origin.address.port()).unwrap().stream), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = AsyncClient::new("/nowhere/control.sock");
    let opened = runtime.block_on(client.connect(&host, origin.address.port())).unwrap();
    assert!(!opened.is_leased());
}

#[test]
fn the_example_in_python_takes_a_lease() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    let mut command = Command::new("python3");
    // Its patience is for people: this machine may do something else meanwhile.
    let code = "import runpy, sys, functools; m = runpy.run_path(sys.argv[1]); P = m['Prewarm']; \
                m['main'].__globals__['Prewarm'] = functools.partial(P, patience=5); sys.argv = sys.argv[1:]; m['main']()";
    command.args(["-c", code, &example(), &origin.address.ip().to_string(), &origin.address.port().to_string()]);
    command.arg(&daemon.socket);
    let (stdout, stderr) = text(&command.output().unwrap());
    assert_eq!(stdout, "leased\n0\n", "{stderr}");
    daemon.wait_taken(1);
    let (stdout, stderr) = text(&command.output().unwrap());
    assert_eq!(stdout, "opened\n1\n", "{stderr}");
}

#[test]
fn the_example_in_python_does_without_a_daemon() {
    let origin = Origin::start("127.0.0.1");
    let output = Command::new("python3")
        .args([&example(), &origin.address.ip().to_string(), &origin.address.port().to_string(), "/nowhere.sock"])
        .output();
    let (stdout, stderr) = text(&output.unwrap());
    assert_eq!(stdout, "opened\n0\n", "{stderr}");
}

/// `prewarm lease take` to the origin, running a shell script.
fn take(daemon: &Daemon, origin: &Origin, flags: &[&str], script: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cli-under-test"));
    command.args(["lease", "take", "--patience", "5000", "--socket"]).arg(&daemon.socket).args(flags);
    command.args([&origin.address.to_string(), "--", "bash", "-c", script]).output().unwrap()
}

#[test]
fn lease_take_passes_the_connection_on() {
    let count = "ls /proc/self/fd | wc -w";
    let plain = Command::new("bash").args(["-c", count]).output().unwrap();
    let and_one: usize = text(&plain).0.trim().parse::<usize>().unwrap() + 1;
    let script = &format!(
        "echo $PREWARM_FD $PREWARM_LEASED; {count}
                  printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3; exit 7"
    );
    for ip in ["127.0.0.1", "::1"] {
        let (mut daemon, origin) = (Daemon::start(), Origin::start(ip));
        daemon.lease(&origin, 1);
        let output = take(&daemon, &origin, &[], script);
        let (stdout, stderr) = text(&output);
        assert_eq!(stdout, format!("3 1\n{and_one}\n0\n"), "{stderr}");
        assert_eq!(output.status.code(), Some(7), "the program's own exit code");
        daemon.wait_taken(1);
        let (stdout, stderr) = text(&take(&daemon, &origin, &[], script));
        assert_eq!(stdout, format!("3 0\n{and_one}\n1\n"), "a new one where there is none: {stderr}");
    }
}

#[test]
fn lease_take_says_why_it_ran_nothing() {
    let (daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    let output = take(&daemon, &origin, &["--leased-only"], "echo ran");
    assert_eq!(output.status.code(), Some(1));
    let (stdout, stderr) = text(&output);
    assert_eq!(stdout, "");
    assert!(stderr.contains("no lease to 127.0.0.1"), "{stderr}");
    let run = |destination: &str, program: &str| {
        Command::new(env!("CARGO_BIN_EXE_cli-under-test"))
            .args(["lease", "take", "--socket", "/nowhere.sock", destination, "--", program])
            .output()
            .unwrap()
    };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(run(&nobody, "true").status.code(), Some(2), "no connection");
    assert_eq!(run("nonsense", "true").status.code(), Some(2), "no destination");
    let there = origin.address.to_string();
    assert_eq!(run(&there, "/no/such/program").status.code(), Some(127));
    assert_eq!(run(&there, "/etc/passwd").status.code(), Some(126));
}
