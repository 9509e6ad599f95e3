//! How the plain client gets a connection, and how long it waited for it.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use prewarm_user::client::Client;

use crate::clock;

/// How long opening a connection may take, unless said otherwise.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer of a proxy to CONNECT is longer.
const LONGEST_HEAD: usize = 4096;

/// A way to a connection, as written on a command line: `direct`, `socks=ADDRESS:PORT`, `connect=ADDRESS:PORT`,
/// `fd=SOCKET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// `connect()`; `prewarm exec`, the redirect and the gateway act on that without the program's doing.
    Direct,
    /// A SOCKS5 proxy.
    Socks(SocketAddr),
    /// An HTTP proxy, by CONNECT.
    Connect(SocketAddr),
    /// The daemon's control socket is asked for a lease; `connect()` where it has none.
    Fd(PathBuf),
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(SocketAddr),
    /// A name, which only a proxy can be given.
    Name(String, u16),
}

/// A connection.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub stream: TcpStream,
    /// How long the program waited for it.
    pub waited: Duration,
}

/// A way in use: a client that asks for leases keeps its line to the daemon.
#[derive(Debug)]
pub struct Opener {
    way: Way,
    leases: Option<Client>,
    patience: Duration,
}

impl Opener {
    /// Nothing is opened yet.
    pub fn new(way: Way) -> Self {
        let leases = match &way {
            Way::Fd(socket) => Some(Client::new(socket)),
            Way::Direct | Way::Socks(_) | Way::Connect(_) => None,
        };
        Self { way, leases, patience: PATIENCE }
    }

    /// The same, with another limit on how long opening a connection may take.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The way.
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When nobody answers or a proxy refuses. An [`std::io::Error`] is its root cause where the kernel refused.
    pub fn open(&mut self, target: &Target) -> Result<Opened> {
        let begun = clock::now();
        let stream = match (&self.way, &self.leases) {
            (Way::Socks(proxy), _) => socks(self.connected(*proxy)?, target)?,
            (Way::Connect(proxy), _) => connect(self.connected(*proxy)?, target)?,
            (Way::Fd(_), Some(leases)) => {
                let address = target.address()?;
                leases.connect(&address.ip().to_string(), address.port())?.stream
            }
            (Way::Direct | Way::Fd(_), _) => TcpStream::connect_timeout(&target.address()?, self.patience)?,
        };
        let waited = clock::now() - begun;
        stream.set_nodelay(true)?;
        Ok(Opened { stream, waited })
    }

    /// A connection to a proxy.
    fn connected(&self, proxy: SocketAddr) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&proxy, self.patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        Ok(stream)
    }
}

impl Way {
    /// Whether the name can be left to a proxy.
    pub fn takes_names(&self) -> bool {
        matches!(self, Self::Socks(_) | Self::Connect(_))
    }
}

/// RFC 1928 without authentication, one step after the other, as curl does it.
fn socks(mut stream: TcpStream, target: &Target) -> Result<TcpStream> {
    stream.write_all(&[5, 1, 0])?;
    let mut method = [0; 2];
    stream.read_exact(&mut method)?;
    ensure!(method == [5, 0], "the SOCKS proxy answers {method:?} to the greeting");
    let mut request = vec![5, 1, 0];
    match target {
        Target::Address(SocketAddr::V4(address)) => {
            request.push(1);
            request.extend(address.ip().octets());
        }
        Target::Address(SocketAddr::V6(address)) => {
            request.push(4);
            request.extend(address.ip().octets());
        }
        Target::Name(name, _) => {
            request.extend([3, u8::try_from(name.len())?]);
            request.extend(name.bytes());
        }
    }
    request.extend(target.port().to_be_bytes());
    stream.write_all(&request)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    ensure!(head[1] == 0, "the SOCKS proxy refuses: {}", head[1]);
    let rest = match head[3] {
        1 => 4,
        4 => 16,
        other => bail!("the SOCKS proxy answers with an address of type {other}"),
    };
    stream.read_exact(&mut vec![0; rest + 2])?;
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// RFC 9110, 9.3.6. The head is read byte by byte: what follows it belongs to the origin.
fn connect(mut stream: TcpStream, target: &Target) -> Result<TcpStream> {
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < LONGEST_HEAD, "the proxy's answer to CONNECT has no end");
        let mut byte = [0];
        stream.read_exact(&mut byte).context("read the proxy's answer")?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "the proxy refuses: {}", head.lines().next().unwrap_or_default());
    stream.set_read_timeout(None)?;
    Ok(stream)
}

impl Target {
    fn address(&self) -> Result<SocketAddr> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Name(name, _) => bail!("{name} is no address"),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Name(name, port) => write!(formatter, "{name}:{port}"),
        }
    }
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (name, port) = text.rsplit_once(':').with_context(|| format!("{text} has no port"))?;
        let port = port.parse().with_context(|| format!("the port of {text}"))?;
        Ok(name.parse::<IpAddr>().map_or_else(
            |_| Self::Name(name.to_owned(), port),
            |address| Self::Address(SocketAddr::new(address, port)),
        ))
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => formatter.write_str("direct"),
            Self::Socks(proxy) => write!(formatter, "socks={proxy}"),
            Self::Connect(proxy) => write!(formatter, "connect={proxy}"),
            Self::Fd(socket) => write!(formatter, "fd={}", socket.display()),
        }
    }
}

impl FromStr for Way {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (way, argument) = text.split_once('=').unwrap_or((text, ""));
        Ok(match way {
            "direct" => Self::Direct,
            "socks" => Self::Socks(argument.parse()?),
            "connect" => Self::Connect(argument.parse()?),
            "fd" => Self::Fd(argument.into()),
            other => bail!("{other} is none of: direct, socks=, connect=, fd="),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Target, Way};

    #[test]
    fn ways_and_targets_read_as_they_are_written() {
        for text in ["direct", "socks=10.0.0.1:1080", "connect=[fd00::1]:8118", "fd=/run/prewarm/control.sock"] {
            assert_eq!(text.parse::<Way>().unwrap().to_string(), text);
        }
        for text in ["198.51.100.7:80", "[2001:db8::7]:443", "www.example:80"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert!("telnet".parse::<Way>().is_err());
        assert!("www.example".parse::<Target>().is_err());
    }
}
