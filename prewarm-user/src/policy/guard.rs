//! The guard rails: which addresses, ports, names and clients are let through, whatever a warm-up would be worth.
//!
//! Comes in: an address, a port, a name, or a client. Goes out: yes, or the reason why not. Never here: a name's
//! address (a name may change its address between check and connect, so whoever connects checks the address it is
//! about to use, and uses that one).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Refusal;
use crate::{config::GuardSettings, model::Name};

/// The rules, ready for use. Cheap to clone for whoever connects.
#[derive(Clone, Debug)]
pub struct Guard {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    clients: Vec<IpNet>,
    own: Vec<IpNet>,
    ports: Vec<u16>,
    allow_names: Vec<Name>,
    deny_names: Vec<Name>,
    local_zones: Vec<Name>,
    reverse_zone: Option<Name>,
}

/// Names that mean something only here, or nowhere (RFC 6761, 6762, 7686, 8375, 9476, ICANN's "internal").
const LOCAL_ZONES: [&str; 7] = ["local", "internal", "localhost", "invalid", "onion", "alt", "home.arpa"];

impl Guard {
    /// The rules of the settings, on a host with these addresses (each with its prefix length).
    ///
    /// Zones that are no names are left out; [`GuardSettings::check`] tells of them.
    #[must_use]
    pub fn new(settings: &GuardSettings, own: &[IpNet]) -> Self {
        let zones = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        Self {
            allow: settings.allow_networks.clone(),
            deny: settings.deny_networks.clone(),
            clients: settings.clients.clone(),
            own: own.to_vec(),
            ports: settings.ports.clone(),
            allow_names: zones(&settings.allow_names),
            deny_names: zones(&settings.deny_names),
            local_zones: LOCAL_ZONES.iter().filter_map(|zone| zone.parse().ok()).collect(),
            reverse_zone: "arpa".parse().ok(),
        }
    }

    /// Whether a connection to this address and port may be opened.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn check(&self, ip: IpAddr, port: u16) -> Result<(), Refusal> {
        self.port(port)?;
        self.address(ip)
    }

    /// Whether this port may be connected to.
    ///
    /// # Errors
    /// [`Refusal::Port`].
    pub fn port(&self, port: u16) -> Result<(), Refusal> {
        if self.ports.contains(&port) { Ok(()) } else { Err(Refusal::Port) }
    }

    /// Whether this address may be connected to. An IPv6 address that carries an IPv4 address is judged by both.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn address(&self, ip: IpAddr) -> Result<(), Refusal> {
        let ip = ip.to_canonical();
        let inside = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&ip));
        if inside(&self.deny) {
            return Err(Refusal::DeniedNetwork);
        }
        if inside(&self.allow) {
            return Ok(());
        }
        if self.own.iter().any(|own| own.addr() == ip) {
            return Err(Refusal::OwnAddress);
        }
        match ip {
            IpAddr::V4(ip) => special_v4(ip).map_or(Ok(()), Err),
            IpAddr::V6(ip) => {
                for embedded in embedded_v4(ip) {
                    self.address(embedded.into())?;
                }
                special_v6(ip).map_or(Ok(()), Err)
            }
        }
    }

    /// Whether this name may be made ready. A zone that is allowed by name overrides that it is a local one.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn name(&self, name: &Name) -> Result<(), Refusal> {
        let inside = |zones: &[Name]| zones.iter().any(|zone| name.is_within(zone));
        if inside(&self.deny_names) {
            return Err(Refusal::DeniedName);
        }
        if !self.allow_names.is_empty() {
            return if inside(&self.allow_names) { Ok(()) } else { Err(Refusal::UnlistedName) };
        }
        if inside(&self.local_zones) {
            return Err(Refusal::LocalName);
        }
        if self.reverse_zone.as_ref().is_some_and(|zone| name.is_within(zone)) {
            return Err(Refusal::ReverseName);
        }
        if name.labels().nth(1).is_none() { Err(Refusal::SingleLabel) } else { Ok(()) }
    }

    /// Whether this client's questions are learnt from.
    ///
    /// # Errors
    /// [`Refusal::Client`].
    pub fn client(&self, ip: IpAddr) -> Result<(), Refusal> {
        let ip = ip.to_canonical();
        let known = self.own.iter().chain(&self.clients).any(|net| net.contains(&ip));
        if known { Ok(()) } else { Err(Refusal::Client) }
    }

    /// Whether this is an address of this host.
    #[must_use]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || self.own.iter().any(|own| own.addr() == ip)
    }
}

/// The IPv4 addresses that an IPv6 address carries and that packets to it may end up at.
fn embedded_v4(ip: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let s = ip.segments();
    let pair = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    let found = match s {
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => [Some(pair(high, low)), None],
        // Teredo (RFC 4380): the server, and the client with its bits turned over.
        [0x2001, 0, high, low, _, _, c, d] => [Some(pair(high, low)), Some(pair(!c, !d))],
        // NAT64's well-known prefix (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => [Some(pair(high, low)), None],
        // ISATAP (RFC 5214).
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => [Some(pair(high, low)), None],
        _ => [None, None],
    };
    found.into_iter().flatten()
}

/// The registry of special IPv4 addresses (RFC 6890 and successors), and clouds' metadata services.
fn special_v4(ip: Ipv4Addr) -> Option<Refusal> {
    Some(match ip.octets() {
        [169, 254, 169, 254] | [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, 192] => Refusal::Metadata,
        [0, ..] => Refusal::Unspecified,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Refusal::Private,
        [100, 64..=127, ..] => Refusal::SharedSpace,
        [127, ..] => Refusal::Loopback,
        [169, 254, ..] => Refusal::LinkLocal,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Refusal::Documentation,
        [198, 18..=19, ..] => Refusal::Benchmarking,
        [192, 0, 0, _] | [192, 88, 99, _] => Refusal::Reserved,
        [224..=239, ..] => Refusal::Multicast,
        [255, 255, 255, 255] => Refusal::Broadcast,
        [240..=255, ..] => Refusal::Reserved,
        _ => return None,
    })
}

/// The registry of special IPv6 addresses; what is not global unicast is refused.
fn special_v6(ip: Ipv6Addr) -> Option<Refusal> {
    Some(match ip.segments() {
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] => Refusal::Metadata,
        [0, 0, 0, 0, 0, 0, 0, 0] => Refusal::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Refusal::Loopback,
        [0xfe80..=0xfebf, ..] => Refusal::LinkLocal,
        [0xfec0..=0xfeff, ..] | [0xfc00..=0xfdff, ..] => Refusal::Private,
        [0xff00..=0xffff, ..] => Refusal::Multicast,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Refusal::Documentation,
        [0x2001, 2, 0, ..] => Refusal::Benchmarking,
        // ORCHID (RFC 4843, 7343) and the rest of the protocol assignments, but not Teredo.
        [0x2001, 1..=0x1ff, ..] => Refusal::Reserved,
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x2000..=0x3fff, ..] => return None,
        _ => Refusal::Reserved,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard(change: impl FnOnce(&mut GuardSettings)) -> Guard {
        let mut settings = GuardSettings::default();
        change(&mut settings);
        let own = ["10.1.2.3/24", "198.45.1.9/28", "2a00:1:2:3::9/64"].map(|net| net.parse().unwrap());
        Guard::new(&settings, &own)
    }

    #[test]
    fn special_addresses_are_refused() {
        let guard = guard(|_| ());
        for (text, refusal) in [
            ("10.0.0.1", Refusal::Private),
            ("172.16.0.1", Refusal::Private),
            ("172.31.255.255", Refusal::Private),
            ("192.168.1.1", Refusal::Private),
            ("127.0.0.1", Refusal::Loopback),
            ("127.255.255.254", Refusal::Loopback),
            ("169.254.1.1", Refusal::LinkLocal),
            ("169.254.169.254", Refusal::Metadata),
            ("168.63.129.16", Refusal::Metadata),
            ("0.0.0.0", Refusal::Unspecified),
            ("0.1.2.3", Refusal::Unspecified),
            ("255.255.255.255", Refusal::Broadcast),
            ("240.0.0.1", Refusal::Reserved),
            ("224.0.0.251", Refusal::Multicast),
            ("100.64.0.1", Refusal::SharedSpace),
            ("100.127.255.255", Refusal::SharedSpace),
            ("192.0.2.1", Refusal::Documentation),
            ("198.51.100.1", Refusal::Documentation),
            ("203.0.113.1", Refusal::Documentation),
            ("198.19.255.255", Refusal::Benchmarking),
            ("198.45.1.9", Refusal::OwnAddress),
            ("::", Refusal::Unspecified),
            ("::1", Refusal::Loopback),
            ("fe80::1", Refusal::LinkLocal),
            ("fec0::1", Refusal::Private),
            ("fd12::1", Refusal::Private),
            ("fd00:ec2::254", Refusal::Metadata),
            ("ff02::fb", Refusal::Multicast),
            ("2001:db8::1", Refusal::Documentation),
            ("3fff:fff::1", Refusal::Documentation),
            ("2001:2::1", Refusal::Benchmarking),
            ("2001:20::1", Refusal::Reserved),
            ("100::1", Refusal::Reserved),
            ("5f00::1", Refusal::Reserved),
            ("64:ff9b:1::808:808", Refusal::Reserved),
            ("::8.8.8.8", Refusal::Reserved),
            ("2a00:1:2:3::9", Refusal::OwnAddress),
            // An IPv4 address inside an IPv6 address is what counts.
            ("::ffff:10.0.0.1", Refusal::Private),
            ("::ffff:169.254.169.254", Refusal::Metadata),
            ("2002:7f00:1::1", Refusal::Loopback),
            ("2002:a00:1::", Refusal::Private),
            ("64:ff9b::a9fe:a9fe", Refusal::Metadata),
            ("64:ff9b::c0a8:101", Refusal::Private),
            ("2001:0:808:808::f5ff:fffe", Refusal::Private),
            ("2001:0:a00:1::f7f7:f7f7", Refusal::Private),
            ("2a00::5efe:192.168.0.1", Refusal::Private),
            ("64:ff9b::198.45.1.9", Refusal::OwnAddress),
        ] {
            assert_eq!(guard.address(text.parse().unwrap()), Err(refusal), "{text}");
        }
        for text in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2606:4700::1111", "2001:4860::8888"] {
            assert_eq!(guard.address(text.parse().unwrap()), Ok(()), "{text}");
        }
        for text in ["2002:808:808::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2001:200::1"] {
            assert_eq!(guard.address(text.parse().unwrap()), Ok(()), "{text}");
        }
    }

    #[test]
    fn lists_override_in_order() {
        let guard = guard(|s| {
            s.allow_networks = vec!["10.9.0.0/16".parse().unwrap(), "10.1.2.3/32".parse().unwrap()];
            s.deny_networks = vec!["10.9.1.0/24".parse().unwrap(), "8.8.8.0/24".parse().unwrap()];
        });
        let address = |text: &str| guard.address(text.parse().unwrap());
        assert_eq!(address("10.9.2.1"), Ok(()));
        assert_eq!(address("64:ff9b::10.9.2.1"), Ok(()));
        assert_eq!(address("10.1.2.3"), Ok(()), "an own address that is allowed");
        assert_eq!(address("10.9.1.1"), Err(Refusal::DeniedNetwork));
        assert_eq!(address("8.8.8.8"), Err(Refusal::DeniedNetwork));
        assert_eq!(address("2002:808:808::1"), Err(Refusal::DeniedNetwork));
        assert_eq!(address("10.8.0.1"), Err(Refusal::Private));
    }

    #[test]
    fn ports_that_are_not_listed_are_refused() {
        let guard = guard(|_| ());
        for port in [0, 22, 25, 53, 465, 587, 993, 8080] {
            assert_eq!(guard.check([8, 8, 8, 8].into(), port), Err(Refusal::Port), "{port}");
        }
        assert_eq!(guard.check([8, 8, 8, 8].into(), 443), Ok(()));
    }

    #[test]
    fn names_by_their_zones() {
        let open = guard(|s| s.deny_names = vec!["bad.example".into()]);
        let listed = guard(|s| {
            s.allow_names = vec!["example.org".into(), "corp.internal".into()];
            s.deny_names = vec!["x.example.org".into()];
        });
        for (name, refused, refused_listed) in [
            ("www.example.org", None, None),
            ("example.org", None, None),
            ("a.x.example.org", None, Some(Refusal::DeniedName)),
            ("bad.example", Some(Refusal::DeniedName), Some(Refusal::UnlistedName)),
            ("www.bad.example", Some(Refusal::DeniedName), Some(Refusal::UnlistedName)),
            ("notbad.example", None, Some(Refusal::UnlistedName)),
            ("intranet", Some(Refusal::SingleLabel), Some(Refusal::UnlistedName)),
            (".", Some(Refusal::SingleLabel), Some(Refusal::UnlistedName)),
            ("printer.local", Some(Refusal::LocalName), Some(Refusal::UnlistedName)),
            ("db.corp.internal", Some(Refusal::LocalName), None),
            ("nas.home.arpa", Some(Refusal::LocalName), Some(Refusal::UnlistedName)),
            ("1.0.0.127.in-addr.arpa", Some(Refusal::ReverseName), Some(Refusal::UnlistedName)),
        ] {
            let name: Name = name.parse().unwrap();
            assert_eq!(open.name(&name).err(), refused, "{name}");
            assert_eq!(listed.name(&name).err(), refused_listed, "{name} with lists");
        }
    }

    #[test]
    fn strangers_questions_are_not_learnt_from() {
        let guard = guard(|_| ());
        for ip in ["192.168.7.7", "10.1.2.99", "::1", "fd00::5", "198.45.1.1", "2a00:1:2:3::77", "::ffff:10.0.0.1"] {
            assert_eq!(guard.client(ip.parse().unwrap()), Ok(()), "{ip}");
        }
        for ip in ["8.8.8.8", "198.45.1.99", "2a00:1:2:4::77"] {
            assert_eq!(guard.client(ip.parse().unwrap()), Err(Refusal::Client), "{ip}");
        }
        assert!(guard.is_own("198.45.1.9".parse().unwrap()) && !guard.is_own("198.45.1.8".parse().unwrap()));
    }

    proptest! {
        /// However an inner address is dressed up, it is refused; only the lists of the settings open it.
        #[test]
        fn no_form_of_an_inner_address_passes(bits in any::<u32>(), tail in any::<u64>(), net in 0usize..9) {
            let (base, length) = [
                ([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([127, 0, 0, 0], 8),
                ([169, 254, 0, 0], 16), ([100, 64, 0, 0], 10), ([224, 0, 0, 0], 4), ([0, 0, 0, 0], 8),
                ([198, 18, 0, 0], 15),
            ][net];
            let inner = Ipv4Addr::from(u32::from(Ipv4Addr::from(base)) | (bits >> length));
            let guard = guard(|_| ());
            let v4 = u128::from(u32::from(inner));
            let six = |bits: u128| IpAddr::V6(Ipv6Addr::from_bits(bits));
            for form in [
                IpAddr::V4(inner),
                six(0xffff_0000_0000 | v4),
                six(0x2002 << 112 | v4 << 80 | u128::from(tail)),
                six(0x0064_ff9b << 96 | v4),
                six(0x2001 << 112 | 0x0808_0808 << 64 | u128::from(tail >> 32 << 32) | (v4 ^ 0xffff_ffff)),
                six(0x2a00 << 112 | 0x5efe << 32 | v4),
            ] {
                prop_assert!(guard.check(form, 443).is_err(), "{}", form);
            }
        }
    }
}
