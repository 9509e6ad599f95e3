//! A listener of a proxy: lets in whom it serves, and no more at once than it can.
//!
//! Comes in: connections. Goes out: a task for each that is let in. Never here: what is said on them.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::way::Way;

/// How long relays that run may go on when the daemon stops.
pub const GRACE: Duration = Duration::from_secs(1);
/// The pause after a connection could not be taken in, for want of descriptors mostly.
const PAUSE: Duration = Duration::from_millis(100);

/// Whom a listener lets in.
#[derive(Clone, Debug)]
pub struct Gate {
    clients: Arc<[IpNet]>,
    places: Arc<Semaphore>,
}

impl Gate {
    /// Lets in clients of these networks, at most so many at once; more wait in the listener's queue.
    #[must_use]
    pub fn new(clients: &[IpNet], connections: u32) -> Self {
        Self { clients: clients.into(), places: Arc::new(Semaphore::new(connections as usize)) }
    }

    /// Whether this client is let in.
    #[must_use]
    pub fn admits(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.clients.iter().any(|network| network.contains(&client))
    }

    /// Lets clients in until it is told to stop, then gives those inside a moment.
    pub async fn open<F>(
        self,
        listener: TcpListener,
        way: Arc<Way>,
        mut stop: watch::Receiver<bool>,
        serve: impl Fn(TcpStream, SocketAddr) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut inside = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&listener) => accepted,
                Some(_) = inside.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, client, place)) if self.admits(client.ip()) => {
                    let served = serve(stream, client);
                    inside.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Ok(_) => way.refused(),
                // Gone before it was let in.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection was not taken in");
                    sleep(PAUSE).await;
                }
            }
        }
        // Nobody new is to wait for an answer that will not come.
        drop(listener);
        let ended = timeout(GRACE, async { while inside.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::info!("{} relayed connections end with the daemon", inside.len());
        }
    }

    /// The next connection, once there is a place for it.
    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, client) = listener.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            // It will be found out soon enough that it has gone.
            tracing::trace!(%error, "a client's connection");
        }
        Ok((stream, client, place))
    }
}
