//! The rule and the routes by which packets with a mark reach this host, whoever they are for (`ip rule`, `ip route`).
//!
//! Comes in: a mark and a table. Goes out: both set up for IPv4 and IPv6, and gone again. Never here: a rule or a table
//! of somebody else touched; ours carry a protocol number by which the next start finds what a killed daemon left.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder, new_connection,
    packet_route::{
        AddressFamily,
        route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};
use tokio::task::JoinHandle;

use super::link;

/// Marks what is ours: a number that no routing daemon has (iproute2's `rt_protos`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(119);
/// Behind the table of local addresses, before those of others.
const PRIORITY: u32 = 77;
const FAMILIES: [IpVersion; 2] = [IpVersion::V4, IpVersion::V6];

/// Why packets can't be routed to this host.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// Somebody else has routes in the table.
    #[error(
        "the routing table {table} is in use (hint: choose a free one as handover.tproxy.table; ip route show table all)"
    )]
    TableInUse {
        /// The table.
        table: u32,
    },
    /// Somebody else has a rule for the mark or the table.
    #[error(
        "there is a rule for the mark {mark:#x} or the table {table} already (hint: choose others as handover.tproxy.mark \
         and handover.tproxy.table; ip rule show)"
    )]
    RuleInUse {
        /// The mark.
        mark: u32,
        /// The table.
        table: u32,
    },
    /// The kernel refuses.
    #[error("{what}: {source}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn refused<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> SteerError {
    move |source| SteerError::Refused { what, source: Box::new(source) }
}

/// The rules and routes, until [`Self::remove`].
pub struct Steering {
    handle: Handle,
    connection: JoinHandle<()>,
    mark: u32,
    table: u32,
    v6: bool,
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("mark", &self.mark).field("table", &self.table).finish_non_exhaustive()
    }
}

impl Steering {
    /// Routes packets with this mark to this host, by a table that must be free.
    ///
    /// # Errors
    /// When the mark or the table is somebody else's, or the kernel refuses.
    pub async fn set(mark: u32, table: u32) -> Result<Self, SteerError> {
        let (connection, handle, _) = new_connection().map_err(refused::<io::Error>("rtnetlink"))?;
        let v6 = Path::new("/proc/sys/net/ipv6").exists();
        let steering = Self { handle, connection: tokio::spawn(connection), mark, table, v6 };
        // Nothing is changed before everything was looked at.
        for family in steering.families() {
            steering.expect_free(family).await?;
        }
        steering.clear().await?;
        if let Err(error) = steering.add().await {
            drop(steering.clear().await);
            return Err(error);
        }
        Ok(steering)
    }

    /// Whether IPv6 is routed too.
    #[must_use]
    pub const fn has_v6(&self) -> bool {
        self.v6
    }

    /// Takes the rules and routes away.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(self) -> Result<(), SteerError> {
        self.clear().await
    }

    fn families(&self) -> impl Iterator<Item = IpVersion> + use<> {
        let v6 = self.v6;
        FAMILIES.into_iter().filter(move |family| v6 || matches!(family, IpVersion::V4))
    }

    async fn expect_free(&self, family: IpVersion) -> Result<(), SteerError> {
        let (mark, table) = (self.mark, self.table);
        if self.routes(family.clone()).await?.iter().any(|route| route.header.protocol != PROTOCOL) {
            return Err(SteerError::TableInUse { table });
        }
        let clash = |rule: &RuleMessage| (marks(rule) == Some(mark) || leads_to(rule) == table) && !is_ours(rule);
        if self.rules(family).await?.iter().any(clash) {
            return Err(SteerError::RuleInUse { mark, table });
        }
        Ok(())
    }

    async fn add(&self) -> Result<(), SteerError> {
        let lo = link::index("lo").map_err(refused("the loopback interface"))?;
        let routes: [RouteMessage; 2] = [
            RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
                .output_interface(lo)
                .table_id(self.table)
                .protocol(PROTOCOL)
                .scope(RouteScope::Host)
                .kind(RouteType::Local)
                .build(),
            RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
                .output_interface(lo)
                .table_id(self.table)
                .protocol(PROTOCOL)
                .kind(RouteType::Local)
                .build(),
        ];
        for (family, route) in self.families().zip(routes) {
            // The route first: a rule whose table is empty would let packets pass on.
            self.handle.route().add(route).execute().await.map_err(refused("the route to this host"))?;
            let mut rule = self
                .handle
                .rule()
                .add()
                .table_id(self.table)
                .action(RuleAction::ToTable)
                .priority(PRIORITY)
                .fw_mark(self.mark);
            let message = rule.message_mut();
            message.header.family = match family {
                IpVersion::V4 => AddressFamily::Inet,
                IpVersion::V6 => AddressFamily::Inet6,
            };
            message.attributes.push(RuleAttribute::FwMask(u32::MAX));
            message.attributes.push(RuleAttribute::Protocol(PROTOCOL));
            rule.execute().await.map_err(refused("the rule for the mark"))?;
        }
        Ok(())
    }

    /// Removes what is ours, whoever of us made it.
    async fn clear(&self) -> Result<(), SteerError> {
        for family in self.families() {
            for rule in self.rules(family.clone()).await?.into_iter().filter(is_ours) {
                self.handle.rule().del(rule).execute().await.map_err(refused("removing a rule"))?;
            }
            for route in self.routes(family).await? {
                if route.header.protocol == PROTOCOL {
                    self.handle.route().del(route).execute().await.map_err(refused("removing a route"))?;
                }
            }
        }
        Ok(())
    }

    async fn rules(&self, family: IpVersion) -> Result<Vec<RuleMessage>, SteerError> {
        self.handle.rule().get(family).execute().try_collect().await.map_err(refused("reading the rules"))
    }

    /// The routes of our table.
    async fn routes(&self, family: IpVersion) -> Result<Vec<RouteMessage>, SteerError> {
        let mut asked = match family {
            IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        // Whatever they are like.
        asked.header.protocol = RouteProtocol::Unspec;
        asked.header.scope = RouteScope::Universe;
        asked.header.kind = RouteType::Unspec;
        asked.header.table = 0;
        let all: Vec<RouteMessage> =
            self.handle.route().get(asked).execute().try_collect().await.map_err(refused("reading the routes"))?;
        Ok(all.into_iter().filter(|route| table_of(route) == self.table).collect())
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn table_of(route: &RouteMessage) -> u32 {
    let long = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or_else(|| u32::from(route.header.table))
}

fn leads_to(rule: &RuleMessage) -> u32 {
    let long = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or_else(|| u32::from(rule.header.table))
}

fn marks(rule: &RuleMessage) -> Option<u32> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::FwMark(mark) => Some(*mark),
        _ => None,
    })
}

fn is_ours(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL))
}
