//! One entrance: whoever arrives is asked for a claim, gets the lease, and is relayed.
//!
//! Never here: a byte for anybody but the very socket that claimed, or a second lease for one claim.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use prewarm_ebpf::redirect::{TOKEN_MASK, TOKEN_NETWORK};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    super::relay::{Upstream, relay},
    Service,
    counters::Tally,
    identity::Identity,
    lock,
    offers::KernelOffers,
};
use crate::{
    kernel::{Claim, RedirectClaims},
    lease::Token,
};

/// How long to wait when no more connections can be accepted, for want of descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);
/// How long the queue must stay empty before a closing entrance takes it for empty.
const QUIET: Duration = Duration::from_millis(20);

/// What all entrances share.
pub(super) struct Desk {
    pub(super) service: Service,
    pub(super) claims: Mutex<RedirectClaims>,
    pub(super) offers: Arc<KernelOffers>,
    pub(super) tally: Arc<Tally>,
}

/// A connection whose socket claimed a lease.
#[derive(Clone, Copy, Debug)]
struct Guest {
    cookie: u64,
    claim: Claim,
}

/// Serves one listener until it is told to close, and then what has been redirected to it already.
pub(super) async fn serve(
    listener: TcpListener,
    identity: Arc<Mutex<Identity>>,
    desk: Arc<Desk>,
    mut closing: watch::Receiver<bool>,
) {
    let mut relays = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => desk.take_in(stream, peer, &identity, &mut relays),
                Err(error) => {
                    tracing::warn!(%error, "a redirected connection could not be accepted");
                    sleep(OUT_OF_DESCRIPTORS).await;
                }
            },
            Some(_) = relays.join_next(), if !relays.is_empty() => {}
            _ = closing.changed() => break,
        }
    }
    while let Ok(Ok((stream, peer))) = timeout(QUIET, listener.accept()).await {
        desk.take_in(stream, peer, &identity, &mut relays);
    }
    drop(listener);
    while relays.join_next().await.is_some() {}
}

impl Desk {
    fn take_in(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        identity: &Mutex<Identity>,
        relays: &mut JoinSet<()>,
    ) {
        match self.identify(&stream, peer, identity) {
            Ok(Some(guest)) => {
                relays.spawn(Arc::clone(self).attend(stream, guest));
            }
            Ok(None) => {
                self.tally.way.refused();
                refuse(&stream);
            }
            Err(error) => {
                tracing::warn!(%error, "it could not be found out whose a redirected connection is");
                self.tally.way.failed();
                refuse(&stream);
            }
        }
    }

    /// Whose connection this is, if its socket has claimed a lease and has not come for it before.
    fn identify(&self, stream: &TcpStream, peer: SocketAddr, identity: &Mutex<Identity>) -> io::Result<Option<Guest>> {
        let local = stream.local_addr()?;
        let token = match local.ip() {
            IpAddr::V4(ip) => {
                let ip = ip.to_bits();
                if ip & !TOKEN_MASK != TOKEN_NETWORK {
                    return Ok(None);
                }
                Some(ip & TOKEN_MASK)
            }
            // Only the socket tells.
            IpAddr::V6(_) => None,
        };
        let Some(cookie) = lock(identity).cookie(peer, local)? else { return Ok(None) };
        let claim = lock(&self.claims).spend(cookie, token).map_err(io::Error::other)?;
        Ok(claim.map(|claim| Guest { cookie, claim }))
    }

    /// Gives a claimer its lease; one whose lease has gone meanwhile gets what it would have had without prewarm.
    async fn attend(self: Arc<Self>, stream: TcpStream, guest: Guest) {
        let Claim { token, destination } = guest.claim;
        self.offers.claimed(token, destination);
        self.tally.open.fetch_add(1, Relaxed);
        let _open = Open(&self.tally);
        let Service { pool, witness, pipes, .. } = &self.service;
        let upstream = match pool.redeem(Token(token)) {
            Some(taken) => {
                let local = SockRef::from(&taken.fd).local_addr().ok().and_then(|local| local.as_socket());
                self.show(guest, local);
                self.tally.way.found(true);
                witness.connected(destination, true);
                Upstream::lease(taken, pool)
            }
            None => {
                self.tally.way.found(false);
                witness.connected(destination, false);
                self.dial(guest).await.map(Upstream::fresh)
            }
        };
        let upstream = match upstream {
            Ok(upstream) => upstream,
            Err(error) => {
                tracing::debug!(%error, %destination, "a redirected connection could not be made good");
                self.tally.way.failed();
                return refuse(&stream);
            }
        };
        let relayed = relay(stream, upstream, || self.dial(guest), pipes, self.tally.way.bytes()).await;
        self.tally.way.ended(&relayed);
    }

    /// Opens a fresh connection to where the program wanted to go.
    async fn dial(&self, guest: Guest) -> io::Result<TcpStream> {
        let dialled = self.service.dialer.dial(guest.claim.destination).await?;
        let stream = std::net::TcpStream::from(dialled.socket);
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        self.show(guest, stream.local_addr().ok());
        Ok(stream)
    }

    /// Shows the program the address that its connection has.
    fn show(&self, guest: Guest, local: Option<SocketAddr>) {
        let Some(local) = local else { return };
        if let Err(error) = lock(&self.claims).set_local(guest.cookie, local) {
            tracing::debug!(%error, "a program can't be shown its own address");
        }
    }
}

/// Counts an open connection down, however it ends.
struct Open<'a>(&'a Tally);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Closes with a reset: nothing that was sent here is taken for received.
fn refuse(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a connection is closed instead of reset");
    }
}
