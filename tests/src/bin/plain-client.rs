//! The plain client as a process of its own: `plain-client TASK --way WAY …`; see `prewarm_tests::client`.
//!
//! Exit codes: 0 done, 1 the task failed.

use std::io::{Write as _, stdout};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use prewarm_tests::client::{Opener, Request, Way, fetch};
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
    }
}

fn say(result: &impl serde::Serialize) -> Result<()> {
    writeln!(stdout(), "{}", serde_json::to_string(result)?).context("write to standard output")
}
