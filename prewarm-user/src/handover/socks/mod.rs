//! SOCKS5 (RFC 1928): CONNECT to an address or a name, without authentication.
//!
//! Comes in: a client's connection. Goes out: a relay to whom it names. Never here: BIND and UDP ASSOCIATE, users and
//! passwords, or more than a moment's patience with a client that says nothing.

mod wire;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    reach::{Reach, ReachError},
    way::Way,
};
use crate::resolve::Resolver;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client that was refused may go on talking, so that it hears why.
const LINGER: Duration = Duration::from_secs(1);

/// Serves one client.
pub async fn serve<R: Resolver>(mut stream: TcpStream, client: SocketAddr, reach: &Reach<R>, way: &Way) {
    let heard = timeout(PATIENCE, wire::hear(&mut stream)).await;
    let target = match heard {
        Ok(Ok(target)) => target,
        Ok(Err(refusal)) => {
            way.refused();
            tracing::debug!(%client, ?refusal, "a SOCKS client was turned away");
            if let Some(reply) = refusal.reply() {
                drop(answer(&mut stream, reply).await);
            }
            return;
        }
        Err(_elapsed) => return way.refused(),
    };
    match reach.connect(client.ip(), target, way).await {
        Ok(reached) => {
            // An address of ours says nothing to a client; that there is one keeps it content.
            let local = reached.local_address().unwrap_or_else(|_gone| nowhere());
            if stream.write_all(&wire::reply(wire::SUCCEEDED, local)).await.is_ok() {
                reach.carry(stream, reached, way).await;
            }
        }
        Err(error) => {
            tracing::debug!(%client, %error, "no connection for a SOCKS client");
            drop(answer(&mut stream, code_of(&error)).await);
        }
    }
}

/// Refuses, and closes in order.
async fn answer(stream: &mut TcpStream, code: u8) -> io::Result<()> {
    stream.write_all(&wire::reply(code, nowhere())).await?;
    stream.shutdown().await?;
    // A close with bytes unread would take the reply along.
    let rest = async { while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {} };
    drop(timeout(LINGER, rest).await);
    Ok(())
}

fn nowhere() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

fn code_of(error: &ReachError) -> u8 {
    match error {
        ReachError::Senseless => wire::FAILURE,
        ReachError::Forbidden(_) => wire::NOT_ALLOWED,
        ReachError::NoAddress | ReachError::Lookup(_) => wire::HOST_UNREACHABLE,
        ReachError::Unreachable(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => wire::REFUSED,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => wire::NETWORK_UNREACHABLE,
            _ => wire::HOST_UNREACHABLE,
        },
    }
}
