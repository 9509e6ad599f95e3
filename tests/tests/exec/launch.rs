//! The program keeps its process: exit codes, signals, pipes, and nothing left behind.

use std::{io::Read, os::unix::process::ExitStatusExt, path::Path, process::Command};

use super::{
    bench::{Daemon, Origin, Run, wait_for},
    faults::processes,
};

#[test]
fn exit_codes_are_the_programs_own() {
    let daemon = Daemon::start();
    for code in [0, 1, 7, 77] {
        assert_eq!(daemon.exec(["sh", "-c", &format!("exit {code}")]).output().status.code(), Some(code));
    }
    assert_eq!(daemon.exec(["sh", "-c", "kill -TERM $$"]).output().status.signal(), Some(15));
}

#[test]
fn a_program_that_is_not_there_is_127_and_one_that_can_not_run_is_126() {
    let daemon = Daemon::start();
    let missing = daemon.exec(["/no/such/program"]).output();
    assert_eq!(missing.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("not found"));
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(daemon.exec([file.path()]).output().status.code(), Some(126));
    assert_eq!(Command::new(env!("CARGO_BIN_EXE_cli-under-test")).arg("exec").output().unwrap().status.code(), Some(2));
}

#[test]
fn the_program_is_the_process_that_was_started() {
    let daemon = Daemon::start();
    let mut run =
        daemon.exec(["sh", "-c", "echo $$ $PPID; ps -o pid= --ppid $$ | wc -l; cat /proc/$$/wchan >/dev/null"]);
    let mut child = run.start();
    let pid = child.0.id();
    let text = std::io::read_to_string(child.0.stdout.take().unwrap()).unwrap();
    let mut words = text.split_whitespace();
    assert_eq!(words.next(), Some(pid.to_string().as_str()));
    assert_eq!(words.next(), Some(std::process::id().to_string().as_str()));
    // `ps` and `wc` are children of the shell, nobody else is.
    assert!(words.next().unwrap().parse::<u32>().unwrap() <= 2, "{text}");
}

#[test]
fn signals_and_descriptors_are_as_a_shell_leaves_them() {
    let daemon = Daemon::start();
    let script = "grep -E '^Sig(Ign|Blk)' /proc/self/status; ls /proc/self/fd | wc -l";
    let plain = Command::new("sh").args(["-c", script]).output().unwrap().stdout;
    assert_eq!(daemon.exec(["sh", "-c", script]).stdout().as_bytes(), plain);
}

#[test]
fn a_pipe_ends_when_the_program_ends() {
    let daemon = Daemon::start();
    // The background child keeps the filter, and so the guardian, alive after the program has gone.
    let mut run = daemon.exec(["sh", "-c", "(exec >&- 2>&-; sleep 30) & echo $!"]);
    let mut child = run.start();
    let text = std::io::read_to_string(child.0.stdout.take().unwrap()).unwrap();
    child.0.wait().unwrap();
    wait_for("guardian and supervisor stay for the child", || processes(&daemon.socket).len() == 2);
    let sleeper = nix::unistd::Pid::from_raw(text.trim().parse().unwrap());
    nix::sys::signal::kill(sleeper, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("nobody is left", || processes(&daemon.socket).is_empty());
}

#[test]
fn a_terminals_signals_reach_the_program_only() {
    let daemon = Daemon::start();
    let mut run = daemon.exec(["sh", "-c", "trap 'exit 5' INT; echo ready; while :; do sleep 0.01; done"]);
    let mut child = run.start();
    child.0.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let program = child.0.id().cast_signed();
    wait_for("guardian and supervisor are there", || processes(&daemon.socket).len() == 2);
    for (name, pid) in processes(&daemon.socket) {
        let session = nix::unistd::getsid(Some(pid)).unwrap();
        assert_ne!(session, nix::unistd::getsid(None).unwrap(), "{name} has a session of its own");
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }
    assert_eq!(processes(&daemon.socket).len(), 2, "a polite signal does not take a live program's guardian away");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(program), nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(5));
    wait_for("nobody is left", || processes(&daemon.socket).is_empty());
}

#[test]
fn without_a_daemon_the_program_runs_and_one_line_says_so() {
    let origin = Origin::start("127.0.0.1");
    let output = Run::new(Path::new("/nowhere/control.sock"), ["curl", "-sS", &origin.url()]).output();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"0\n");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("no daemon at /nowhere/control.sock"), "{text}");
    let quiet = Command::new(env!("CARGO_BIN_EXE_cli-under-test"))
        .args(["exec", "--quiet", "--socket", "/nowhere/control.sock", "--", "true"])
        .output()
        .unwrap();
    assert!(quiet.stderr.is_empty());
}

#[test]
fn under_another_supervisor_the_program_runs_untouched() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    let mut run = daemon.exec([
        env!("CARGO_BIN_EXE_cli-under-test"),
        "exec",
        "--socket",
        daemon.socket.to_str().unwrap(),
        "--",
        "curl",
        "-sS",
        &origin.url(),
    ]);
    let output = run.output();
    assert_eq!(output.stdout, b"0\n", "the outer supervisor hands out the lease");
    assert!(String::from_utf8_lossy(&output.stderr).contains("running without leases"));
}

#[test]
fn an_unprivileged_user_gets_leases_too() {
    let (mut daemon, origin) = (Daemon::start(), Origin::start("127.0.0.1"));
    daemon.lease(&origin, 1);
    daemon.open_to_all();
    let program = daemon.socket.with_file_name("exec");
    std::fs::copy(env!("CARGO_BIN_EXE_cli-under-test"), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .args(["exec", "--patience", "5000", "--socket"])
        .arg(&daemon.socket)
        .args(["--", "curl", "-sS", &origin.url()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(origin.accepted(), 1);
    daemon.wait_taken(1);
}
