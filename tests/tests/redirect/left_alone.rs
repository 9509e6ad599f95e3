//! Who is left alone: everybody whose connection would not be what it asked for, or who is not meant.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use prewarm_tests::netns::Namespace;

use super::bench::{Daemon, Origin, PLAIN, V4, V6, addresses, assert_direct, assert_leased, one, python, run, world};
use super::cgroup::Cgroup;

/// The client goes direct, the kernel says why, and the lease is still there for who may have it.
fn is_left_alone(address: &'static str, settings: &'static str, code: &'static str, reason: &'static str) {
    world(|cgroup| {
        let origin = Origin::start(address)?;
        let mut daemon = Daemon::start(cgroup, settings)?;
        daemon.lease(&origin, 1)?;
        assert_direct(&one(Some(cgroup), &origin, code)?, 1);
        let stats = daemon.stats()?;
        ensure!(stats["kernel"][reason] == 1 && stats["kernel"]["claimed"] == 0 && stats["ready"] == 1, "{stats}");
        Ok(())
    });
}

#[test]
fn a_socket_with_a_source_address() {
    is_left_alone(V4, "", "s = sock(); s.bind((HOST, 0)); s.connect((HOST, PORT)); report(s)", "bound");
    is_left_alone(V6, "", "s = sock(); s.bind((HOST, 0)); s.connect((HOST, PORT)); report(s)", "bound");
}

#[test]
fn a_socket_with_a_port() {
    is_left_alone(V4, "", "s = sock(); s.bind(('0.0.0.0', 0)); s.connect((HOST, PORT)); report(s)", "bound");
}

#[test]
fn a_socket_with_a_mark() {
    is_left_alone(
        V4,
        "",
        "s = sock(); s.setsockopt(socket.SOL_SOCKET, 36, 7); s.connect((HOST, PORT)); report(s)",
        "bound",
    );
}

#[test]
fn a_socket_bound_to_a_device() {
    is_left_alone(
        V4,
        "",
        "s = sock(); s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo'); s.connect((HOST, PORT)); report(s)",
        "bound",
    );
}

#[test]
fn an_excluded_user_and_one_who_is_not_named() {
    let other = "os.setuid(4711)\ns = sock(); s.connect((HOST, PORT)); report(s)";
    is_left_alone(V4, "exclude_uids = [4711]", other, "user");
    is_left_alone(V4, "uids = [0]", other, "user");
    is_left_alone(V4, "uids = [0, 4711]\nexclude_uids = [4711]", other, "user");
}

#[test]
fn a_named_user_takes_part() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "uids = [4711]")?;
        daemon.lease(&origin, 1)?;
        assert_direct(&one(Some(cgroup), &origin, PLAIN)?, 1);
        let code = "os.setuid(4711)\ns = sock(); s.connect((HOST, PORT)); report(s)";
        assert_leased(&one(Some(cgroup), &origin, code)?, &origin, 1);
        Ok(())
    });
}

#[test]
fn an_excluded_cgroup_and_those_below() {
    world(|cgroup| {
        let out = cgroup.child("out")?;
        let below: Cgroup = out.child("below")?;
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, &format!("redirect.exclude_cgroups = [{:?}]", out.path()))?;
        daemon.lease(&origin, 1)?;
        assert_direct(&one(Some(&out), &origin, PLAIN)?, 1);
        assert_direct(&one(Some(&below), &origin, PLAIN)?, 1);
        let stats = daemon.stats()?;
        ensure!(stats["kernel"]["cgroup"] == 2 && stats["ready"] == 1, "{stats}");
        assert_leased(&one(Some(cgroup), &origin, PLAIN)?, &origin, 1);
        Ok(())
    });
}

#[test]
fn whoever_is_in_another_cgroup() {
    world(|cgroup| {
        let other = Cgroup::create("other")?;
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 1)?;
        assert_direct(&one(Some(&other), &origin, PLAIN)?, 1);
        assert_direct(&one(None, &origin, PLAIN)?, 1);
        let stats = daemon.stats()?;
        ensure!(stats["kernel"]["claimed"] == 0 && stats["ready"] == 1, "{stats}");
        Ok(())
    });
}

#[test]
fn the_daemon_itself() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        fs::write(cgroup.path().join("cgroup.procs"), daemon.pid().to_string())?;
        daemon.lease(&origin, 1)?;
        // Dialled while there is one on offer: its own hand must not take it.
        daemon.lease(&origin, 3)?;
        let stats = daemon.stats()?;
        ensure!(stats["kernel"]["own"] == 3 && stats["kernel"]["claimed"] == 0 && stats["ready"] == 4, "{stats}");
        Ok(())
    });
}

/// Where its number is another one than the kernel programs see, the daemon is known by its cgroup.
#[test]
fn the_daemon_itself_in_a_container() {
    world(|cgroup| {
        let container = cgroup.child("container")?;
        let origin = Origin::start(V4)?;
        let contained = |cgroup: Option<&Cgroup>| {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_redirect-daemon")]);
            if let Some(cgroup) = cgroup {
                cgroup.enter(&mut command);
            }
            command
        };
        let mut daemon = Daemon::start_as(contained(Some(&container)), cgroup, "")?;
        daemon.lease(&origin, 1)?;
        daemon.lease(&origin, 3)?;
        let stats = daemon.stats()?;
        ensure!(stats["kernel"]["cgroup"] == 3 && stats["kernel"]["claimed"] == 0 && stats["ready"] == 4, "{stats}");
        assert_leased(&one(Some(cgroup), &origin, PLAIN)?, &origin, 4);
        Ok(())
    });
}

#[test]
fn udp() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 1)?;
        let code = "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect((HOST, PORT))
print(json.dumps(s.getpeername()))";
        let peer = run(&mut python(Some(cgroup), &origin, code))?;
        ensure!(peer == [serde_json::json!([V4, origin.address.port()])], "{peer:?}");
        ensure!(daemon.stats()?["ready"] == 1);
        Ok(())
    });
}

#[test]
fn namespaces_take_part_when_they_are_named() {
    world(|cgroup| {
        let (named, other) = (Namespace::create("named")?, Namespace::create("other")?);
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, &format!("redirect.namespaces = [\"/run/netns/{}\"]", named.name()))?;
        daemon.lease(&origin, 2)?;
        let inside = |namespace: &Namespace, code: &str| {
            let mut command = namespace.command("python3");
            let plain = python(None, &origin, code);
            command.args(plain.get_args());
            run(cgroup.enter(&mut command))
        };
        // In neither is there a route to the origin: only a lease leads there.
        let reports = inside(&named, PLAIN)?;
        assert_leased(&reports[0], &origin, 2);
        ensure!(inside(&other, PLAIN).is_err(), "a namespace that was not named got a lease");
        let stats = daemon.stats()?;
        ensure!(stats["kernel"]["namespace"] == 1 && stats["ready"] == 1, "{stats}");
        // What has the same addresses elsewhere is somebody else.
        other.enter(addresses)?;
        let there = other.enter(|| Origin::start_at(origin.address))?;
        ensure!(inside(&other, PLAIN)?[0]["number"] == 0 && there.accepted() == 1);
        Ok(())
    });
}

#[test]
fn a_namespace_that_goes_is_let_go() -> Result<()> {
    world(|cgroup| {
        let named = Namespace::create("goes")?;
        let name = named.name().to_owned();
        let _daemon = Daemon::start(cgroup, &format!("redirect.namespaces = [\"/run/netns/{name}\"]"))?;
        let (ours, theirs) = ("pw-goes0", "pw-goes1");
        prewarm_tests::veth::ip(&format!("link add {ours} type veth peer name {theirs} netns {name}"))?;
        drop(named);
        // The pair ends with the namespace at its other end, which ends with the last socket in it.
        prewarm_tests::clock::wait_for("the namespace to end", std::time::Duration::from_secs(15), || {
            Ok(nix::net::if_::if_nametoindex(ours).is_err().then_some(()))
        })
    });
    Ok(())
}
