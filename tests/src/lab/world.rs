//! The world of the lab: client ─ veth ─ gateway ─ delayed link ─ internet.
//!
//! In: a scenario, a round-trip time, an address family; out: three namespaces with a caching resolver on the gateway
//! and, on the internet, the authority for the names and a web server in which each name has an address of its own.
//! Only the family under test has records, so nothing can quietly succeed over the other.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::clock;
use crate::link::DelayedLink;
use crate::netns::{Addresses, Namespace, VethEnd, owned_name, veth};
use crate::path::Site;
use crate::scenario::Scenario;
use crate::servers::{Authority, Certificates, FarCache, Record, Resolver, Web};

/// The client's interface, on which prewarm sits in the scenario `host`.
pub(super) const CLIENT_INTERFACE: &str = "uplink";
/// The gateway's interface toward the client, on which prewarm sits in the scenario `gateway`.
pub(super) const GATEWAY_INTERFACE: &str = "clients";
/// The device of the long link on both of its ends.
const WAN: &str = "wan";

const CLIENT: Addresses = Addresses { v4: Ipv4Addr::new(10, 77, 0, 2), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2) };
const GATEWAY: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 77, 0, 1), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1) };

/// The networks of the sites: reserved for documentation, so refused by prewarm's guard rails unless allowed.
pub(super) const SITE_NETWORKS: [&str; 2] = ["198.51.100.0/24", "2001:db8:51::/64"];

/// The networks between client and gateway.
const CLIENT_NETWORKS: [&str; 2] = ["10.77.0.0/24", "fd77::/64"];

/// The host number of the authority in them; the sites follow.
const AUTHORITY: u8 = 1;

/// How many connections the link is measured with.
const PROBES: usize = 7;

/// How long closing may take over the longest link.
const QUIET_WITHIN: Duration = Duration::from_secs(5);

/// Everything the lab plays in. Fields drop in order: servers, link, namespaces, files.
#[derive(Debug)]
pub(super) struct World {
    /// The resolver on the gateway.
    pub resolver: Resolver,
    /// The web server on the internet.
    pub web: Web,
    _authority: Authority,
    /// What clients have to trust.
    pub certificates: Certificates,
    _link: DelayedLink,
    /// Where visitors live.
    pub client: Namespace,
    /// Where the resolver and the forward proxy live.
    pub gateway: Namespace,
    internet: Namespace,
    family: Family,
    directory: TempDir,
}

/// The address family under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn site(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 51, 100, number).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, number.into()).into(),
        }
    }

    fn pick(self, addresses: Addresses) -> IpAddr {
        match self {
            Self::V4 => addresses.v4.into(),
            Self::V6 => addresses.v6.into(),
        }
    }
}

impl World {
    /// Builds it and waits until every server has answered.
    ///
    /// # Errors
    /// Without root, without the packages, or when a server doesn't start.
    pub(super) fn build(scenario: &Scenario, round_trip: Duration, family: Family, keep: bool) -> Result<Self> {
        // What is kept has another name, by which the next run doesn't find and remove it.
        let prefix = if keep { "prewarm-lab-".to_owned() } else { owned_name("lab-") };
        let mut directory = TempDir::with_prefix(prefix)?;
        directory.disable_cleanup(keep);
        let mut client = Namespace::create("client")?;
        let mut gateway = Namespace::create("gateway")?;
        let internet = Namespace::create("internet")?;
        veth(
            &VethEnd { namespace: &client, interface: CLIENT_INTERFACE, addresses: CLIENT },
            &VethEnd { namespace: &gateway, interface: GATEWAY_INTERFACE, addresses: GATEWAY },
        )?;
        let link = DelayedLink::join((&gateway, WAN), (&internet, WAN), round_trip)?;
        let names = scenario.names();
        let sites = (AUTHORITY + 1..).take(names.len()).map(|number| family.site(number));
        let records: Vec<_> =
            names.iter().zip(sites).map(|(name, address)| Record { name: (*name).to_owned(), address }).collect();
        route(&client, &gateway, &internet)?;
        for address in records.iter().map(|record| record.address).chain([family.site(AUTHORITY)]) {
            internet.ip(&["addr", "add", &address.to_string(), "dev", "lo"])?;
        }
        let near = family.pick(GATEWAY);
        client.set_resolver(near)?;
        gateway.set_resolver(near)?;

        let path = directory.path();
        let far = family.site(AUTHORITY);
        let ttl = Duration::from_secs(scenario.plan.ttl_seconds);
        let authority = Authority::start(&internet, far, &scenario.plan.zone, ttl, &records, path)?;
        let all: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificates = Certificates::issue(&all, path)?;
        let far_cache = FarCache {
            names: scenario.far_cached().map(|(_, follower)| follower.name.clone()).collect(),
            fresh_for: Duration::from_secs(scenario.plan.far_cached_seconds),
        };
        let web = Web::start(&internet, far, &certificates, &far_cache, path)?;
        let resolver = Resolver::start(&gateway, near, far, names.first().context("no names")?, keep, path)?;
        Ok(Self {
            resolver,
            web,
            _authority: authority,
            certificates,
            _link: link,
            client,
            gateway,
            internet,
            family,
            directory,
        })
    }

    /// Where the resolver and the forward proxy are reached.
    pub(super) fn gateway_address(&self) -> IpAddr {
        self.family.pick(GATEWAY)
    }

    /// The gateway, as a daemon on it has to be told; `cgroup` is for one on the client.
    pub(super) fn site<'a>(&self, cgroup: Option<&'a Cgroup>) -> Site<'a> {
        Site {
            address: self.gateway_address(),
            interface: GATEWAY_INTERFACE,
            clients: &CLIENT_NETWORKS,
            cgroup: cgroup.map(Cgroup::path),
        }
    }

    /// For the files of further servers; removed at the end.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until no client has a connection to the web any more, so that its logs tell of all of them.
    ///
    /// # Errors
    /// When some connection stays.
    pub(super) fn wait_until_quiet(&self) -> Result<()> {
        clock::wait_for("the web to have no connection", QUIET_WITHIN, || {
            let open = self.internet.enter(|| {
                let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"].map(fs::read_to_string);
                Ok(tables.into_iter().flatten().map(|table| open_connections(&table)).sum::<usize>())
            })?;
            Ok((open == 0).then_some(()))
        })
    }

    /// The round trip as TCP sees it: the median of some handshakes over the link.
    ///
    /// # Errors
    /// When the web server can't be reached.
    pub(super) fn measure_round_trip(&self) -> Result<Duration> {
        let server = SocketAddr::new(self.family.site(AUTHORITY), 80);
        let mut handshakes = self.gateway.enter(|| {
            let mut handshakes = Vec::with_capacity(PROBES);
            for _ in 0..PROBES {
                let started = clock::now();
                TcpStream::connect(server)?;
                handshakes.push(clock::now() - started);
            }
            Ok(handshakes)
        })?;
        handshakes.sort_unstable();
        Ok(handshakes[PROBES / 2])
    }
}

/// Entries of a kernel table of TCP sockets that neither listen nor only wait for stray segments.
fn open_connections(table: &str) -> usize {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let states = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3));
    states.filter(|state| ![TIME_WAIT, LISTEN].contains(state)).count()
}

/// Addresses of the long link, default routes, forwarding.
fn route(client: &Namespace, gateway: &Namespace, internet: &Namespace) -> Result<()> {
    for (namespace, v4, v6) in
        [(gateway, "10.77.1.1/30", "fd77:0:0:1::1/64"), (internet, "10.77.1.2/30", "fd77:0:0:1::2/64")]
    {
        namespace.ip(&["addr", "add", v4, "dev", WAN])?;
        namespace.ip(&["addr", "add", v6, "dev", WAN, "nodad"])?;
        namespace.ip(&["route", "add", "default", "dev", WAN])?;
        namespace.ip(&["-6", "route", "add", "default", "dev", WAN])?;
    }
    client.ip(&["route", "add", "default", "via", &GATEWAY.v4.to_string()])?;
    client.ip(&["-6", "route", "add", "default", "via", &GATEWAY.v6.to_string()])?;
    gateway.sysctl("net/ipv4/ip_forward", "1")?;
    gateway.sysctl("net/ipv6/conf/all/forwarding", "1")
}
