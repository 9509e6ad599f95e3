//! One HTTP request of the plain client, with or without TLS 1.3, and how long its parts took.
//!
//! In: a way, a name, what to trust; out: milliseconds for the name, the connection and the first byte, each counted
//! from the end of the part before it.

use std::io::{Read as _, Write as _};
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::{Deserialize, Serialize};

use super::Stream;
use super::way::{Opener, Target};
use crate::clock;
use crate::scenario::Scheme;

/// What one request took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fetched {
    /// Asking for the name; nothing where only the proxy was given it.
    pub name_ms: Option<f64>,
    /// From the known address to the open connection.
    pub connect_ms: f64,
    /// From the known address to the first byte of the answer.
    pub ttfb_ms: f64,
    /// The answer's status.
    pub status: u16,
    /// What the far caching server says of itself.
    pub far_cache: Option<String>,
}

/// What to fetch.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// HTTP or HTTP over TLS.
    pub scheme: Scheme,
    /// Whom from.
    pub name: &'a str,
    /// What.
    pub path: &'a str,
    /// Whether the client asks for the name itself, also where a proxy would.
    pub ask: bool,
    /// The certificate authority to trust.
    pub authority: Option<&'a Path>,
}

/// Fetches once.
///
/// # Errors
/// When the name isn't known, the connection fails or the answer isn't HTTP.
pub fn fetch(opener: &mut Opener, request: &Request<'_>) -> Result<Fetched> {
    let begun = clock::now();
    let port = request.scheme.port();
    let address = if request.ask || !opener.way().takes_names() {
        let mut addresses =
            (request.name, port).to_socket_addrs().with_context(|| format!("ask for {}", request.name))?;
        Some(addresses.next().with_context(|| format!("{} has no address", request.name))?)
    } else {
        None
    };
    let known = clock::now();
    let target = match address {
        Some(address) if !opener.way().takes_names() => Target::Address(address),
        _ => Target::Name(request.name.to_owned(), port),
    };
    let opened = opener.open(&target)?;
    let waited_ms = 1e3 * opened.waited.as_secs_f64();
    let mut stream: Box<dyn Stream> = match request.scheme {
        Scheme::Http => Box::new(opened.stream),
        Scheme::Tls => Box::new(StreamOwned::new(session(request)?, opened.stream)),
    };
    write!(stream, "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", request.path, request.name)?;
    stream.flush()?;
    let mut first = [0; 1];
    stream.read_exact(&mut first).context("read the answer")?;
    let came = clock::now();
    let mut answer = first.to_vec();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, _) = answer.split_once("\r\n\r\n").context("an answer without end of head")?;
    ensure!(head.starts_with("HTTP/1."), "no HTTP answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer without status")?;
    let far_cache = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-cache").then(|| value.trim().to_owned())
    });
    Ok(Fetched {
        name_ms: address.map(|_| 1e3 * (known - begun).as_secs_f64()),
        connect_ms: waited_ms,
        ttfb_ms: 1e3 * (came - known).as_secs_f64(),
        status,
        far_cache,
    })
}

fn session(request: &Request<'_>) -> Result<ClientConnection> {
    let mut roots = RootCertStore::empty();
    let authority = request.authority.context("TLS needs an authority to trust")?;
    for certificate in CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(request.name.to_owned())?;
    Ok(ClientConnection::new(Arc::new(config), name)?)
}
