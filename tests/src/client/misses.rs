//! What a `connect()` costs that no lease waits for: the same process, now in one cgroup and now in another.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef, Socket, Type};
use std::time::Duration;

use crate::clock;

/// Connects in one cgroup before it is the other's turn.
const TURN: usize = 50;

/// Nanoseconds of a `connect()`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Misses {
    /// In the first cgroup, the median of the turns' medians.
    pub hooked_ns: f64,
    /// In the second.
    pub free_ns: f64,
    /// What the first costs more, the median over pairs of turns.
    pub added_ns: f64,
}

/// Connects by turns in the two cgroups, both to the same listener.
///
/// # Errors
/// When a cgroup can't be entered or a connection fails.
pub fn misses(hooked: &Path, free: &Path, target: SocketAddr, rounds: usize) -> Result<Misses> {
    let (mut hooked_ns, mut free_ns, mut added_ns) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // Whoever comes second finds warmer caches: by turns.
        let (with, without) = if round % 2 == 0 {
            let with = turn(hooked, target)?;
            (with, turn(free, target)?)
        } else {
            let without = turn(free, target)?;
            (turn(hooked, target)?, without)
        };
        hooked_ns.push(with);
        free_ns.push(without);
        added_ns.push(with - without);
    }
    Ok(Misses { hooked_ns: median(hooked_ns), free_ns: median(free_ns), added_ns: median(added_ns) })
}

fn turn(cgroup: &Path, target: SocketAddr) -> Result<f64> {
    let members = cgroup.join("cgroup.procs");
    let mut members = OpenOptions::new().write(true).open(&members).context("open a cgroup")?;
    members.write_all(b"0").context("enter a cgroup")?;
    let mut times = Vec::with_capacity(TURN);
    for _ in 0..TURN {
        // Which hooks apply is decided when the socket is made.
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        let begun = clock::now();
        socket.connect(&target.into())?;
        times.push((clock::now() - begun).as_nanos() as f64);
        // Reset instead of closed: no port stays behind.
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        drop(TcpStream::from(socket));
    }
    Ok(median(times))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
