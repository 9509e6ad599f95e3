//! The words that recordings are made of: times, clients, names, and who of them answers questions.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use prewarm_ebpf::resource_id;

use crate::{
    kernel::Key,
    model::{Direction, Name, Observation, ResourceId, Seen, Timestamp},
};

/// The type of a question for IPv4 addresses.
pub(super) const A: u16 = 1;
/// Servers that are remembered.
const SERVERS: usize = 4096;
/// The last label of what stands for a resource that is no host name.
const URL: &[u8] = b"url";

/// A time in seconds since 1970, in decimal notation; nanoseconds are as fine as it gets.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || whole.len() > 10 || !digits(whole) || !digits(fraction) || fraction.len() > 24 {
        return None;
    }
    let nanos = format!("{:0<9}", &fraction[..fraction.len().min(9)]);
    let duration = Duration::new(whole.parse().ok()?, nanos.parse().ok()?);
    Some(Timestamp::from_origin(duration))
}

/// A time as ISO 8601 writes it: a date, `T`, a time of day, and `Z` or the distance to it.
pub(super) fn date(text: &str) -> Option<Timestamp> {
    let number = |from: usize, to: usize| text.get(from..to).filter(|text| digits(text))?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.').or_else(|| rest.strip_prefix(',')) {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let sign = match zone.chars().next() {
        None | Some('Z' | 'z') => 0,
        Some('+') => 1,
        Some('-') => -1,
        Some(_) => return None,
    };
    let zone: String = zone.chars().filter(char::is_ascii_digit).collect();
    let offset = if sign == 0 {
        0
    } else {
        zone.get(..2)?.parse::<i64>().ok()? * 60 + zone.get(2..4).map_or(Some(0), |minutes| minutes.parse().ok())?
    };
    if !(1970..2500).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days from a date of the Gregorian calendar, years counted from March (Hinnant).
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + hour * 3600 + (minute - sign * offset) * 60 + second;
    let nanos = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction));
    Some(Timestamp::from_origin(Duration::new(seconds.try_into().ok()?, nanos.parse().ok()?)))
}

fn digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A span in seconds, in decimal notation.
pub(super) fn span(text: &[u8]) -> Option<Duration> {
    let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    // A day is more than any look-up takes and any cache should keep.
    Duration::try_from_secs_f64(seconds).ok().map(|span| span.min(Duration::from_secs(86_400)))
}

/// A client: an address, or anything else that tells clients apart.
pub(super) fn client(text: &[u8]) -> IpAddr {
    let address = std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok());
    address.unwrap_or_else(|| {
        // In fd00::/8, where nobody's address is by chance; equal texts are equal clients.
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
        let (net, low) = number.map_or_else(|| (1, text_hash(text)), |number| (0, number));
        IpAddr::V6(Ipv6Addr::from_bits(0xfd << 120 | net << 64 | u128::from(low)))
    })
}

/// FNV-1a: good enough to tell the texts of one file apart.
fn text_hash(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A host name as logs write it; nothing for what is none, as an address is.
pub(super) fn host(text: &[u8]) -> Option<Name> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    text.parse().ok()
}

/// A resource of a trace: a host name, or anything else, of which a name is made.
pub(super) fn resource(text: &[u8]) -> Option<Name> {
    if text.is_empty() {
        return None;
    }
    if text.contains(&b'/') || text.contains(&b' ') {
        return url_name(text);
    }
    std::str::from_utf8(text).ok()?.parse().ok().or_else(|| url_name(text))
}

/// A name for what is none: its bytes in labels, then one that says so. What is too long ends in its hash.
fn url_name(text: &[u8]) -> Option<Name> {
    let (text, hash) = if text.len() > 220 { (&text[..200], Some(text_hash(text))) } else { (text, None) };
    let mut wire = Vec::with_capacity(Name::MAX_WIRE);
    let mut put = |label: &[u8]| {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label);
    };
    text.chunks(Name::MAX_LABEL).for_each(&mut put);
    if let Some(hash) = hash {
        put(format!("{hash:016x}").as_bytes());
    }
    put(URL);
    put(b"");
    Name::from_wire(&wire).ok()
}

/// What a trace called the resource, if its name was made of something else than a host name.
#[must_use]
pub fn url(name: &Name) -> Option<String> {
    let labels: Vec<&[u8]> = name.labels().collect();
    let (last, rest) = labels.split_last()?;
    (*last == URL && !rest.is_empty()).then(|| String::from_utf8_lossy(&rest.concat()).into_owned())
}

/// Makes observations, and remembers who answers questions: its own questions are somebody else's, passed on.
#[derive(Debug)]
pub(super) struct Observer {
    key: Key,
    servers: HashMap<IpAddr, ()>,
}

impl Observer {
    pub(super) fn new(key: Key) -> Self {
        Self { key, servers: HashMap::new() }
    }

    /// The ID of a name, as the kernel programs give it.
    pub(super) fn id(&self, name: &Name) -> ResourceId {
        ResourceId(resource_id(self.key.words(), name.as_wire()))
    }

    /// A question.
    pub(super) fn question(
        &mut self,
        at: Timestamp,
        client: IpAddr,
        server: Option<IpAddr>,
        name: &Name,
        qtype: u16,
    ) -> Observation {
        if let Some(server) = server
            && self.servers.len() < SERVERS
        {
            self.servers.insert(server, ());
        }
        let direction = if self.servers.contains_key(&client) { Direction::Egress } else { Direction::Ingress };
        let (resource, name) = (self.id(name), Some(name.clone()));
        Observation { at, client, seen: Seen::Question { resource, name, qtype, direction, interface: 0 } }
    }

    /// An answer.
    pub(super) fn answer(
        &self,
        at: Timestamp,
        client: IpAddr,
        name: &Name,
        (qtype, rcode): (u16, u8),
        ttl: Duration,
        addresses: Vec<IpAddr>,
    ) -> Observation {
        let (resource, name) = (self.id(name), Some(name.clone()));
        let seen = Seen::Answer { resource, name, qtype, rcode, ttl, addresses, service_binding: false };
        Observation { at, client, seen }
    }

    /// A client named whom it connects to.
    pub(super) fn named(&self, at: Timestamp, client: IpAddr, name: &Name, port: u16) -> Observation {
        let resource = self.id(name);
        Observation { at, client, seen: Seen::Named { resource, name: name.clone(), port, leased: false } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        let nanos = |text: &str| time(text.as_bytes()).map(Timestamp::as_nanos);
        assert_eq!(nanos("1258531221.486539"), Some(1_258_531_221_486_539_000));
        assert_eq!(nanos("7"), Some(7_000_000_000));
        assert_eq!(nanos("7.0000000019"), Some(7_000_000_001));
        for bad in ["", ".", "-1", "1e3", "nan", "1.2.3", "99999999999", "1,5", " 1"] {
            assert_eq!(nanos(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn dates() {
        let nanos = |text: &str| date(text).map(Timestamp::as_nanos);
        assert_eq!(nanos("2018-03-24T17:15:20.600725Z"), Some(1_521_911_720_600_725_000));
        assert_eq!(nanos("2018-03-24T19:15:20.6+02:00"), Some(1_521_911_720_600_000_000));
        assert_eq!(nanos("2018-03-24T12:45:20-0430"), Some(1_521_911_720_000_000_000));
        assert_eq!(nanos("2000-02-29T00:00:00Z"), Some(951_782_400_000_000_000));
        assert_eq!(nanos("1970-01-01T00:00:00"), Some(0));
        for bad in ["", "2018", "2018-13-01T00:00:00Z", "2018-03-24T17:15:20+", "1969-12-31T23:59:59Z", "2018-03-24Tx"]
        {
            assert_eq!(nanos(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn clients_by_number_address_or_word() {
        assert_eq!(client(b"192.0.2.1"), "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(client(b"7"), "fd00::7".parse::<IpAddr>().unwrap());
        assert_eq!(client(b"phone"), client(b"phone"));
        assert_ne!(client(b"phone"), client(b"laptop"));
    }

    #[test]
    fn what_is_no_host_gets_a_name_of_its_own() {
        assert_eq!(resource(b"WWW.example.org").unwrap().to_string(), "www.example.org");
        for text in ["/index.html?a=1", "www.example.org/a/b.png", &format!("/{}", "x".repeat(200))] {
            let name = resource(text.as_bytes()).unwrap();
            assert_eq!(url(&name).as_deref(), Some(text));
        }
        let long = |tail: &str| resource(format!("/{}{tail}", "x".repeat(500)).as_bytes()).unwrap();
        assert_ne!(long("a"), long("b"));
        assert_eq!(url(&"www.example.org".parse().unwrap()), None);
        assert_eq!(host(b"192.0.2.1"), None);
    }
}
