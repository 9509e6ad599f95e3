//! The daemon itself: `prewarm run --redirect=CGROUP` with an origin that it keeps leases to.

use std::{
    net::UdpSocket,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prewarm_tests::{clock, daemon::binary};
use serde_json::Value;

use super::bench::{Daemon, Origin, PLAIN, V4, assert_direct, assert_leased, one, skipped, world};
use super::cgroup::Cgroup;

/// Answers every question for an A record with the origin's address, and every other with nothing.
fn resolver() -> Result<u16> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let port = socket.local_addr()?.port();
    thread::spawn(move || -> std::io::Result<()> {
        let mut question = [0; 512];
        loop {
            let (_, asker) = socket.recv_from(&mut question)?;
            // The name ends with a zero; type and class follow.
            let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap_or(0) + 5;
            let is_a = question[end - 4..end - 2] == [0, 1];
            let mut answer = question[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 192, 0, 2, 1]);
            }
            socket.send_to(&answer, asker)?;
        }
    });
    Ok(port)
}

struct Running {
    child: Child,
    socket: std::path::PathBuf,
}

impl Running {
    fn start(cgroup: &Path, origin: &Origin, folder: &Path) -> Result<Self> {
        let (socket, configuration) = (folder.join("control.sock"), folder.join("prewarm.toml"));
        let port = origin.address.port();
        let servers = resolver()?;
        std::fs::write(
            &configuration,
            format!(
                "[resolve]\nservers = [\"127.0.0.1:{servers}\"]\n[policy.guard]\nports = [{port}]\n\
                 allow_networks = [\"192.0.2.0/24\"]\n[policy]\nassume_ports = [{port}]\n\
                 [lease]\ndemand = false\nkeep = [{{ origin = \"api.example.org:{port}\", count = 2 }}]\n"
            ),
        )?;
        let child = Command::new(binary().context("no binary")?)
            .args(["run", "--iface", "lo", "--no-ingress", "--config"])
            .arg(&configuration)
            .arg("--socket")
            .arg(&socket)
            .arg("--state")
            .arg(folder.join("state"))
            .arg(format!("--redirect={}", cgroup.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self { child, socket })
    }

    fn ready(&self) -> Result<usize> {
        let output = Command::new(binary().context("no binary")?)
            .args(["leases", "--json", "--socket"])
            .arg(&self.socket)
            .output()?;
        let leases: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let rows = leases["leases"].as_array().into_iter().flatten();
        Ok(rows.filter(|lease| lease["state"] == "ready").count())
    }

    fn end(mut self) -> Result<(Option<i32>, String)> {
        use std::io::Read as _;
        let mut log = String::new();
        self.child.stderr.take().context("stderr")?.read_to_string(&mut log)?;
        Ok((self.child.wait()?.code(), log))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn has_no_binary() -> bool {
    let missing = binary().is_none();
    if missing {
        skipped("PREWARM_BIN is not set");
    }
    missing
}

#[test]
fn the_daemon_redirects_and_stops_in_order() {
    if has_no_binary() {
        return;
    }
    world(|cgroup: &Cgroup| {
        let (origin, folder) = (Origin::start(V4)?, tempfile::tempdir()?);
        let daemon = Running::start(cgroup.path(), &origin, folder.path())?;
        clock::wait_for("two leases", Duration::from_secs(20), || Ok((daemon.ready()? >= 2).then_some(())))?;
        assert_leased(&one(Some(cgroup), &origin, PLAIN)?, &origin, 2);
        kill(Pid::from_raw(daemon.child.id().cast_signed()), Signal::SIGTERM)?;
        let (code, log) = daemon.end()?;
        ensure!(code == Some(0) && log.contains("redirected to leases: 1"), "{code:?}: {log}");
        assert_direct(&one(Some(cgroup), &origin, PLAIN)?, 1);
        Ok(())
    });
}

#[test]
fn a_cgroup_that_is_not_there_is_an_error() {
    if has_no_binary() {
        return;
    }
    world(|cgroup: &Cgroup| {
        let (origin, folder) = (Origin::start(V4)?, tempfile::tempdir()?);
        let (code, log) = Running::start(&cgroup.path().join("nowhere"), &origin, folder.path())?.end()?;
        ensure!(code == Some(2) && log.contains("nowhere"), "{code:?}: {log}");
        Ok(())
    });
}

/// Where loopback leads nowhere, a redirected program would wait in vain: the daemon says so instead.
#[test]
fn a_loopback_that_leads_nowhere_is_an_error() {
    world(|cgroup: &Cgroup| {
        prewarm_tests::veth::ip("link set lo down")?;
        ensure!(Daemon::start(cgroup, "").is_err());
        Ok(())
    });
}
