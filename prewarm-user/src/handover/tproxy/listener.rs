//! The sockets that forwarded connections are given to: on loopback, where nobody else reaches them, and transparent, so
//! that what they accept has the address that the client asked for.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsFd as _,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::lease::sockopt;

/// `IPV6_TRANSPARENT` (linux/in6.h).
const IPV6_TRANSPARENT: libc::c_int = 75;
/// Connections that may wait to be accepted.
const QUEUE: i32 = 4096;

/// One listener a family.
#[derive(Debug)]
pub struct Listeners {
    v4: TcpListener,
    v6: Option<TcpListener>,
}

impl Listeners {
    /// Listens on loopback.
    ///
    /// # Errors
    /// When the kernel refuses transparent sockets: they need CAP_NET_ADMIN.
    pub fn bind(v6: bool) -> io::Result<Self> {
        let v4 = listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let v6 = if v6 { Some(listen((Ipv6Addr::LOCALHOST, 0).into())?) } else { None };
        Ok(Self { v4, v6 })
    }

    /// The ports, IPv4's first.
    ///
    /// # Errors
    /// When a socket does not know its own address.
    pub fn ports(&self) -> io::Result<(u16, Option<u16>)> {
        let v6 = self.v6.as_ref().map(|listener| listener.local_addr()).transpose()?;
        Ok((self.v4.local_addr()?.port(), v6.map(|address| address.port())))
    }

    /// Inside a runtime.
    pub(super) fn into_tokio(self) -> io::Result<Vec<tokio::net::TcpListener>> {
        [Some(self.v4), self.v6].into_iter().flatten().map(tokio::net::TcpListener::from_std).collect()
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        sockopt::write(socket.as_fd(), libc::IPPROTO_IPV6, IPV6_TRANSPARENT, &1_i32.to_ne_bytes())?;
    }
    socket.bind(&address.into())?;
    socket.listen(QUEUE)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
