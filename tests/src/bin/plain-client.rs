//! The plain client as a process of its own: `plain-client TASK --way WAY …`; see `prewarm_tests::client`.
//!
//! Exit codes: 0 done, 1 the task failed.

use std::io::{Write as _, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use prewarm_tests::client::drum::drum;
use prewarm_tests::client::forward::forward;
use prewarm_tests::client::misses::misses;
use prewarm_tests::client::requests::{Counterpart, requests};
use prewarm_tests::client::{Opener, Request, Target, Way, fetch, load};
use prewarm_tests::scenario::Scheme;

/// One task over one way.
#[derive(Debug, Parser)]
enum Task {
    /// One HTTP request
    Fetch {
        #[arg(long)]
        way: Way,
        /// Ask for the name also where the proxy would
        #[arg(long)]
        ask: bool,
        /// The certificate authority to trust
        #[arg(long)]
        authority: Option<PathBuf>,
        /// http:// or https://
        url: String,
    },
    /// Opens connections one after the other
    Connects {
        #[arg(long)]
        way: Way,
        #[arg(long)]
        count: usize,
        #[arg(long, value_name = "MICROSECONDS")]
        pause: u64,
        target: Target,
    },
    /// Sends 64 bytes back and forth over one connection
    Pings {
        #[arg(long)]
        way: Way,
        #[arg(long)]
        count: usize,
        target: Target,
    },
    /// Moves bulk in each direction
    Bulk {
        #[arg(long)]
        way: Way,
        #[arg(long, value_name = "MILLISECONDS")]
        period: u64,
        target: Target,
    },
    /// Transfers of random size, checked by hash
    Transfers {
        #[arg(long)]
        way: Way,
        #[arg(long)]
        count: u32,
        #[arg(long)]
        seed: u32,
        #[arg(long, default_value_t = 8)]
        parallel: u32,
        target: Target,
    },
    /// Connects at a steady rate, with one message back and forth
    Drum {
        #[arg(long)]
        way: Way,
        #[arg(long)]
        rate: u32,
        #[arg(long, value_name = "MILLISECONDS")]
        period: u64,
        target: Target,
    },
    /// Makes requests to origins of every kind (NAME=COUNT*SPEECH@TARGET)
    Requests {
        #[arg(long)]
        way: Way,
        #[arg(long, value_name = "MILLISECONDS")]
        pause: u64,
        counterparts: Vec<Counterpart>,
    },
    /// What a connect() costs in one cgroup and in another
    Misses {
        #[arg(long)]
        hooked: PathBuf,
        #[arg(long)]
        free: PathBuf,
        #[arg(long)]
        rounds: usize,
        target: SocketAddr,
    },
    /// Forwards connections, as anybody would
    Forward {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        to: SocketAddr,
    },
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Fetch { way, ask, authority, url } => {
            let (scheme, rest) = url.split_once("://").context("no URL")?;
            let scheme = Scheme::ALL.into_iter().find(|known| known.url() == scheme).context("an unknown scheme")?;
            let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let request = Request { scheme, name, path, ask, authority: authority.as_deref() };
            say(&fetch(&mut Opener::new(way), &request)?)
        }
        Task::Connects { way, count, pause, target } => {
            say(&load::connects(way, &target, count, Duration::from_micros(pause))?)
        }
        Task::Pings { way, count, target } => say(&load::pings(way, &target, count)?),
        Task::Bulk { way, period, target } => say(&load::bulk(way, &target, Duration::from_millis(period))?),
        Task::Transfers { way, count, seed, parallel, target } => {
            say(&load::transfers(&way, &target, count, seed, parallel)?)
        }
        Task::Drum { way, rate, period, target } => say(&drum(&way, &target, rate, Duration::from_millis(period))?),
        Task::Requests { way, pause, counterparts } => {
            say(&requests(&way, &counterparts, Duration::from_millis(pause))?)
        }
        Task::Misses { hooked, free, rounds, target } => say(&misses(&hooked, &free, target, rounds)?),
        Task::Forward { listen, to } => forward(listen, to),
    }
}

fn say(result: &impl serde::Serialize) -> Result<()> {
    writeln!(stdout(), "{}", serde_json::to_string(result)?).context("write to standard output")
}
