//! The connect redirect with real programs: each test can tell a leased connection from one that the program opened
//! itself, because the origin says over which of its connections it was spoken to.

#[path = "redirect/bench.rs"]
mod bench;
#[path = "redirect/cgroup.rs"]
mod cgroup;
#[path = "redirect/faults.rs"]
mod faults;
#[path = "redirect/left_alone.rs"]
mod left_alone;
#[path = "redirect/strangers.rs"]
mod strangers;
#[path = "redirect/whole.rs"]
mod whole;

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result, ensure};
use bench::{Daemon, Origin, PLAIN, V4, V6, assert_direct, assert_leased, lines, one, python, run, world};
use cgroup::Cgroup;

/// Runs a client once with a lease and once without.
fn gets_the_lease(address: &'static str, code: &'static str) {
    world(|cgroup| {
        let origin = Origin::start(address)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 1)?;
        assert_leased(&one(Some(cgroup), &origin, code)?, &origin, 1);
        ensure!(origin.accepted() == 1, "the program opened none itself");
        assert_direct(&one(Some(cgroup), &origin, code)?, 1);
        daemon.wait("/open", 0)?;
        let stats = daemon.stats()?;
        ensure!(stats["taken"] == 1 && stats["kernel"]["claimed"] == 1, "{stats}");
        ensure!(stats["late"] == 0 && stats["refused"] == 0 && stats["failed"] == 0, "{stats}");
        ensure!(stats["leases"]["taken"] == 1, "{stats}");
        Ok(())
    });
}

#[test]
fn a_blocking_connect_gets_the_lease() {
    gets_the_lease(V4, PLAIN);
}

#[test]
fn ipv6_gets_the_lease() {
    gets_the_lease(V6, PLAIN);
}

#[test]
fn a_socket_for_ipv6_alone_gets_the_lease() {
    gets_the_lease(
        V6,
        "s = sock(); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); s.connect((HOST, PORT)); report(s)",
    );
}

#[test]
fn a_mapped_address_gets_the_lease() {
    gets_the_lease(
        V4,
        "s = sock(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.connect(('::ffff:' + HOST, PORT)); report(s)",
    );
}

#[test]
fn a_non_blocking_connect_gets_the_lease() {
    for address in [V4, V6] {
        gets_the_lease(
            address,
            "import select
s = sock(); s.setblocking(False)
assert s.connect_ex((HOST, PORT)) in (0, errno.EINPROGRESS)
poll = select.epoll(); poll.register(s, select.EPOLLOUT); assert poll.poll(5)
assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
s.settimeout(10); report(s)",
        );
    }
}

#[test]
fn data_in_the_connect_gets_the_lease() {
    for address in [V4, V6] {
        gets_the_lease(
            address,
            "s = sock(); s.settimeout(None); MSG_FASTOPEN = 0x20000000
assert s.sendto(b'first\\n', MSG_FASTOPEN, (HOST, PORT)) == 6
hear(s, 'first')
report(s)",
        );
    }
}

#[test]
fn a_deferred_connect_gets_the_lease() {
    gets_the_lease(
        V4,
        "TCP_FASTOPEN_CONNECT = 30
open('/proc/sys/net/ipv4/tcp_fastopen', 'w').write('5')
s = sock(); s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1); s.connect((HOST, PORT)); report(s)",
    );
}

#[test]
fn curl_gets_the_lease() {
    world(|cgroup| {
        for address in [V4, V6] {
            let (server, origin) = http(address)?;
            let mut daemon = Daemon::start(cgroup, "")?;
            daemon.order(&format!("lease {origin} 1"))?;
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--noproxy", "*", "-w", "\n%{remote_ip} %{remote_port} %{local_ip}", "-g"]);
            curl.arg(format!("http://{origin}/"));
            let output = cgroup.enter(&mut curl).output()?;
            let text = String::from_utf8(output.stdout)?;
            ensure!(output.status.success() && text.starts_with("warm"), "{text} {:?}", output.stderr);
            let mut words = text.lines().nth(1).context("what curl saw")?.split(' ');
            ensure!(words.next() == Some(address), "{text}");
            ensure!(words.next().map(str::to_owned) == Some(origin.port().to_string()), "{text}");
            daemon.wait("/taken", 1)?;
            drop(server);
        }
        Ok(())
    });
}

/// A server whose only answer is `warm`.
fn http(address: &str) -> Result<(std::thread::JoinHandle<()>, std::net::SocketAddr)> {
    use std::io::{Read as _, Write as _};
    let ip: std::net::IpAddr = address.parse()?;
    let listener = std::net::TcpListener::bind((ip, 0))?;
    let origin = listener.local_addr()?;
    let server = std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> std::io::Result<()> {
                if stream.read(&mut [0; 4096])? > 0 {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwarm")?;
                }
                Ok(())
            });
        }
    });
    Ok((server, origin))
}

#[test]
fn fifty_leases_go_to_fifty_of_two_hundred() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 50)?;
        let code = "
results, lock, gate = [], threading.Lock(), threading.Barrier(8)
def work():
    gate.wait()
    for _ in range(25):
        s = sock(); s.connect((HOST, PORT)); number, seen = ask(s)
        assert name(s.getpeername()) == [HOST, PORT] and name(s.getsockname()) == seen
        s.close()
        with lock: results.append(number)
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps(results))";
        let results = run(&mut python(Some(cgroup), &origin, code))?.pop().context("nothing")?;
        let numbers: Vec<u64> = serde_json::from_value(results)?;
        let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
        ensure!(numbers.len() == 200 && distinct.len() == 200, "every connection is somebody's own");
        ensure!(distinct.range(..50).count() == 50, "every lease was used");
        ensure!(origin.accepted() == 200, "150 were direct");
        daemon.wait("/open", 0)?;
        let stats = daemon.stats()?;
        ensure!(stats["taken"] == 50 && stats["kernel"]["claimed"] == 50, "{stats}");
        ensure!(stats["late"] == 0 && stats["failed"] == 0, "{stats}");
        Ok(())
    });
}

#[test]
fn more_leases_than_slots_are_all_used_in_turn() {
    world(|cgroup| {
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        // Those that found no slot stay with the pool.
        daemon.lease(&origin, 70)?;
        let code = "
for _ in range(64):
    s = sock(); s.connect((HOST, PORT)); print(ask(s)[0])";
        let numbers = run(&mut python(Some(cgroup), &origin, code))?;
        ensure!(numbers.iter().all(|number| number.as_u64().is_some_and(|number| number < 70)), "{numbers:?}");
        Ok(())
    });
}

#[test]
fn a_child_cgroup_takes_part() {
    world(|cgroup| {
        let child = cgroup.child("below")?;
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(cgroup, "")?;
        daemon.lease(&origin, 1)?;
        assert_leased(&one(Some(&child), &origin, PLAIN)?, &origin, 1);
        Ok(())
    });
}

#[test]
fn a_cgroup_made_anew_is_attached_again() {
    world(|parent| {
        let cgroup: Cgroup = parent.child("app")?;
        let origin = Origin::start(V4)?;
        let mut daemon = Daemon::start(&cgroup, "")?;
        daemon.lease(&origin, 2)?;
        assert_leased(&one(Some(&cgroup), &origin, PLAIN)?, &origin, 2);
        cgroup.make_anew()?;
        prewarm_tests::clock::wait_for("the programs to be back", std::time::Duration::from_secs(10), || {
            let report = one(Some(&cgroup), &origin, PLAIN)?;
            Ok((report["number"].as_u64() < Some(2)).then_some(()))
        })
    });
}

#[test]
fn output_of_a_failed_client_is_shown() {
    let output = Command::new("false").output().unwrap();
    assert!(lines(&output).is_err());
}
