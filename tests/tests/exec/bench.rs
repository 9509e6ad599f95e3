//! The bench that programs under `prewarm exec` are put on: an origin that notes every connection, and a daemon with a
//! real pool.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use prewarm_user::{
    config::LeaseSettings,
    handover::{
        peer::Rule,
        serve::{Clerk, Desk},
    },
    lease::{LeaseCounters, LeaseOrder, LeaseState, Pool, Reason, TcpDialer},
    model::{IntentId, Outcome, ResourceId, Timestamp},
};
use tokio::sync::mpsc;

/// An HTTP origin on loopback. The body of each answer is the number of the connection it went over, from 0.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Connections that were accepted.
    accepted: usize,
    /// The numbers of those over which a request came, in the order of the requests.
    asked: Vec<usize>,
}

impl Origin {
    pub(crate) fn start(ip: &str) -> Self {
        let listener = TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let number = {
                    let mut seen = shared.lock().unwrap();
                    seen.accepted += 1;
                    seen.accepted - 1
                };
                let seen = Arc::clone(&shared);
                thread::spawn(move || answer(stream.unwrap(), number, &seen));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How many connections were opened.
    pub(crate) fn accepted(&self) -> usize {
        self.seen.lock().unwrap().accepted
    }

    /// Over which connections requests came.
    pub(crate) fn asked(&self) -> Vec<usize> {
        self.seen.lock().unwrap().asked.clone()
    }
}

fn answer(mut stream: TcpStream, number: usize, seen: &Mutex<Seen>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    let mut asked = false;
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        asked = true;
        line.clear();
    }
    if asked {
        seen.lock().unwrap().asked.push(number);
        let body = format!("{number}\n");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        drop(stream.write_all((head + &body).as_bytes()));
    }
}

/// A clerk with nothing to do.
struct Nobody;

impl Clerk for Nobody {
    fn connected(&self, _destination: SocketAddr, _leased: bool) {}

    fn stray(&self, _stream: std::os::unix::net::UnixStream, _unread: Vec<u8>) {}
}

/// A daemon in this process: its control socket and its pool.
pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    pub(crate) pool: Pool,
    outcomes: mpsc::Receiver<Outcome>,
    pub(crate) desk: Desk,
    runtime: tokio::runtime::Runtime,
    next: u64,
    _directory: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::with(Rule::default())
    }

    /// One that gives leases only to some.
    pub(crate) fn with(rule: Rule) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let settings = LeaseSettings {
            total: 999,
            per_origin: 999,
            demand: false,
            per_address: 999,
            dial_burst: 999,
            ..LeaseSettings::default()
        };
        let (sender, outcomes) = mpsc::channel(4096);
        let _inside = runtime.enter();
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let dialer = Arc::new(TcpDialer::default());
        let pool = Pool::start(&settings, dialer, Arc::new(|_, _| Ok(())), sender, Timestamp::ZERO).unwrap();
        let desk = Desk::open(listener, pool.clone(), rule, Arc::new(Nobody)).unwrap();
        drop(_inside);
        Self { socket, pool, outcomes, desk, runtime, next: 1, _directory: directory }
    }

    /// Opens leases to an origin and waits until the origin has them.
    pub(crate) fn lease(&mut self, origin: &Origin, count: usize) {
        let (before, accepted) = (self.ready(), origin.accepted());
        let _inside = self.runtime.enter();
        for _ in 0..count {
            let intent = IntentId(self.next);
            self.next += 1;
            self.pool.lease(LeaseOrder {
                intent: Some((intent, ResourceId(intent.0))),
                reason: Reason::predicted(intent, 0.9),
                origin: format!("origin.example:{}", origin.address.port()).parse().unwrap(),
                addresses: vec![origin.address.ip()],
                until: Timestamp::from_origin(Duration::from_secs(20)),
            });
        }
        wait_for("leases are ready", || self.ready() == before + count && origin.accepted() == accepted + count);
    }

    pub(crate) fn ready(&self) -> usize {
        self.pool.leases().iter().filter(|lease| lease.state == LeaseState::Ready).count()
    }

    /// The outcomes that were reported so far.
    pub(crate) fn outcomes(&mut self) -> Vec<Outcome> {
        std::iter::from_fn(|| self.outcomes.try_recv().ok()).collect()
    }

    /// Waits until so many leases were taken; a program may run on before its supervisor has said so.
    pub(crate) fn wait_taken(&self, count: u64) -> LeaseCounters {
        wait_for("leases are taken", || self.pool.counters().taken >= count);
        let counters = self.pool.counters();
        assert_eq!(counters.taken, count);
        counters
    }

    /// Lets everybody connect to the control socket.
    pub(crate) fn open_to_all(&self) {
        let all: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(self.socket.parent().unwrap(), all.clone()).unwrap();
        std::fs::set_permissions(&self.socket, all).unwrap();
    }

    /// `prewarm exec` with this daemon.
    ///
    /// With a patience that a machine busy with other tests does not exhaust: what is asserted here is which
    /// connection a program gets, not how fast.
    pub(crate) fn exec<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Run {
        Run::patient(&self.socket, command)
    }
}

/// A program that runs beside the test and does not outlive it, whatever becomes of the test.
pub(crate) struct Beside(pub(crate) Child);

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended by itself, as most tests want it to.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// One `prewarm exec`.
pub(crate) struct Run {
    pub(crate) command: Command,
    report: tempfile::NamedTempFile,
}

impl Run {
    pub(crate) fn new<S: AsRef<OsStr>>(socket: &std::path::Path, command: impl IntoIterator<Item = S>) -> Self {
        Self::with(&[], socket, command)
    }

    /// One that waits for a daemon that is only slow.
    pub(crate) fn patient<S: AsRef<OsStr>>(socket: &std::path::Path, command: impl IntoIterator<Item = S>) -> Self {
        Self::with(&["--patience", "5000"], socket, command)
    }

    fn with<S: AsRef<OsStr>>(flags: &[&str], socket: &std::path::Path, command: impl IntoIterator<Item = S>) -> Self {
        let report = tempfile::NamedTempFile::new().unwrap();
        let mut exec = Command::new(env!("CARGO_BIN_EXE_cli-under-test"));
        exec.arg("exec")
            .args(flags)
            .arg("--socket")
            .arg(socket)
            .arg("--report")
            .arg(report.path())
            .arg("--")
            .args(command);
        Self { command: exec, report }
    }

    /// Runs it to its end.
    pub(crate) fn output(&mut self) -> Output {
        self.command.output().unwrap()
    }

    /// Starts it, with its output in a pipe.
    pub(crate) fn start(&mut self) -> Beside {
        Beside(self.command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Runs it to its end, which must be a good one; what it printed.
    pub(crate) fn stdout(&mut self) -> String {
        let output = self.output();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{:?}\n{out}\n{err}", self.command);
        out
    }

    /// What its supervisor counted, once it has ended; only what is not zero.
    pub(crate) fn report(&self) -> BTreeMap<String, u64> {
        let mut text = String::new();
        wait_for("the report is written", || {
            text.clear();
            std::fs::File::open(self.report.path()).unwrap().read_to_string(&mut text).unwrap();
            text.ends_with('\n')
        });
        let mut counts: BTreeMap<String, u64> = serde_json::from_str(&text).unwrap();
        counts.retain(|_, count| *count != 0);
        counts
    }
}

/// Counts as a map, for comparison with [`Run::report`].
pub(crate) fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Waits for a state.
pub(crate) fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    // Long enough for a machine that does something else meanwhile.
    for _ in 0..10_000 {
        if reached() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("waited in vain until {what}");
}
