//! The plain forwarder: what anybody would write with tokio, as the measure of a way that carries bytes.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

use super::exchange::CHUNK;

/// Accepts connections and copies each to a connection of its own.
///
/// # Errors
/// When it can't listen.
pub fn forward(listen: SocketAddr, to: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (mut near, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                copy_bidirectional_with_sizes(&mut near, &mut far, CHUNK, CHUNK).await
            });
        }
    })
}
