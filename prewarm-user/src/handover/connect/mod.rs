//! HTTP CONNECT (RFC 9110, 9.3.6): a tunnel to an authority.
//!
//! Comes in: a client's connection. Goes out: a relay to whom it names. Never here: any other method, a request's
//! content, or a connection that lives on after a refusal.

mod head;

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use self::head::Refusal;
use super::{
    reach::{Reach, ReachError},
    relay::Client,
    way::Way,
};
use crate::resolve::{ResolveError, Resolver};

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client that was refused may go on talking, so that it hears why.
const LINGER: Duration = Duration::from_secs(1);
/// Whatever is said about it, the tunnel begins behind the empty line.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Serves one client.
pub async fn serve<R: Resolver>(mut stream: TcpStream, client: SocketAddr, reach: &Reach<R>, way: &Way) {
    let heard = timeout(PATIENCE, head::hear(&mut stream)).await;
    let (target, said) = match heard {
        Ok(Ok(heard)) => heard,
        Ok(Err(refusal)) => {
            way.refused();
            if let Some((status, text)) = refusal.status() {
                drop(refuse(stream, status, text).await);
            }
            return;
        }
        Err(_elapsed) => {
            way.refused();
            drop(refuse(stream, "408 Request Timeout", "the request took too long").await);
            return;
        }
    };
    match reach.connect(client.ip(), target, way).await {
        Ok(reached) => {
            if stream.write_all(ESTABLISHED).await.is_ok() {
                reach.carry(Client::with(stream, said), reached, way).await;
            }
        }
        Err(error) => {
            tracing::debug!(%client, %error, "no connection for a CONNECT client");
            drop(refuse(stream, status_of(&error), &error.to_string()).await);
        }
    }
}

/// Says why not, and closes in order: a close with bytes unread would take the answer along.
async fn refuse(mut stream: TcpStream, status: &str, text: &str) -> io::Result<()> {
    let allow = if status.starts_with("405") { "Allow: CONNECT\r\n" } else { "" };
    let answer = format!(
        "HTTP/1.1 {status}\r\n{allow}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\nprewarm: {text}\n",
        "prewarm: \n".len() + text.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let rest = async { while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {} };
    drop(timeout(LINGER, rest).await);
    Ok(())
}

impl Refusal {
    /// The status line and what to do about it.
    const fn status(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::Gone => return None,
            Self::Malformed => ("400 Bad Request", "this is not an HTTP request"),
            Self::Authority => ("400 Bad Request", "CONNECT wants HOST:PORT, with an IPv6 address in brackets"),
            Self::Content => ("400 Bad Request", "a CONNECT request has no content"),
            Self::TooLong => ("431 Request Header Fields Too Large", "the head of the request is too long"),
            Self::Method => (
                "405 Method Not Allowed",
                "only CONNECT is served here; tell the client to tunnel (curl: --proxytunnel)",
            ),
            Self::UnknownMethod => ("501 Not Implemented", "only CONNECT is served here"),
        })
    }
}

fn status_of(error: &ReachError) -> &'static str {
    match error {
        ReachError::Senseless => "400 Bad Request",
        ReachError::Forbidden(_) => "403 Forbidden",
        ReachError::Lookup(ResolveError::Timeout(_)) => "504 Gateway Timeout",
        ReachError::Lookup(ResolveError::Busy) => "503 Service Unavailable",
        ReachError::Unreachable(error) if error.kind() == io::ErrorKind::TimedOut => "504 Gateway Timeout",
        ReachError::NoAddress | ReachError::Lookup(_) | ReachError::Unreachable(_) => "502 Bad Gateway",
    }
}
