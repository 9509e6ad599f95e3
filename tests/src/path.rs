//! The ways on which a lease reaches a program, and what the daemon has to be told for each.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;

/// Where the daemon's SOCKS5 listener is.
pub const SOCKS_PORT: u16 = 1080;
/// Where the daemon's listener for HTTP CONNECT is.
pub const CONNECT_PORT: u16 = 8118;

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Path {
    /// The program runs under `prewarm exec`.
    Exec,
    /// The kernel redirects the program's `connect()` to the daemon.
    Redirect,
    /// The program uses the daemon as a SOCKS5 proxy.
    Socks,
    /// The program uses the daemon as an HTTP proxy.
    Connect,
    /// The daemon takes over connections that its host forwards.
    Tproxy,
    /// The program asks for a lease and gets its descriptor.
    Fd,
}

/// Where the daemon is, as its settings need to know it.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Its address toward clients.
    pub address: IpAddr,
    /// The interface toward clients.
    pub interface: &'a str,
    /// The networks of its clients.
    pub clients: &'a [&'a str],
    /// The cgroup whose programs are redirected.
    pub cgroup: Option<&'a std::path::Path>,
}

impl Path {
    /// All.
    pub const ALL: [Self; 6] = [Self::Exec, Self::Redirect, Self::Socks, Self::Connect, Self::Tproxy, Self::Fd];

    /// As it stands in the name of a case.
    pub fn label(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Redirect => "redirect",
            Self::Socks => "socks",
            Self::Connect => "connect",
            Self::Tproxy => "tproxy",
            Self::Fd => "fd",
        }
    }

    /// Whether the daemon is on the program's own host; else on the gateway before it.
    pub fn is_local(self) -> bool {
        matches!(self, Self::Exec | Self::Redirect | Self::Fd)
    }

    /// Whether bytes pass through the daemon.
    pub fn is_relayed(self) -> bool {
        !matches!(self, Self::Exec | Self::Fd)
    }

    /// Where the daemon listens for this way.
    pub fn listener(self, site: &Site<'_>) -> Option<SocketAddr> {
        let port = match self {
            Self::Socks => SOCKS_PORT,
            Self::Connect => CONNECT_PORT,
            Self::Exec | Self::Redirect | Self::Tproxy | Self::Fd => return None,
        };
        Some(SocketAddr::new(site.address, port))
    }

    /// The part of the daemon's configuration that opens this way.
    pub fn settings(self, site: &Site<'_>) -> String {
        let quoted = |words: &[&str]| words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let mut text = String::new();
        // Writing to a string can't fail.
        let _written = match (self, self.listener(site)) {
            (Self::Exec | Self::Fd, _) => Ok(()),
            (Self::Redirect, _) => {
                let cgroup = site.cgroup.map(|path| path.display().to_string()).unwrap_or_default();
                write!(text, "\n[handover.redirect]\nenabled = true\ncgroups = [{cgroup:?}]\n")
            }
            (Self::Tproxy, _) => write!(text, "\n[handover.tproxy]\ninterfaces = [{:?}]\n", site.interface),
            (Self::Socks | Self::Connect, listen) => {
                let listen = listen.map(|address| address.to_string()).unwrap_or_default();
                let clients = quoted(site.clients);
                write!(text, "\n[handover.{}]\nlisten = [{listen:?}]\nclients = [{clients}]\n", self.label())
            }
        };
        text
    }
}
