//! The DNS server far away that owns the names: NSD with one zone.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{address_type, resolves};
use crate::netns::Namespace;
use crate::service::Service;

/// A name of the zone and one address.
#[derive(Clone, Debug)]
pub struct Record {
    /// Fully qualified, without the final dot.
    pub name: String,
    /// Where it points.
    pub address: IpAddr,
}

/// A running authoritative server.
#[derive(Debug)]
pub struct Authority {
    _service: Service,
}

impl Authority {
    /// Serves the zone on the address, every record with this TTL, which is also that of negative answers.
    ///
    /// # Errors
    /// When NSD can't be started or doesn't answer the first record.
    pub fn start(
        namespace: &Namespace,
        address: IpAddr,
        zone: &str,
        ttl: Duration,
        records: &[Record],
        directory: &Path,
    ) -> Result<Self> {
        let ttl = ttl.as_secs();
        let mut text = format!(
            "$ORIGIN {zone}.\n$TTL {ttl}\n\
             @ SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 {ttl}\n@ NS ns.{zone}.\n"
        );
        let record_type = if address.is_ipv4() { "A" } else { "AAAA" };
        writeln!(text, "ns.{zone}. {record_type} {address}")?;
        for record in records {
            let record_type = if record.address.is_ipv4() { "A" } else { "AAAA" };
            writeln!(text, "{}. {record_type} {}", record.name, record.address)?;
        }
        let zone_file = directory.join("zone");
        fs::write(&zone_file, text)?;
        let configuration = directory.join("nsd.conf");
        let folder = directory.display();
        fs::write(
            &configuration,
            format!(
                "server:\n  ip-address: {address}\n  username: root\n  zonesdir: \"{folder}\"\n  database: \"\"\n  \
                 pidfile: \"\"\n  xfrdfile: \"{folder}/xfrd.state\"\n  zonelistfile: \"{folder}/zone.list\"\n  \
                 xfrdir: \"{folder}\"\n  server-count: 1\n  rrl-ratelimit: 0\n\
                 remote-control:\n  control-enable: no\n\
                 zone:\n  name: \"{zone}\"\n  zonefile: \"{}\"\n",
                zone_file.display()
            ),
        )?;
        let mut command = namespace.command("/usr/sbin/nsd");
        command.arg("-d").arg("-c").arg(&configuration);
        let mut service = Service::start("nsd", command, directory)?;
        let first = format!("ns.{zone}");
        service.ready(|| resolves(namespace, address, &first, address_type(address)))?;
        Ok(Self { _service: service })
    }
}
