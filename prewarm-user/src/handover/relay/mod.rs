//! The data path of every way in which a lease is not handed over as a descriptor: bytes between a client and an origin.
//!
//! Comes in: a client's connection, and one to the origin that may be a lease. Goes out: every byte, close and reset of
//! either side to the other, and what became of it. Never here: a byte changed, lost or made up, a task more than the
//! caller's, memory for a connection that says nothing, or a choice of whom to connect to.
//!
//! A lease may have died without our knowing yet. Until the origin has shown that it lives (`prove`), what the client
//! says is kept, so that it can be said again on a fresh connection; then `pump` moves bytes, through `pipes` when there
//! are many.

mod pipes;
mod prove;
mod pump;
mod socket;

use std::{io, pin::Pin, sync::atomic::AtomicU64, time::Duration};

use tokio::net::TcpStream;

pub use pipes::Pipes;

use self::{
    prove::{Early, Proof},
    pump::{Broken, Flow},
    socket::Info,
};
use crate::lease::{Fate, LeaseId, Pool, Taken};

/// A connection to the origin.
#[derive(Debug)]
pub struct Upstream {
    stream: TcpStream,
    lease: Option<Lease>,
}

/// What is known of a lease when it is taken.
#[derive(Debug)]
struct Lease {
    settling: Settling,
    /// What the origin had acknowledged by then.
    acked: u64,
    /// Whether bytes of the origin waited in it, which the pool found right.
    spoke: bool,
}

/// Tells the pool what became of a lease, whatever happens.
#[derive(Debug)]
struct Settling(Option<(Pool, LeaseId)>);

impl Settling {
    fn settle(mut self, used: bool) {
        if let Some((pool, id)) = self.0.take() {
            pool.settle(id, if used { Fate::Used } else { Fate::Lost });
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if let Some((pool, id)) = self.0.take() {
            pool.settle(id, Fate::Lost);
        }
    }
}

impl Upstream {
    /// A lease out of the pool. The relay says what became of it; dropped before, it is lost.
    ///
    /// # Errors
    /// When the runtime can't watch it.
    pub fn lease(taken: Taken, pool: &Pool) -> io::Result<Self> {
        let settling = Settling(Some((pool.clone(), taken.id)));
        let stream = std::net::TcpStream::from(taken.fd);
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        let acked = Info::read(&stream)?.acked;
        let spoke = matches!(socket::peek(&stream), Ok(1..));
        Ok(Self { stream, lease: Some(Lease { settling, acked, spoke }) })
    }

    /// A connection that was just established.
    #[must_use]
    pub const fn fresh(stream: TcpStream) -> Self {
        Self { stream, lease: None }
    }

    /// Whether it is a lease.
    #[must_use]
    pub const fn is_lease(&self) -> bool {
        self.lease.is_some()
    }

    /// The connection.
    #[must_use]
    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    said: Vec<u8>,
}

impl Client {
    /// A client that has said so much already.
    #[must_use]
    pub const fn with(stream: TcpStream, said: Vec<u8>) -> Self {
        Self { stream, said }
    }
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Self {
        Self::with(stream, Vec::new())
    }
}

/// A side of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The program that was given the connection.
    Client,
    /// Whom it talks to.
    Origin,
}

/// How a relay ended.
#[derive(Debug)]
pub enum Ended {
    /// Both sides closed.
    Closed,
    /// This side reset the connection, and so the other was reset.
    Reset(Side),
    /// The lease was dead and no fresh connection could be had; the client was reset.
    Unreachable(io::Error),
}

/// What became of a relay.
#[derive(Debug)]
pub struct Relayed {
    /// Bytes from the client to the origin.
    pub sent: u64,
    /// Bytes from the origin to the client.
    pub received: u64,
    /// Whether the lease was dead and a fresh connection took its place.
    pub replayed: bool,
    /// How it ended.
    pub ended: Ended,
}

/// How long what was sent before a reset may take to arrive before the reset follows.
const BEFORE_RESET: Duration = Duration::from_secs(5);

/// Relays between a client and an origin until both have closed or one has reset. `redial` opens a fresh connection to
/// where the lease led, in case that turns out dead; `moved` is added to with every byte that is passed on.
pub async fn relay<D, F>(
    client: impl Into<Client>,
    upstream: Upstream,
    redial: D,
    pipes: &Pipes,
    moved: &AtomicU64,
) -> Relayed
where
    D: FnOnce() -> F,
    F: Future<Output = io::Result<TcpStream>>,
{
    let Client { stream: mut client, said } = client.into();
    let Upstream { stream: mut upstream, lease } = upstream;
    socket::prepare(&client);
    socket::prepare(&upstream);
    let mut early = Early::new(said);
    let mut replayed = false;
    if let Some(Lease { settling, acked, spoke }) = lease {
        let proof = prove::prove(&client, &upstream, acked, spoke, &mut early).await;
        settling.settle(proof != Proof::Dead);
        let side = match proof {
            Proof::Alive => None,
            Proof::Reset => Some(Side::Origin),
            Proof::ClientReset => Some(Side::Client),
            Proof::Dead => {
                replayed = true;
                match redial().await {
                    Ok(fresh) => {
                        upstream = fresh;
                        socket::prepare(&upstream);
                        early.again();
                        None
                    }
                    Err(error) => {
                        socket::reset(client);
                        return Relayed { sent: 0, received: 0, replayed, ended: Ended::Unreachable(error) };
                    }
                }
            }
        };
        if let Some(side) = side {
            let sent = early.sent() as u64;
            moved.fetch_add(sent, std::sync::atomic::Ordering::Relaxed);
            pass_on_reset(side, client, upstream).await;
            return Relayed { sent, received: 0, replayed, ended: Ended::Reset(side) };
        }
    }
    let (mut sent, mut received) = (early.sent() as u64, 0);
    moved.fetch_add(sent, std::sync::atomic::Ordering::Relaxed);
    let side = {
        let (from_client, to_client) = client.split();
        let (from_origin, to_origin) = upstream.split();
        let begun = early.rest();
        let up = Flow { from: from_client, to: to_origin, pipes, moved, total: &mut sent };
        let down = Flow { from: from_origin, to: to_client, pipes, moved, total: &mut received };
        let mut up = std::pin::pin!(up.run(begun));
        let mut down = std::pin::pin!(down.run(prove::Rest::default()));
        tokio::select! {
            ended = &mut up => finish(ended, down, Side::Client).await,
            ended = &mut down => finish(ended, up, Side::Origin).await,
        }
    };
    let ended = match side {
        None => Ended::Closed,
        Some(side) => {
            pass_on_reset(side, client, upstream).await;
            Ended::Reset(side)
        }
    };
    Relayed { sent, received, replayed, ended }
}

/// Lets the other direction end after one has, which came from `side`; the side that reset, if one did.
async fn finish<'a, F>(first: Result<pump::Closed<'a>, Broken>, mut other: Pin<&mut F>, side: Side) -> Option<Side>
where
    F: Future<Output = Result<pump::Closed<'a>, Broken>>,
{
    let opposite = if side == Side::Client { Side::Origin } else { Side::Client };
    match first {
        Ok(closed) => tokio::select! {
            ended = &mut other => match ended {
                Ok(_) => None,
                Err(Broken::Reading) => Some(opposite),
                Err(Broken::Writing) => Some(side),
            },
            () = closed.reset() => Some(side),
        },
        Err(Broken::Reading) => Some(side),
        Err(Broken::Writing) => {
            // It is gone, but what it said before is not.
            drop(other.await);
            Some(opposite)
        }
    }
}

/// One side has reset: the other gets what was under way to it, and then the reset.
async fn pass_on_reset(side: Side, client: TcpStream, upstream: TcpStream) {
    let other = match side {
        Side::Client => upstream,
        Side::Origin => client,
    };
    socket::delivered(&other, BEFORE_RESET).await;
    socket::reset(other);
}
