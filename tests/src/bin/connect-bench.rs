//! How long `connect()` takes: `connect-bench ADDRESS:PORT COUNT PAUSE_US` connects that often with a blocking socket
//! and prints microseconds, and how many of the sockets were replaced.

use std::{io::Write, net::SocketAddr, os::fd::AsFd, thread, time::Duration};

use hdrhistogram::Histogram;
use nix::{
    sys::stat::fstat,
    time::{ClockId, clock_gettime},
};
use socket2::{Domain, Socket, Type};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [destination, count, pause] = &arguments[..] else {
        anyhow::bail!("connect-bench ADDRESS:PORT COUNT PAUSE_US")
    };
    let destination: SocketAddr = destination.parse()?;
    let pause = Duration::from_micros(pause.parse()?);
    let mut times = Histogram::<u64>::new(3)?;
    let mut replaced = 0;
    for _ in 0..count.parse()? {
        let socket = Socket::new(Domain::for_address(destination), Type::STREAM, None)?;
        let inode = fstat(socket.as_fd())?.st_ino;
        let begun = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        socket.connect(&destination.into())?;
        let ended = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        times.record(u64::try_from((ended - begun).as_nanos())?)?;
        replaced += u32::from(fstat(socket.as_fd())?.st_ino != inode);
        drop(socket);
        thread::sleep(pause);
    }
    let us = |nanos: u64| nanos as f64 / 1000.0;
    let row = serde_json::json!({
        "p50": us(times.value_at_quantile(0.5)),
        "p90": us(times.value_at_quantile(0.9)),
        "p99": us(times.value_at_quantile(0.99)),
        "min": us(times.min()),
        "count": times.len(),
        "replaced": replaced,
    });
    writeln!(std::io::stdout(), "{row}")?;
    Ok(())
}
