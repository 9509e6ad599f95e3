//! The daemon is killed, stopped, replaced by the next version while programs connect fifty times a second: none fails.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prewarm_user::client::{AsyncClient, Client};

use super::{
    bench::{Beside, Origin, wait_for},
    number,
};

/// Between two connections of a program.
const PAUSE: Duration = Duration::from_millis(20);

/// A daemon with enough leases, as a process of its own.
struct Plenty {
    child: Option<Beside>,
    directory: tempfile::TempDir,
    origin: SocketAddr,
}

impl Plenty {
    fn start(origin: &Origin) -> Self {
        Self::with(origin, "16")
    }

    fn with(origin: &Origin, leases: &str) -> Self {
        let mut plenty = Self { child: None, directory: tempfile::tempdir().unwrap(), origin: origin.address };
        plenty.restart(leases);
        plenty
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn restart(&mut self, leases: &str) {
        self.child = None;
        drop(std::fs::remove_file(self.socket()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_lease-daemon"));
        command.arg(self.socket()).arg(self.origin.to_string()).arg(leases);
        self.child = Some(Beside(command.spawn().unwrap()));
        let socket = self.socket();
        wait_for("the daemon listens", || socket.exists());
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill(Pid::from_raw(child.0.id().cast_signed()), signal).unwrap();
    }
}

#[derive(Default)]
struct Tally {
    leased: AtomicUsize,
    opened: AtomicUsize,
    done: AtomicBool,
}

impl Tally {
    fn count(&self, leased: bool) {
        (if leased { &self.leased } else { &self.opened }).fetch_add(1, Ordering::Relaxed);
    }

    fn more(&self, what: &str, counter: &AtomicUsize) {
        let before = counter.load(Ordering::Relaxed);
        wait_for(what, || counter.load(Ordering::Relaxed) >= before + 25);
    }
}

/// Connects and asks until it is told to end. A request that fails panics here.
fn program(socket: &Path, origin: SocketAddr, tally: &Tally) {
    let client = Client::new(socket);
    while !tally.done.load(Ordering::Relaxed) {
        let connection = client.connect(&origin.ip().to_string(), origin.port()).unwrap();
        tally.count(connection.is_leased());
        number(connection.stream);
        thread::sleep(PAUSE);
    }
}

fn asynchronous_program(socket: &Path, origin: SocketAddr, tally: &Tally) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = AsyncClient::new(socket);
        while !tally.done.load(Ordering::Relaxed) {
            let connection = client.connect(&origin.ip().to_string(), origin.port()).await.unwrap();
            tally.count(connection.is_leased());
            let stream = connection.stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            number(stream);
            tokio::time::sleep(PAUSE).await;
        }
    });
}

fn none_fails(program: fn(&Path, SocketAddr, &Tally)) {
    let origin = Origin::start("127.0.0.1");
    let mut daemon = Plenty::start(&origin);
    let (tally, socket) = (Tally::default(), daemon.socket());
    thread::scope(|scope| {
        let running = scope.spawn(|| program(&socket, origin.address, &tally));
        tally.more("leases are handed out", &tally.leased);
        daemon.signal(Signal::SIGKILL);
        tally.more("connections go on without a daemon", &tally.opened);
        daemon.restart("16");
        tally.more("the next daemon's leases are handed out", &tally.leased);
        daemon.signal(Signal::SIGSTOP);
        tally.more("connections go on beside a daemon that hangs", &tally.opened);
        daemon.signal(Signal::SIGCONT);
        tally.more("leases are handed out again", &tally.leased);
        // An upgrade: the next version takes the place of one that still runs.
        daemon.restart("16");
        tally.more("leases are handed out after the upgrade", &tally.leased);
        tally.done.store(true, Ordering::Relaxed);
        running.join().expect("no connection failed");
    });
}

#[test]
fn no_connection_of_a_client_fails() {
    none_fails(program);
}

#[test]
fn no_connection_of_an_asynchronous_client_fails() {
    none_fails(asynchronous_program);
}

#[test]
fn the_next_daemon_is_found_although_the_last_had_nothing() {
    let origin = Origin::start("127.0.0.1");
    let mut daemon = Plenty::with(&origin, "0");
    let client = Client::new(daemon.socket()).with_patience(super::PATIENT);
    for _ in 0..10 {
        assert!(client.take(origin.address).is_none());
    }
    daemon.restart("16");
    wait_for("a lease is handed out", || client.take(origin.address).is_some());
}
