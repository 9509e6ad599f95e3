//! The harness keeps its own promises: the link is as long as it says, and nothing outlives its owner.
//!
//! Needs root; skipped with the reason otherwise.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prewarm_tests::clock;
use prewarm_tests::link::DelayedLink;
use prewarm_tests::needs::{self, skip};
use prewarm_tests::netns::{Namespace, sweep};
use prewarm_tests::service::Service;

/// Two namespaces, the link between them, addresses 10.77.9.1 and .2.
fn linked(round_trip: Duration) -> Result<(DelayedLink, Namespace, Namespace)> {
    let (near, far) = (Namespace::create("near")?, Namespace::create("far")?);
    let link = DelayedLink::join((&near, "wan"), (&far, "wan"), round_trip)?;
    near.ip(&["addr", "add", "10.77.9.1/30", "dev", "wan"])?;
    far.ip(&["addr", "add", "10.77.9.2/30", "dev", "wan"])?;
    Ok((link, near, far))
}

/// The median of handshakes with the far end.
fn median_handshake(near: &Namespace, far: &Namespace) -> Result<Duration> {
    let listener = far.enter(|| Ok(TcpListener::bind("10.77.9.2:7")?))?;
    let server: SocketAddr = listener.local_addr()?;
    let mut handshakes = near.enter(|| {
        (0..15)
            .map(|_| {
                let started = clock::now();
                TcpStream::connect(server)?;
                Ok(clock::now() - started)
            })
            .collect::<Result<Vec<_>>>()
    })?;
    handshakes.sort_unstable();
    Ok(handshakes[handshakes.len() / 2])
}

#[test]
fn a_round_trip_is_as_long_as_set_to_within_two_milliseconds() {
    if skip(needs::WORLD) {
        return;
    }
    let (link, near, far) = linked(Duration::from_millis(40)).unwrap();
    for set in [40, 10, 100].map(Duration::from_millis) {
        link.set_round_trip(set);
        let measured = median_handshake(&near, &far).unwrap();
        assert!(measured >= set, "{measured:?} is faster than the {set:?} that were set");
        assert!(measured < set + Duration::from_millis(2), "{measured:?} instead of {set:?}");
    }
    assert_eq!(link.dropped(), 0);
}

#[test]
fn a_stream_crosses_the_link_whole_and_in_order() {
    if skip(needs::WORLD) {
        return;
    }
    let (_link, near, far) = linked(Duration::from_millis(10)).unwrap();
    let listener = far.enter(|| Ok(TcpListener::bind("10.77.9.2:7")?)).unwrap();
    let server = listener.local_addr().unwrap();
    let sent: Vec<u8> = (0..4_000_000_u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            received
        });
        near.enter(|| Ok(TcpStream::connect(server)?.write_all(&sent)?)).unwrap();
        receiver.join().unwrap()
    });
    assert!(received == sent, "{} bytes of {} arrived, or others", received.len(), sent.len());
}

#[test]
fn commands_of_a_namespace_have_its_resolver_and_the_cgroup_mounts_of_the_host() {
    if skip(needs::WORLD) {
        return;
    }
    let mut namespace = Namespace::create("resolver").unwrap();
    namespace.set_resolver("10.77.9.9".parse().unwrap()).unwrap();
    let read = |file: &str| {
        let output = namespace.command("cat").arg(file).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(read("/etc/resolv.conf").starts_with("nameserver 10.77.9.9\n"));
    let cgroups = |mounts: &str| mounts.lines().filter(|line| line.contains(" cgroup")).count();
    let here = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert_eq!(cgroups(&read("/proc/self/mounts")), cgroups(&here));
    assert_ne!(std::fs::read_to_string("/etc/resolv.conf").unwrap(), read("/etc/resolv.conf"));
}

#[test]
fn a_panic_leaves_nothing() {
    if skip(needs::WORLD) {
        return;
    }
    let mut seen = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let directory = tempfile::TempDir::new().unwrap();
        let (_link, near, _far) = linked(Duration::from_millis(10)).unwrap();
        let mut command = near.command("sh");
        // A child in a session of its own: no signal to the group reaches it.
        command.args(["-c", "setsid sleep 1000 & echo $! > \"$0/pid\"; exec sleep 1000"]).arg(directory.path());
        let mut service = Service::start("sleep", command, directory.path()).unwrap();
        let stray = service
            .ready(|| std::fs::read_to_string(directory.path().join("pid")).ok()?.trim().parse::<i32>().ok())
            .unwrap();
        seen = Some((near.name().to_owned(), service.pid(), Pid::from_raw(stray)));
        panic!("as a failing test would");
    }));
    assert!(panicked.is_err());
    let (name, service, stray) = seen.unwrap();
    assert!(!Path::new("/run/netns").join(name).exists());
    for pid in [service, stray] {
        clock::wait_for("the process to be gone", Duration::from_secs(3), || Ok((!alive(pid)).then_some(()))).unwrap();
    }
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    if skip(needs::WORLD) {
        return;
    }
    // The owner of a leftover is a process that has ended: this one has.
    let mut owner = Command::new("true").spawn().unwrap();
    owner.wait().unwrap();
    let name = format!("pw-{}-0-leftover", owner.id());
    prewarm_tests::netns::ip(&["netns", "add", &name]).unwrap();
    let mut inside =
        Command::new("ip").args(["netns", "exec", &name, "sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
    let namespace = PathBuf::from("/run/netns").join(&name);
    clock::wait_for("the process to be inside", Duration::from_secs(3), || {
        let inode = |path: PathBuf| std::fs::metadata(path).ok().map(|file| std::os::unix::fs::MetadataExt::ino(&file));
        let here = inode(format!("/proc/{}/ns/net", inside.id()).into());
        Ok((here.is_some() && here == inode(namespace.clone())).then_some(()))
    })
    .unwrap();
    sweep().unwrap();
    assert!(!namespace.exists());
    let status = inside.wait().context("wait for the process that was inside").unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGKILL as i32));
}

fn alive(pid: Pid) -> bool {
    kill(pid, None).is_ok()
        // A zombie that nobody reaps (a container without an init) has ended all the same.
        && std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}
