//! Whoever dies or hangs, the program's connections go on: supervisor, guardian, daemon; killed and stopped.

use std::{
    io::{BufRead, BufReader},
    os::fd::AsFd,
    path::Path,
    process::{ChildStdout, Command},
};

use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    bench::{Beside, Daemon, Origin, Run, wait_for},
    python,
};

/// More than fit into a pipe and its reader.
const LINES_IN_PIPE: usize = 1500;
const GUARDIAN: &str = "prewarm-guard";
const SUPERVISOR: &str = "prewarm-lease";

/// Guardian and supervisor of the `exec` that uses this control socket.
pub(crate) fn processes(socket: &Path) -> Vec<(String, Pid)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_str().unwrap_or_default().parse::<i32>() else { continue };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let name = String::from_utf8_lossy(&read("comm")).trim().to_owned();
        let line = String::from_utf8_lossy(&read("cmdline")).into_owned();
        if name.starts_with("prewarm-") && line.contains(socket.to_str().unwrap()) {
            found.push((name, Pid::from_raw(pid)));
        }
    }
    found
}

/// The state of a process, as `ps` has it.
fn state(pid: Pid) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text.rsplit(") ").next().unwrap().chars().take(1).collect()
}

fn pid_of(name: &str, socket: &Path) -> Option<Pid> {
    processes(socket).into_iter().find(|(found, _)| found == name).map(|(_, pid)| pid)
}

/// A program that connects without pause from four threads and prints a line for each connection.
struct Connecting {
    child: Beside,
    lines: BufReader<ChildStdout>,
    run: Run,
    failed: Vec<String>,
}

impl Connecting {
    fn start(mut run: Run) -> Self {
        let mut child = run.start();
        let pipe = child.0.stdout.take().unwrap();
        nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let lines = BufReader::with_capacity(128, pipe);
        Self { child, lines, run, failed: Vec::new() }
    }

    fn command(origin: &Origin) -> Vec<String> {
        let code = "
import threading
def connect():
    while True:
        s = socket.socket(FAMILY)
        inode = os.fstat(s.fileno()).st_ino
        try:
            s.connect(ADDRESS)
            s.getpeername()
            word = 'own' if os.fstat(s.fileno()).st_ino == inode else 'leased'
        except OSError as error: word = repr(error)
        os.write(1, (word + '\\n').encode())
        s.close()
for _ in range(4): threading.Thread(target=connect).start()";
        python(code, origin)
    }

    /// Waits until so many more connections were made; says how many of them were leased.
    fn more(&mut self, count: usize) -> usize {
        let mut leased = 0;
        for _ in 0..count {
            if self.lines.buffer().is_empty() {
                let mut fds = [PollFd::new(self.lines.get_ref().as_fd(), PollFlags::POLLIN)];
                assert_eq!(poll(&mut fds, 30_000_u16).unwrap(), 1, "a connect() hangs");
            }
            let mut line = String::new();
            self.lines.read_line(&mut line).unwrap();
            match line.trim() {
                "leased" => leased += 1,
                "own" => {}
                other => self.failed.push(other.to_owned()),
            }
        }
        leased
    }

    fn end(self, socket: &Path) -> Run {
        drop(self.child);
        wait_for("nobody is left", || processes(socket).is_empty());
        assert_eq!(self.failed, Vec::<String>::new());
        self.run
    }
}

/// A daemon that never runs out, so that calls are interrupted at every point of a replacement.
struct Plenty {
    child: Beside,
    directory: tempfile::TempDir,
}

impl Plenty {
    fn start(origin: &Origin) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let plenty = Self { child: Self::spawn(directory.path(), origin), directory };
        let socket = plenty.socket();
        wait_for("the daemon listens", || socket.exists());
        plenty
    }

    fn spawn(directory: &Path, origin: &Origin) -> Beside {
        let socket = directory.join("control.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lease-daemon"));
        Beside(command.arg(socket).arg(origin.address.to_string()).arg("16").spawn().unwrap())
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("control.sock")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.0.id().cast_signed()), signal).unwrap();
    }
}

#[test]
fn the_supervisor_is_killed_again_and_again() {
    let origin = Origin::start("127.0.0.1");
    let daemon = Plenty::start(&origin);
    let socket = daemon.socket();
    let mut program = Connecting::start(Run::patient(&socket, Connecting::command(&origin)));
    for round in 0..8 {
        // Each is killed at another point of its work.
        wait_for("leases are handed out", || program.more(10 + round) > 0);
        let supervisor = pid_of(SUPERVISOR, &socket);
        kill(supervisor.unwrap(), Signal::SIGKILL).unwrap();
        program.more(50);
        wait_for("there is another supervisor", || {
            let now = pid_of(SUPERVISOR, &socket);
            now.is_some() && now != supervisor
        });
    }
    let report = program.end(&socket).report();
    println!("{report:?}");
    assert_eq!(report["supervisors_started"], 9);
}

#[test]
fn the_supervisor_is_stopped_and_continued() {
    let origin = Origin::start("127.0.0.1");
    let daemon = Plenty::start(&origin);
    let socket = daemon.socket();
    let mut program = Connecting::start(Run::patient(&socket, Connecting::command(&origin)));
    program.more(50);
    for _ in 0..5 {
        wait_for("leases are handed out", || program.more(10) > 0);
        let supervisor = pid_of(SUPERVISOR, &socket).unwrap();
        kill(supervisor, Signal::SIGSTOP).unwrap();
        wait_for("it has stopped", || state(supervisor) == "T");
        // The pipe is full of lines from before.
        program.more(LINES_IN_PIPE);
        assert_eq!(program.more(100), 0, "connections go on, without leases");
        kill(supervisor, Signal::SIGCONT).unwrap();
        wait_for("leases are handed out again", || program.more(10) > 0);
    }
    let report = program.end(&socket).report();
    println!("{report:?}");
    assert_eq!(report["supervisors_stopped"], 5);
    assert!(report["guardian_let_go_on"] >= 500);
}

#[test]
fn the_guardian_is_killed_again_and_again() {
    let origin = Origin::start("127.0.0.1");
    let daemon = Plenty::start(&origin);
    let socket = daemon.socket();
    let mut program = Connecting::start(Run::patient(&socket, Connecting::command(&origin)));
    for _ in 0..20 {
        program.more(50);
        wait_for("guardian and supervisor are there", || processes(&socket).len() == 2);
        let guardian = pid_of(GUARDIAN, &socket);
        kill(guardian.unwrap(), Signal::SIGKILL).unwrap();
        // The supervisor has become guardian and has a supervisor of its own.
        wait_for("there are two again", || {
            let now = pid_of(GUARDIAN, &socket);
            now.is_some() && now != guardian && pid_of(SUPERVISOR, &socket).is_some()
        });
        wait_for("leases are handed out again", || program.more(10) > 0);
    }
    let report = program.end(&socket).report();
    println!("{report:?}");
    assert_eq!(report["guardians_lost"], 20);
}

#[test]
fn the_guardian_is_stopped() {
    let origin = Origin::start("127.0.0.1");
    let daemon = Plenty::start(&origin);
    let socket = daemon.socket();
    let mut program = Connecting::start(Run::patient(&socket, Connecting::command(&origin)));
    program.more(50);
    let guardian = pid_of(GUARDIAN, &socket).unwrap();
    kill(guardian, Signal::SIGSTOP).unwrap();
    program.more(LINES_IN_PIPE);
    wait_for("leases go on", || program.more(100) > 0);
    kill(guardian, Signal::SIGCONT).unwrap();
    wait_for("leases go on", || program.more(100) > 0);
    program.end(&socket);
}

#[test]
fn the_daemon_is_killed_and_comes_back() {
    let origin = Origin::start("127.0.0.1");
    let mut daemon = Plenty::start(&origin);
    let socket = daemon.socket();
    let mut program = Connecting::start(Run::new(&socket, Connecting::command(&origin)));
    wait_for("leases are handed out", || program.more(100) > 0);
    daemon.signal(Signal::SIGKILL);
    daemon.child.0.wait().unwrap();
    wait_for("connections go on without leases", || program.more(100) == 0);
    program.more(200);
    std::fs::remove_file(&socket).unwrap();
    daemon.child = Plenty::spawn(daemon.directory.path(), &origin);
    wait_for("leases are handed out again", || program.more(100) > 0);
    let report = program.end(&socket).report();
    assert!(report["daemon_absent"] > 100, "{report:?}");
    assert_eq!(report["supervisors_started"], 1, "no supervisor fell over it");
}

#[test]
fn the_daemon_is_stopped_and_continued() {
    let origin = Origin::start("127.0.0.1");
    let daemon = Plenty::start(&origin);
    let socket = daemon.socket();
    let mut program = Connecting::start(Run::new(&socket, Connecting::command(&origin)));
    wait_for("leases are handed out", || program.more(100) > 0);
    daemon.signal(Signal::SIGSTOP);
    wait_for("connections go on without leases", || program.more(100) == 0);
    daemon.signal(Signal::SIGCONT);
    wait_for("leases are handed out again", || program.more(100) > 0);
    let report = program.end(&socket).report();
    assert!(report["daemon_slow"] >= 1, "{report:?}");
    assert!(report["daemon_slow"] < 50, "a daemon that hangs costs a few calls, not all: {report:?}");
}

#[test]
fn a_program_killed_in_the_middle_of_connect_leaves_nothing() {
    let origin = Origin::start("127.0.0.1");
    let mut daemon = Daemon::start();
    daemon.lease(&origin, 64);
    for _ in 0..5 {
        let mut program = Connecting::start(daemon.exec(Connecting::command(&origin)));
        program.more(5);
        program.end(&daemon.socket);
    }
    // Every lease that was handed out is accounted for once the connections have ended.
    wait_for("no lease is in flight", || {
        let counters = daemon.pool.counters();
        counters.ready == counters.taken + counters.lost + counters.dead + daemon.ready() as u64
    });
}
