//! A steady beat of connections, each with one message back and forth, and what became of each: for what happens while the
//! daemon is killed, stopped or exchanged.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use super::exchange::{Exchange, PING};
use super::way::{Opener, Target, Way};
use crate::clock;

/// What hangs longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(8);

/// One connection. Times are of the clock that all processes share, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// When the program began to connect.
    pub began_ms: f64,
    /// When it had its connection, if it got one.
    pub connected_ms: Option<f64>,
    /// When it had its answer, or the failure.
    pub ended_ms: f64,
    /// The failure.
    pub error: Option<String>,
}

/// Connects so often a second, whatever becomes of those before, for so long.
///
/// # Errors
/// When a thread can't be started.
pub fn drum(way: &Way, target: &Target, rate: u32, period: Duration) -> Result<Vec<Beat>> {
    let begun = clock::now();
    let count = u32::try_from(period.as_millis())? * rate / 1000;
    thread::scope(|scope| {
        let mut running = Vec::new();
        for number in 0..count {
            clock::sleep_until(begun + Duration::from_secs(1) * number / rate);
            running.push(scope.spawn(|| beat(way.clone(), target)));
        }
        running.into_iter().map(|beat| beat.join().map_err(|_| anyhow!("a beat panicked"))).collect()
    })
}

fn beat(way: Way, target: &Target) -> Beat {
    let ms = || 1e3 * clock::now().as_secs_f64();
    let began_ms = ms();
    let mut connected_ms = None;
    let exchange = || -> Result<()> {
        let mut stream = Opener::new(way).open(target)?.stream;
        connected_ms = Some(ms());
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&Exchange::Ping.to_bytes())?;
        let mut message = [7; PING];
        stream.write_all(&message)?;
        Ok(stream.read_exact(&mut message)?)
    };
    let error = exchange().err().map(|error| format!("{error:#}"));
    Beat { began_ms, connected_ms, ended_ms: ms(), error }
}
