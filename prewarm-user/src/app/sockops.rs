//! Switching the watch over the host's connections on, and saying why where it can't be.

use std::{fs::File, net::UdpSocket, os::fd::AsFd as _, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};

use crate::{
    config::CaptureSettings,
    kernel::{self, Dialled, Programs},
    lease::{Announce, netns_cookie},
};

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Told of each socket that the daemon connects.
    pub(super) announce: Announce,
    /// The namespaces, by cookie, whose programs are learnt from; the daemon's own is the first.
    pub(super) namespaces: Vec<u64>,
    /// Why nothing is watched.
    pub(super) reason: Option<String>,
}

impl Watch {
    /// Attaches the program where the settings want it. What can't be done is no error: everything else works without.
    pub(super) fn start(programs: &mut Programs, settings: &CaptureSettings) -> Self {
        if !settings.sockops {
            return Self { reason: Some("switched off (capture.sockops)".to_owned()), ..Self::default() };
        }
        match attach(programs, settings) {
            Ok((dialled, namespaces)) => {
                let dialled = Arc::new(dialled);
                let announce = Announce::new(move |socket| dialled.announce(socket));
                tracing::info!("the connections of this host are watched");
                Self { announce, namespaces, reason: None }
            }
            Err(error) => {
                tracing::warn!("the connections of this host are not watched: {error:#}");
                Self { reason: Some(format!("{error:#}")), ..Self::default() }
            }
        }
    }

    /// Whether connections are watched.
    pub(super) const fn is_on(&self) -> bool {
        self.reason.is_none()
    }
}

fn attach(programs: &mut Programs, settings: &CaptureSettings) -> anyhow::Result<(Dialled, Vec<u64>)> {
    let cgroup = kernel::cgroup_mount().context("cgroup v2 is not mounted")?;
    let mut namespaces = vec![own_cookie().context("the own network namespace")?];
    for name in &settings.namespaces {
        match cookie_of(name) {
            Ok(cookie) => namespaces.push(cookie),
            // It may not be there yet; the others are.
            Err(error) => tracing::warn!("capture.namespaces: {name}: {error:#}"),
        }
    }
    Ok((programs.watch_connections(&cgroup)?, namespaces))
}

fn own_cookie() -> anyhow::Result<u64> {
    // Bound to nothing and never used: any socket lives in the namespace of its maker.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    Ok(netns_cookie(socket.as_fd())?)
}

/// The cookie of another namespace, asked from inside, on a thread that ends with the question.
fn cookie_of(name: &str) -> anyhow::Result<u64> {
    let path = if name.contains('/') { PathBuf::from(name) } else { PathBuf::from("/run/netns").join(name) };
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let ask = move || {
        setns(file, CloneFlags::CLONE_NEWNET).context("setns")?;
        own_cookie()
    };
    let thread = std::thread::Builder::new().name("netns".to_owned()).spawn(ask)?;
    thread.join().map_err(|_panic| anyhow::anyhow!("the thread panicked"))?
}
