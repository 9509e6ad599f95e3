//! The host's resolver, asked by hickory.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::Duration,
};

use hickory_resolver::{
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{
        NetError,
        runtime::{RuntimeProvider, TokioRuntimeProvider, TokioTime},
    },
    proto::rr::Name as WireName,
    system_conf::read_system_conf,
};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use tokio::{net::UdpSocket, time::Instant};

use super::{OwnPorts, ResolveError, Resolved, Resolver};
use crate::{config::ResolveSettings, model::Name};

/// Asks the servers of the configuration, or of `/etc/resolv.conf`, with sockets that carry prewarm's mark.
#[derive(Clone)]
pub struct HostResolver {
    resolver: hickory_resolver::Resolver<Marked>,
    timeout: Duration,
    servers: Vec<IpAddr>,
    ports: OwnPorts,
}

impl HostResolver {
    /// A resolver as the settings say.
    ///
    /// # Errors
    /// When the settings name no server and `/etc/resolv.conf` cannot be read.
    pub fn new(settings: &ResolveSettings) -> Result<Self, ResolveError> {
        let ports = OwnPorts::default();
        let provider = Marked { tokio: TokioRuntimeProvider::default(), mark: settings.mark, ports: ports.clone() };
        let failed = |error: NetError| ResolveError::Failed(format!("the host's resolver: {error}"));
        let (mut builder, servers) = if settings.servers.is_empty() {
            let (config, options) = read_system_conf().map_err(failed)?;
            let servers = config.name_servers().iter().map(|server| server.ip).collect();
            (hickory_resolver::Resolver::builder_with_config(config, provider).with_options(options), servers)
        } else {
            let servers = settings.servers.iter().map(|&server| name_server(server)).collect();
            let config = ResolverConfig::from_name_servers(servers);
            let addresses = settings.servers.iter().map(SocketAddr::ip).collect();
            (hickory_resolver::Resolver::builder_with_config(config, provider), addresses)
        };
        let timeout = Duration::from_millis(settings.timeout_ms);
        let options = builder.options_mut();
        // What is to be warmed is the cache that programs ask, so ours must not answer in its place.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = timeout;
        options.attempts = 1;
        let resolver = builder.build().map_err(failed)?;
        Ok(Self { resolver, timeout, servers, ports })
    }

    /// Who is asked.
    #[must_use]
    pub fn servers(&self) -> &[IpAddr] {
        &self.servers
    }

    /// The ports that questions left from lately.
    #[must_use]
    pub const fn ports(&self) -> &OwnPorts {
        &self.ports
    }
}

impl std::fmt::Debug for HostResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostResolver").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Resolver for HostResolver {
    async fn lookup(&self, name: &Name) -> Result<Resolved, ResolveError> {
        let mut wire = WireName::from_labels(name.labels())
            .map_err(|error| ResolveError::Failed(format!("{name} is no name to ask for: {error}")))?;
        // Without the dot at the end the search list of resolv.conf would be tried as well.
        wire.set_fqdn(true);
        let asked = Instant::now();
        let answer = tokio::time::timeout(self.timeout, self.resolver.lookup_ip(wire)).await;
        let took = asked.elapsed();
        match answer {
            Ok(Ok(answer)) => Ok(Resolved {
                addresses: answer.iter().collect::<Vec<IpAddr>>(),
                ttl: answer.valid_until().saturating_duration_since(Instant::now().into_std()),
                took,
            }),
            Ok(Err(error)) if error.is_nx_domain() => Err(ResolveError::NoSuchName),
            Ok(Err(error)) if error.is_no_records_found() => {
                Ok(Resolved { addresses: Vec::new(), ttl: Duration::ZERO, took })
            }
            Ok(Err(error)) => Err(ResolveError::Failed(error.to_string())),
            Err(_) => Err(ResolveError::Timeout(self.timeout)),
        }
    }
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    NameServerConfig::new(server.ip(), true, connections.to_vec())
}

/// Tokio's sockets with a mark, by which the kernel side tells prewarm's own questions from a program's.
#[derive(Clone, Default)]
struct Marked {
    tokio: TokioRuntimeProvider,
    mark: u32,
    ports: OwnPorts,
}

impl RuntimeProvider for Marked {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = Result<Self::Tcp, io::Error>>>> {
        // Rare (a truncated answer), and a question over TCP that is learnt from once does no harm.
        self.tokio.connect_tcp(server, bind, timeout)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = Result<Self::Udp, io::Error>>>> {
        let (mark, ports) = (self.mark, self.ports.clone());
        Box::pin(async move {
            let socket = Socket::new(Domain::for_address(local), Type::DGRAM, None)?;
            // Needs CAP_NET_ADMIN. Without it the questions are seen as the host's own, which only costs accuracy.
            if let Err(error) = setsockopt(&socket, sockopt::Mark, &mark) {
                tracing::debug!(%error, "resolve: questions go out unmarked");
            }
            socket.set_nonblocking(true)?;
            socket.bind(&local.into())?;
            if let Some(bound) = socket.local_addr()?.as_socket() {
                ports.bind(bound.port());
            }
            UdpSocket::from_std(socket.into())
        })
    }
}
