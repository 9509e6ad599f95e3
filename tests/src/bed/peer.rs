//! The plain origin: says what [`Exchange`] asks for, on a thread a connection.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use crate::client::exchange::{CHUNK, Content, Exchange, Order, PING, transfer};
use crate::netns::Namespace;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// An origin that listens until this is dropped.
#[derive(Debug)]
pub struct Peer {
    address: SocketAddr,
    listener: Arc<Socket>,
    ended: Arc<AtomicBool>,
    right: Arc<AtomicU64>,
}

impl Peer {
    /// Listens in the namespace.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let listener = namespace.enter(|| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into()).with_context(|| format!("bind {address}"))?;
            socket.listen(BACKLOG)?;
            Ok(Arc::new(socket))
        })?;
        let (ended, right) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let peer =
            Self { address, listener: Arc::clone(&listener), ended: Arc::clone(&ended), right: Arc::clone(&right) };
        thread::Builder::new().name("peer".into()).spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                // A client that goes away in the middle is its own business.
                let right = Arc::clone(&right);
                thread::spawn(move || serve(stream.into(), &right));
            }
        })?;
        Ok(peer)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Transfers of which it received exactly what was sent, to the end.
    pub fn right(&self) -> u64 {
        self.right.load(Ordering::Relaxed)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes `accept` with an error.
        let _woken = self.listener.shutdown(Shutdown::Both);
    }
}

fn serve(mut stream: TcpStream, right: &AtomicU64) -> Result<()> {
    stream.set_nodelay(true)?;
    match Exchange::read(&mut stream)? {
        None => Ok(()),
        Some(Exchange::Ping) => {
            let mut message = [0; PING];
            while stream.read_exact(&mut message).is_ok() {
                stream.write_all(&message)?;
            }
            Ok(())
        }
        Some(Exchange::Download) => {
            let chunk = vec![0; CHUNK];
            while stream.write_all(&chunk).is_ok() {}
            Ok(())
        }
        Some(Exchange::Upload) => {
            let mut chunk = vec![0; CHUNK];
            while stream.read(&mut chunk)? > 0 {}
            Ok(stream.write_all(&[1])?)
        }
        Some(Exchange::Transfer { up, down, seed, order }) => {
            let sends_first = match order {
                Order::Together => None,
                Order::ClientFirst => Some(false),
                Order::OriginFirst => Some(true),
            };
            transfer(&stream, Content::new(seed, 1, down), Content::new(seed, 0, up), sends_first)?;
            right.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }
}
