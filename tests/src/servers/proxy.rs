//! The forward proxy of a gateway: Tinyproxy, a thread and a plain blocking `connect()` a connection.
//!
//! It leaves Nagle's algorithm on toward the origin, so a TLS client that connected cold waits for a delayed
//! acknowledgement as well (40 ms). A lease comes with TCP_NODELAY, so behind this proxy TLS saves more than the one
//! round trip that a lease is promised to save; what is promised is judged on plain HTTP.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Result;

use super::accepts;
use crate::netns::Namespace;
use crate::service::Service;

/// The usual port of a forward proxy.
const PORT: u16 = 3128;

/// A running proxy.
#[derive(Debug)]
pub struct ForwardProxy {
    _service: Service,
    address: SocketAddr,
}

impl ForwardProxy {
    /// Starts the proxy on the address; `wrapper` is put before its command line (`prewarm exec … --`).
    ///
    /// # Errors
    /// When it can't be started or doesn't accept connections.
    pub fn start(namespace: &Namespace, address: IpAddr, wrapper: &[OsString], directory: &Path) -> Result<Self> {
        let configuration = directory.join("tinyproxy.conf");
        let text = format!(
            "Port {PORT}\nListen {address}\nTimeout 30\nMaxClients 200\nLogLevel Warning\nDisableViaHeader Yes\n"
        );
        fs::write(&configuration, text)?;
        let program: OsString = "/usr/bin/tinyproxy".into();
        let mut words = wrapper.iter().chain([&program]);
        let first = words.next().unwrap_or(&program);
        let mut command = namespace.command(first);
        command.args(words).arg("-d").arg("-c").arg(&configuration);
        let mut service = Service::start("tinyproxy", command, directory)?;
        let address = SocketAddr::new(address, PORT);
        service.ready(|| accepts(namespace, address))?;
        Ok(Self { _service: service, address })
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
