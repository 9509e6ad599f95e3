//! The daemon's side of a hand-over: answers questions for leases on one connection of the control socket.
//!
//! Comes in: requests. Goes out: replies with leases, and to the pool what became of each. Never here: a lease that
//! nobody accounts for: what was granted and not reported when the connection ends is lost, and said so.

use std::{collections::HashMap, io, os::fd::AsFd};

use tokio::net::UnixStream;

use super::{
    lines::Lines,
    protocol::{Ask, Fault, Given, Granted, Reply, Request, Settled, Taken, VERSION, Want},
};
use crate::lease::{Fate, LeaseId, Pool, Take, Taker};

/// What one connection was granted and has not reported on.
#[derive(Debug)]
pub struct Grants {
    pool: Pool,
    open: HashMap<u64, LeaseId>,
}

impl Grants {
    /// Nothing was granted yet.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool, open: HashMap::new() }
    }

    /// Handles one request of [`super::protocol`], and says whether it was given a lease.
    ///
    /// # Errors
    /// When the other end has gone.
    pub async fn handle(&mut self, lines: &mut Lines, request: &Request) -> io::Result<bool> {
        if request.v != VERSION {
            let error = Fault { code: "version".into(), message: format!("this daemon speaks version {VERSION}") };
            let reply = Reply { v: VERSION, id: request.id, ok: None, error: Some(error) };
            return lines.send(&serde_json::to_vec(&reply)?, None).await.map(|()| false);
        }
        match &request.request {
            Ask::Take(want) => self.take(lines, request.id, want).await,
            Ask::Hints {} => {
                let given = Given { hints: true, ..Given::default() };
                let reply = Reply { v: VERSION, id: request.id, ok: Some(given), error: None };
                lines.send(&serde_json::to_vec(&reply)?, Some(self.pool.hints().file())).await?;
                Ok(false)
            }
            Ask::Passed { destination } => {
                self.pool.passed(*destination);
                Ok(false)
            }
            Ask::Taken(taken) => {
                self.settle(lines, request.id, taken);
                Ok(false)
            }
        }
    }

    async fn take(&mut self, lines: &Lines, id: u64, want: &Want) -> io::Result<bool> {
        let reply = |given| Reply { v: VERSION, id, ok: Some(given), error: None };
        match self.pool.take(want.destination, &Taker { netns: want.netns_cookie, ..Taker::default() }) {
            Take::Miss { late } => {
                lines.send(&serde_json::to_vec(&reply(Given { late, ..Given::default() }))?, None).await?;
                Ok(false)
            }
            Take::Lease(taken) => {
                // A number that is used twice would leave the first lease without a report.
                if let Some(lost) = self.open.insert(id, taken.id) {
                    self.pool.settle(lost, Fate::Lost);
                }
                let granted = Granted {
                    rtt_us: u64::try_from(taken.rtt.as_micros()).unwrap_or(u64::MAX),
                    origin: taken.origin.to_string(),
                };
                let line = serde_json::to_vec(&reply(Given { lease: Some(granted), ..Given::default() }))?;
                // Our copy of the descriptor closes here: from now on the connection is the program's alone.
                lines.send(&line, Some(taken.fd.as_fd())).await?;
                Ok(true)
            }
        }
    }

    fn settle(&mut self, lines: &mut Lines, id: u64, taken: &Taken) {
        let fd = if taken.result == Settled::Unfit { lines.claim() } else { None };
        let Some(lease) = self.open.remove(&id) else { return };
        let fate = match (taken.result, fd) {
            (Settled::Used, _) => Fate::Used,
            (Settled::Unfit, Some(fd)) => Fate::Unfit(fd),
            (Settled::Unfit, None) | (Settled::Failed, _) => Fate::Lost,
        };
        self.pool.settle(lease, fate);
    }
}

impl Drop for Grants {
    fn drop(&mut self) {
        for (_, lease) in self.open.drain() {
            self.pool.settle(lease, Fate::Lost);
        }
    }
}

/// Serves one connection that asks for leases and nothing else, until it ends.
///
/// # Errors
/// When the connection fails, or says something that is not in the protocol.
pub async fn serve_take(stream: UnixStream, pool: Pool) -> io::Result<()> {
    let mut lines = Lines::new(stream);
    let mut grants = Grants::new(pool);
    while let Some(line) = lines.next().await? {
        let request: Request = serde_json::from_slice(&line)?;
        grants.handle(&mut lines, &request).await?;
    }
    Ok(())
}
