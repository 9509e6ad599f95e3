//! Where redirected connections arrive: a listener a family, on loopback, in each network namespace that takes part.
//!
//! A socket belongs to the namespace it was made in, so a thread goes there to make it and comes back.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::{fd::AsFd as _, linux::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use prewarm_ebpf::redirect::{TOKEN_MASK, TOKEN_NETWORK};
use socket2::{Domain, Socket, Type};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{
    RedirectError,
    identity::Identity,
    serve::{Desk, serve},
};
use crate::{kernel::RedirectListeners, lease::netns_cookie};

/// Connections that wait while the daemon is busy; the system may allow fewer.
const BACKLOG: i32 = 4096;
/// How long a connection over loopback may take.
const ARRIVES_WITHIN: Duration = Duration::from_secs(1);

/// All entrances, and the tasks that serve them.
pub(super) struct Entrances {
    listeners: RedirectListeners,
    desk: Arc<Desk>,
    open: Vec<Entrance>,
    tasks: JoinSet<()>,
}

/// The listeners of one namespace.
struct Entrance {
    /// The file of the namespace, and which it was; none for the daemon's own.
    file: Option<(PathBuf, u64)>,
    cookie: u64,
    closing: watch::Sender<bool>,
}

/// What is made inside a namespace.
struct Sockets {
    v4: Socket,
    v6: Option<Socket>,
    identity: Identity,
    cookie: u64,
}

impl Entrances {
    pub(super) fn new(listeners: RedirectListeners, desk: Arc<Desk>) -> Self {
        Self { listeners, desk, open: Vec::new(), tasks: JoinSet::new() }
    }

    /// Listens in a namespace, by its file, or in our own, and lets its connections be redirected.
    pub(super) fn open(&mut self, namespace: Option<&Path>) -> Result<(), RedirectError> {
        let (sockets, file) = match namespace {
            None => (sockets()?, None),
            Some(path) => {
                let failed = |source| RedirectError::Namespace { path: path.to_owned(), source };
                let file = File::open(path).map_err(failed)?;
                let inode = file.metadata().map_err(failed)?.st_ino();
                let made = thread::scope(|scope| {
                    let inside = scope.spawn(|| {
                        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
                        sockets()
                    });
                    inside.join().unwrap_or_else(|_| Err(failed(io::Error::other("its thread panicked"))))
                });
                (made?, Some((path.to_owned(), inode)))
            }
        };
        let Sockets { v4, v6, identity, cookie } = sockets;
        if self.open.iter().any(|entrance| entrance.cookie == cookie) {
            return Ok(());
        }
        let (closing, closed) = watch::channel(false);
        let identity = Arc::new(Mutex::new(identity));
        let port4 = port(&v4)?;
        let port6 = v6.as_ref().map(port).transpose()?;
        for socket in [Some(v4), v6].into_iter().flatten() {
            let listener = TcpListener::from_std(socket.into()).map_err(RedirectError::Listen)?;
            let served = serve(listener, Arc::clone(&identity), Arc::clone(&self.desk), closed.clone());
            self.tasks.spawn(served);
        }
        self.listeners.admit(cookie, Some(port4), port6)?;
        self.open.push(Entrance { file, cookie, closing });
        Ok(())
    }

    /// Leaves namespaces whose file is gone or another one, so that they can end, and listens where one was made anew.
    pub(super) fn mend(&mut self, namespaces: &[PathBuf]) {
        while self.tasks.try_join_next().is_some() {}
        let listeners = &mut self.listeners;
        self.open.retain(|entrance| {
            let Some((path, inode)) = &entrance.file else { return true };
            if fs::metadata(path).is_ok_and(|now| now.st_ino() == *inode) {
                return true;
            }
            tracing::info!("connections of {} are no longer redirected: it is gone", path.display());
            if let Err(error) = listeners.dismiss(entrance.cookie) {
                tracing::warn!(%error, "a namespace could not be dismissed");
            }
            entrance.closing.send_replace(true);
            false
        });
        for path in namespaces {
            let is_open = self.open.iter().any(|entrance| entrance.file.as_ref().is_some_and(|file| file.0 == *path));
            if is_open || !path.exists() {
                continue;
            }
            match self.open(Some(path)) {
                Ok(()) => tracing::info!("connections of {} are redirected", path.display()),
                Err(error) => tracing::debug!(%error, "a namespace that is there can't be used yet"),
            }
        }
    }

    /// Closes all entrances; their tasks end with the last connection.
    pub(super) fn close(&mut self) {
        for entrance in self.open.drain(..) {
            entrance.closing.send_replace(true);
        }
    }

    /// The tasks that are still there; dropping them ends them.
    pub(super) fn tasks(&mut self) -> JoinSet<()> {
        std::mem::take(&mut self.tasks)
    }
}

/// Makes the listeners in the current namespace.
fn sockets() -> Result<Sockets, RedirectError> {
    let v4 = listener(Domain::IPV4).map_err(RedirectError::Listen)?;
    // Where there is no IPv6 there is nothing to redirect.
    let v6 = listener(Domain::IPV6).inspect_err(|error| tracing::debug!(%error, "no IPv6 on loopback")).ok();
    let cookie = netns_cookie(v4.as_fd()).map_err(RedirectError::Listen)?;
    let identity = Identity::open().map_err(RedirectError::Identity)?;
    Ok(Sockets { v4, v6, identity, cookie })
}

fn listener(family: Domain) -> io::Result<Socket> {
    let socket = Socket::new(family, Type::STREAM.nonblocking().cloexec(), None)?;
    let address = if family == Domain::IPV4 {
        // All of 127.64.0.0/10, and nothing that comes from outside: by the interface, since only one address, or all,
        // can be bound to.
        socket.bind_device(Some(b"lo"))?;
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        socket.set_only_v6(true)?;
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0))
    };
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    try_it(&socket, family)?;
    Ok(socket)
}

/// Sees that connections arrive: where a firewall swallows them, a redirected program would wait in vain.
fn try_it(socket: &Socket, family: Domain) -> io::Result<()> {
    let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
    let ip = if family == Domain::IPV4 {
        Ipv4Addr::from_bits(TOKEN_NETWORK | TOKEN_MASK).into()
    } else {
        IpAddr::from(Ipv6Addr::LOCALHOST)
    };
    let there = SocketAddr::new(ip, port);
    let blocked = |error: io::Error| io::Error::new(error.kind(), format!("nothing gets through to {there}: {error}"));
    let stream = TcpStream::connect_timeout(&there, ARRIVES_WITHIN).map_err(blocked)?;
    // It waits in the queue since before it was connected.
    socket.accept().map_err(blocked)?;
    drop(stream);
    Ok(())
}

fn port(socket: &Socket) -> Result<u16, RedirectError> {
    let address = socket.local_addr().map_err(RedirectError::Listen)?;
    Ok(address.as_socket().map_or(0, |address| address.port()))
}
