//! The data path between a client and an origin, over real sockets: every byte, close and reset arrives, nothing piles
//! up, and a lease that was dead is replaced exactly when the origin has read nothing.

#[path = "relay/bench.rs"]
mod bench;
#[path = "relay/replay.rs"]
mod replay;
#[path = "relay/transfer.rs"]
mod transfer;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prewarm_user::handover::relay::{Pipes, Relayed, Upstream, relay};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const WAIT: Duration = Duration::from_secs(10);

/// A client and an origin with a relay between them.
struct Pair {
    client: TcpStream,
    origin: TcpStream,
    relay: JoinHandle<Relayed>,
    moved: Arc<AtomicU64>,
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

async fn never() -> io::Result<TcpStream> {
    panic!("a connection that is no lease is never replaced")
}

impl Pair {
    async fn new(pipes: &Arc<Pipes>) -> Self {
        let ((client, accepted), (dialled, origin)) = tokio::join!(connected(), connected());
        let (pipes, moved) = (Arc::clone(pipes), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&moved);
        let relay =
            tokio::spawn(async move { relay(accepted, Upstream::fresh(dialled), never, &pipes, &counted).await });
        Self { client, origin, relay, moved }
    }

    async fn end(self) -> Relayed {
        let relayed = tokio::time::timeout(WAIT, self.relay).await.expect("the relay ends").unwrap();
        assert_eq!(self.moved.load(Ordering::Relaxed), relayed.sent + relayed.received);
        relayed
    }
}

fn dial(to: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> {
    TcpStream::connect(to)
}
