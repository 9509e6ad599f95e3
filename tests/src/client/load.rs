//! What the plain client does with connections: opens them, sends messages back and forth, moves bulk, and transfers
//! that are checked.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::exchange::{CHUNK, Content, Exchange, Order, PING, Wrong, transfer};
use super::way::{Opener, Target, Way};
use crate::clock;

/// What the first of each kind take is not counted: caches, lines that are opened once.
const WARM_UP: usize = 10;
/// The largest transfer, in each direction; sizes are spread evenly over the powers of two up to it.
const LARGEST: u64 = 2 << 20;

/// Microseconds that something took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Half took at most this.
    pub us_p50: f64,
    /// Nine of ten took at most this.
    pub us_p90: f64,
    /// How many.
    pub count: u64,
}

/// How fast bulk was moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// From the origin.
    pub down_gbit_per_second: f64,
    /// To the origin, until it had all.
    pub up_gbit_per_second: f64,
}

/// How transfers ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transfers {
    /// All that was sent came, in both directions as far as this end can tell.
    pub right: u64,
    /// Other bytes came than were sent.
    pub wrong: u64,
    /// The connection failed or broke.
    pub failed: u64,
    /// Bytes that were moved.
    pub bytes: u64,
    /// The first complaints.
    pub complaints: Vec<String>,
}

/// Opens connections one after the other and says what a program waited for each.
///
/// # Errors
/// When one fails.
pub fn connects(way: Way, target: &Target, count: usize, pause: Duration) -> Result<Times> {
    let mut opener = Opener::new(way);
    measured(count, || {
        let opened = opener.open(target)?;
        drop(opened.stream);
        clock::pause(pause);
        Ok(opened.waited)
    })
}

/// Sends messages back and forth over one connection.
///
/// # Errors
/// When the connection fails.
pub fn pings(way: Way, target: &Target, count: usize) -> Result<Times> {
    let mut stream = Opener::new(way).open(target)?.stream;
    stream.write_all(&Exchange::Ping.to_bytes())?;
    let mut message = [7; PING];
    measured(count, || {
        let begun = clock::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        Ok(clock::now() - begun)
    })
}

/// Moves bulk for so long in each direction.
///
/// # Errors
/// When a connection fails.
pub fn bulk(way: Way, target: &Target, period: Duration) -> Result<Speed> {
    let mut opener = Opener::new(way);
    let mut chunk = vec![0; CHUNK];
    let gbit = |bytes: u64, took: Duration| bytes as f64 * 8.0 / 1e9 / took.as_secs_f64();

    let mut stream = opener.open(target)?.stream;
    stream.write_all(&Exchange::Download.to_bytes())?;
    stream.read_exact(&mut chunk)?;
    let (begun, mut bytes) = (clock::now(), 0);
    while clock::now() - begun < period {
        let length = stream.read(&mut chunk)?;
        ensure!(length > 0, "the download ended");
        bytes += length as u64;
    }
    let down = gbit(bytes, clock::now() - begun);
    drop(stream);

    let mut stream = opener.open(target)?.stream;
    stream.write_all(&Exchange::Upload.to_bytes())?;
    stream.write_all(&chunk)?;
    let (begun, mut bytes) = (clock::now(), 0);
    while clock::now() - begun < period {
        stream.write_all(&chunk)?;
        bytes += chunk.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0]).context("the origin doesn't say that it has all")?;
    let up = gbit(bytes, clock::now() - begun);
    Ok(Speed { down_gbit_per_second: down, up_gbit_per_second: up })
}

/// Transfers of random sizes with half-close in each order, several at a time, each checked at both ends.
///
/// # Errors
/// When a thread panics; what goes wrong with a transfer is counted.
pub fn transfers(way: &Way, target: &Target, count: u32, seed: u32, parallel: u32) -> Result<Transfers> {
    let next = AtomicU32::new(0);
    let work = || {
        let mut opener = Opener::new(way.clone());
        let mut sum = Transfers::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return sum;
            }
            let (up, down) = sizes(seed.wrapping_add(number));
            match one_transfer(&mut opener, target, up, down, seed.wrapping_add(number), Order::of(number)) {
                Ok(()) => {
                    sum.right += 1;
                    sum.bytes += up + down;
                }
                Err(error) => {
                    if error.is::<Wrong>() {
                        sum.wrong += 1
                    } else {
                        sum.failed += 1
                    };
                    sum.complaints
                        .push(format!("transfer {number} ({up} up, {down} down, {:?}): {error:#}", Order::of(number)));
                }
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..parallel).map(|_| scope.spawn(work)).collect();
        let mut sum = Transfers::default();
        for thread in threads {
            let part = thread.join().map_err(|_| anyhow!("a transfer panicked"))?;
            sum.right += part.right;
            sum.wrong += part.wrong;
            sum.failed += part.failed;
            sum.bytes += part.bytes;
            sum.complaints.extend(part.complaints);
        }
        sum.complaints.truncate(10);
        Ok(sum)
    })
}

fn one_transfer(opener: &mut Opener, target: &Target, up: u64, down: u64, seed: u32, order: Order) -> Result<()> {
    let mut stream = opener.open(target)?.stream;
    // Nothing takes so long but what hangs.
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(&Exchange::Transfer { up, down, seed, order }.to_bytes())?;
    let sends_first = match order {
        Order::Together => None,
        Order::ClientFirst => Some(true),
        Order::OriginFirst => Some(false),
    };
    transfer(&stream, Content::new(seed, 0, up), Content::new(seed, 1, down), sends_first)
}

/// Bytes in each direction: nothing at all, a byte, a page and one byte less must all come up.
fn sizes(seed: u32) -> (u64, u64) {
    let size = |side| {
        let mut bytes = [0; 16];
        let mut words = &mut bytes[..];
        // Writing 16 bytes into 16 doesn't fail.
        let _hash = Content::new(seed, side, 16).send(&mut words);
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|place| bytes[at + place]));
        let ceiling = 1 << (word(0) % u64::from(LARGEST.ilog2() + 1));
        word(8) % (ceiling + 1)
    };
    (size(2), size(3))
}

/// Does something so often, and a few times more before it counts.
fn measured(count: usize, mut once: impl FnMut() -> Result<Duration>) -> Result<Times> {
    let mut times = Histogram::<u64>::new(3)?;
    for number in 0..count + WARM_UP {
        let took = once()?;
        if number >= WARM_UP {
            times.record(u64::try_from(took.as_nanos())?)?;
        }
    }
    let us = |part| times.value_at_quantile(part) as f64 / 1e3;
    Ok(Times { us_p50: us(0.5), us_p90: us(0.9), count: times.len() })
}
