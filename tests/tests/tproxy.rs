//! Forwarded connections, taken over when a lease waits: a client, a gateway and an origin in namespaces. The origin
//! says by whose address it was reached: the client's, or for a lease the gateway's.

#[path = "tproxy/bench.rs"]
mod bench;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use nix::sys::signal::Signal;
use prewarm_tests::clock;

use self::bench::{CLIENT4, GATEWAY4, GATEWAY6, MARK, ORIGIN4, ORIGIN6, TABLE, WAIT, World, world};

#[test]
fn a_lease_is_given_and_everything_else_is_left_alone() {
    let Some(mut world) = world() else { return };
    for (origin, gateway) in [(ORIGIN4, GATEWAY4), (ORIGIN6, GATEWAY6)] {
        let (to, other) = (world.serve(origin), world.serve(origin));
        let daemon = world.daemon();
        let before = daemon.stats();
        daemon.lease(to, 1);
        // Another port of the same host has no lease.
        let direct = world.visit(other);
        assert_eq!(direct, world.client_like(origin));
        assert_eq!(world.visit(to), gateway.to_string(), "the lease");
        assert_eq!(world.visit(to), world.client_like(origin), "there was only one");
        let after = world.daemon().stats();
        assert_eq!(after.claimed - before.claimed, 1, "{after:?}");
        assert_eq!((after.taken - before.taken, after.missed, after.failed, after.refused), (1, 0, 0, 0), "{after:?}");
        assert!(after.packets > before.packets, "{after:?}");
    }
}

/// Large in both directions, with a half-close: through the kernel's assignment of every packet.
#[test]
fn every_byte_arrives() {
    let Some(mut world) = world() else { return };
    for origin in [ORIGIN4, ORIGIN6] {
        let to = world.serve_echo(origin);
        world.daemon().lease(to, 3);
        for size in [0, 1, 3_000_000_usize] {
            let sent: Vec<u8> = (0..size).map(|index| (index * 31 % 251) as u8).collect();
            let heard = world
                .client
                .enter(|| {
                    let mut stream = TcpStream::connect(to)?;
                    stream.set_read_timeout(Some(WAIT))?;
                    assert_eq!(stream.peer_addr()?, to, "the client sees whom it asked for");
                    let mut from = stream.try_clone()?;
                    let reader = std::thread::spawn(move || {
                        let mut heard = Vec::new();
                        from.read_to_end(&mut heard).map(|_| heard)
                    });
                    stream.write_all(&sent)?;
                    stream.shutdown(Shutdown::Write)?;
                    Ok(reader.join().unwrap()?)
                })
                .unwrap();
            assert!(heard == sent, "{} of {size} bytes", heard.len());
        }
        let stats = world.daemon().stats();
        assert_eq!((stats.taken % 3, stats.failed), (0, 0), "{stats:?}");
    }
}

/// A first packet that comes again claims nothing more, and what nobody fetches comes back.
#[test]
fn a_flood_of_first_packets_burns_nothing() {
    let Some(mut world) = world() else { return };
    let to = world.serve(ORIGIN4);
    world.daemon().lease(to, 4);
    let SocketAddr::V4(v4) = to else { panic!("an IPv4 address") };
    for _ in 0..5 {
        world.syn([10, 81, 1, 77].into(), 4000, v4);
    }
    let daemon = world.daemon();
    clock::wait_for("one claim", WAIT, || Ok((daemon.stats().claimed == 1).then_some(()))).unwrap();
    // Strangers who never come back, each from elsewhere.
    for port in 5000..5100 {
        world.syn([10, 81, 1, 78].into(), port, v4);
    }
    let daemon = world.daemon();
    let flooded = clock::wait_for("all claims", WAIT, || {
        let stats = daemon.stats();
        Ok((stats.claimed >= 4).then_some(stats))
    });
    assert_eq!(flooded.unwrap().claimed, 4, "no more than there were");
    let returned = clock::wait_for("the leases are back", WAIT, || {
        let stats = daemon.stats();
        Ok((stats.returned == 4).then_some(stats))
    });
    assert_eq!(returned.unwrap().ready, 4);
    assert_eq!(world.visit(to), GATEWAY4.to_string(), "and are given again");
}

#[test]
fn what_was_set_up_goes_with_the_daemon() {
    let Some(mut world) = world() else { return };
    let to = world.serve(ORIGIN4);
    assert!(world.is_steered());
    world.stop_daemon();
    assert!(!world.is_steered(), "{}", world.rules());
    assert_eq!(world.visit(to), CLIENT4.to_string());

    // A daemon that was killed leaves rules without effect, which the next one takes for its own.
    world.start_daemon(TABLE).unwrap();
    world.daemon().lease(to, 1);
    world.kill_daemon();
    assert!(world.is_steered());
    assert_eq!(world.visit(to), CLIENT4.to_string(), "its program went with it");
    world.start_daemon(TABLE).unwrap();
    world.daemon().lease(to, 1);
    assert_eq!(world.visit(to), GATEWAY4.to_string());
    world.stop_daemon();
    assert!(!world.is_steered(), "{}", world.rules());
}

#[test]
fn what_is_somebody_elses_is_not_touched() {
    let Some(mut world) = world() else { return };
    world.stop_daemon();
    let table = (TABLE + 1).to_string();
    let foreign = ["route", "add", "192.0.2.0/24", "dev", "lo", "table", &table];
    world.gateway.ip(&foreign).unwrap();
    let refused = world.start_daemon(TABLE + 1).unwrap_err();
    assert!(refused.contains("table 178 is in use") && refused.contains("hint"), "{refused}");
    assert!(!world.is_steered(), "{}", world.rules());
    let mark = format!("{MARK:#x}");
    world.gateway.ip(&["rule", "add", "fwmark", &mark, "table", "200", "pref", "500"]).unwrap();
    let refused = world.start_daemon(TABLE).unwrap_err();
    assert!(refused.contains("rule for the mark"), "{refused}");
    assert!(world.rules().contains("lookup 200"), "{}", world.rules());
}

/// A daemon that hangs takes nothing over any more, and one that goes on does.
#[test]
fn a_stopped_daemon_is_passed_by() {
    let Some(mut world) = world() else { return };
    let to = world.serve(ORIGIN4);
    world.daemon().lease(to, 1);
    world.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(2200));
    assert_eq!(world.visit(to), CLIENT4.to_string());
    world.signal(Signal::SIGCONT);
    let daemon = world.daemon();
    assert!(daemon.stats().stale >= 1);
    clock::wait_for("the lease", WAIT, || Ok((world.visit(to) == GATEWAY4.to_string()).then_some(()))).unwrap();
}

/// Whoever comes to the listener without a claim is reset.
#[test]
fn the_listener_serves_nobody_else() {
    let Some(world) = world() else { return };
    let ports = world.listening();
    assert!(!ports.is_empty());
    for port in ports {
        let outcome = world.gateway.enter(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(WAIT))?;
            Ok(stream.read(&mut [0])?)
        });
        assert!(outcome.unwrap_err().to_string().contains("reset"));
        let from_outside =
            world.client.enter(|| Ok(TcpStream::connect_timeout(&(GATEWAY4, port).into(), Duration::from_secs(1))?));
        assert!(from_outside.is_err(), "nobody reaches it from outside");
    }
    let _world: World = world;
}
