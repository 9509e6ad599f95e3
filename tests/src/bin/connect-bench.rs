//! How long getting a connection takes: `connect-bench ADDRESS:PORT COUNT PAUSE_US [SOCKET]` connects that often with a
//! blocking socket, or takes a lease from the daemon at SOCKET, and prints microseconds, and how many connections were
//! leased.

use std::{io::Write, net::SocketAddr, os::fd::AsFd, thread, time::Duration};

use hdrhistogram::Histogram;
use nix::{
    sys::stat::fstat,
    time::{ClockId, clock_gettime},
};
use prewarm_user::client::Client;
use socket2::{Domain, Socket, Type};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [destination, count, pause, socket @ ..] = &arguments[..] else {
        anyhow::bail!("connect-bench ADDRESS:PORT COUNT PAUSE_US [SOCKET]")
    };
    let destination: SocketAddr = destination.parse()?;
    let pause = Duration::from_micros(pause.parse()?);
    let client = socket.first().map(Client::new);
    let mut times = Histogram::<u64>::new(3)?;
    let mut leased = 0;
    for _ in 0..count.parse()? {
        let (time, got_lease) = match &client {
            Some(client) => take(client, destination)?,
            None => connect(destination)?,
        };
        times.record(u64::try_from(time.as_nanos())?)?;
        leased += u32::from(got_lease);
        thread::sleep(pause);
    }
    let us = |nanos: u64| nanos as f64 / 1000.0;
    let row = serde_json::json!({
        "p50": us(times.value_at_quantile(0.5)),
        "p90": us(times.value_at_quantile(0.9)),
        "p99": us(times.value_at_quantile(0.99)),
        "min": us(times.min()),
        "count": times.len(),
        "replaced": leased,
    });
    writeln!(std::io::stdout(), "{row}")?;
    Ok(())
}

/// Through the program's own `connect()`; a socket that is another afterwards was replaced by a lease.
fn connect(destination: SocketAddr) -> anyhow::Result<(Duration, bool)> {
    let socket = Socket::new(Domain::for_address(destination), Type::STREAM, None)?;
    let inode = fstat(socket.as_fd())?.st_ino;
    let begun = now()?;
    socket.connect(&destination.into())?;
    Ok((now()? - begun, fstat(socket.as_fd())?.st_ino != inode))
}

fn take(client: &Client, destination: SocketAddr) -> anyhow::Result<(Duration, bool)> {
    let begun = now()?;
    let stream = client.take(destination).map(prewarm_user::client::Lease::into_stream);
    Ok((now()? - begun, stream.is_some()))
}

fn now() -> nix::Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?))
}
