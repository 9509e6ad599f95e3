//! What a relay costs, beside a plain forwarder in user space and no proxy at all, over veth pairs: run it with
//! `cargo test --release --test relay -- --ignored --nocapture`.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use prewarm_tests::{
    clock, needs,
    needs::Need,
    netns::{Addresses, Namespace, VethEnd, veth},
};
use prewarm_user::handover::relay::{Pipes, Upstream, relay};

use super::never;

const BULK: usize = 1 << 30;
const MESSAGES: usize = 4000;
const ROUNDS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Way {
    Direct,
    Plain,
    Relay,
}

/// Serves `proxy` in its namespace for as long as the process lives.
fn forward(proxy: &Namespace, way: Way, to: SocketAddr) -> SocketAddr {
    let listener = proxy.enter(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?)).unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let namespace = format!("/run/netns/{}", proxy.name());
    thread::spawn(move || {
        let file = std::fs::File::open(namespace).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pipes = Arc::new(Pipes::default());
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut origin = tokio::net::TcpStream::connect(to).await.unwrap();
                client.set_nodelay(true).unwrap();
                origin.set_nodelay(true).unwrap();
                let pipes = Arc::clone(&pipes);
                tokio::spawn(async move {
                    if matches!(way, Way::Plain) {
                        let size = 64 << 10;
                        drop(tokio::io::copy_bidirectional_with_sizes(&mut client, &mut origin, size, size).await);
                    } else {
                        let moved = std::sync::atomic::AtomicU64::new(0);
                        relay(client, Upstream::fresh(origin), never, &pipes, &moved).await;
                    }
                });
            }
        });
    });
    SocketAddr::from(([10, 83, 1, 1], port))
}

/// Gigabits a second down, and the median of a small message's round trip in microseconds.
fn measure(client: &Namespace, to: SocketAddr) -> (f64, f64) {
    let measured = client.enter(|| {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        let mut trips = Vec::with_capacity(MESSAGES);
        for _ in 0..MESSAGES {
            let begun = clock::now();
            stream.write_all(&[1; 64])?;
            stream.read_exact(&mut [0; 64])?;
            trips.push(clock::now() - begun);
        }
        trips.sort();
        stream.write_all(&[0; 64])?;
        let mut buffer = vec![0; 1 << 18];
        let (begun, mut left) = (clock::now(), BULK);
        while left > 0 {
            let read = stream.read(&mut buffer)?;
            anyhow::ensure!(read > 0, "the origin ended early");
            left -= read.min(left);
        }
        let took: Duration = clock::now() - begun;
        Ok((BULK as f64 * 8.0 / took.as_secs_f64() / 1e9, trips[MESSAGES / 2].as_secs_f64() * 1e6))
    });
    measured.unwrap()
}

/// Says every message again until one of zeros, then a gigabyte.
fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut message = [0; 64];
    while stream.read_exact(&mut message).is_ok() {
        if message[0] == 1 {
            stream.write_all(&message).unwrap();
            continue;
        }
        let piece = vec![7; 1 << 18];
        for _ in 0..BULK / piece.len() {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    }
}

#[test]
#[ignore = "it measures"]
fn what_a_relay_costs() {
    if needs::skip(&[Need::Root]) {
        return;
    }
    let [client, proxy, origin] = ["client", "proxy", "origin"].map(|role| Namespace::create(role).unwrap());
    let end = |namespace, interface, net: u8, host: u8| VethEnd {
        namespace,
        interface,
        addresses: Addresses {
            v4: Ipv4Addr::new(10, 83, net, host),
            v6: Ipv6Addr::new(0xfd83, net.into(), 0, 0, 0, 0, 0, host.into()),
        },
    };
    veth(&end(&client, "pw-c", 1, 2), &end(&proxy, "pw-p", 1, 1)).unwrap();
    veth(&end(&proxy, "pw-q", 2, 1), &end(&origin, "pw-o", 2, 2)).unwrap();
    // Direct is the same way through the same host, forwarded.
    proxy.sysctl("net/ipv4/ip_forward", "1").unwrap();
    client.ip(&["route", "add", "default", "via", "10.83.1.1"]).unwrap();
    origin.ip(&["route", "add", "default", "via", "10.83.2.1"]).unwrap();
    let listener = origin.enter(|| Ok(TcpListener::bind("10.83.2.2:0")?)).unwrap();
    let to = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    let ways = [
        (Way::Direct, to),
        (Way::Plain, forward(&proxy, Way::Plain, to)),
        (Way::Relay, forward(&proxy, Way::Relay, to)),
    ];
    let mut figures = ways.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((_, to), figures) in ways.iter().zip(&mut figures) {
            figures.push(measure(&client, *to));
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for ((way, _), figures) in ways.iter().zip(figures) {
        let (bulk, trip): (Vec<f64>, Vec<f64>) = figures.into_iter().unzip();
        println!("{way:?}: round trips {trip:.1?}, bulk {bulk:.1?}");
        println!("{way:?}: {:.1} Gbit/s, {:.1} us a round trip", median(bulk), median(trip));
    }
}
