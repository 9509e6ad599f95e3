//! In which order the addresses of an origin are tried (RFC 8305, section 4).
//!
//! Comes in: addresses as the resolver gave them. Goes out: the same, families taking turns. Never here: a connection.

use std::net::IpAddr;

/// Lets the families take turns, IPv6 first, and keeps the resolver's order within each; doubles are dropped.
#[must_use]
pub fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(IpAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut order = Vec::with_capacity(addresses.len());
    loop {
        let pair = [v6.next(), v4.next()];
        if pair == [None, None] {
            return order;
        }
        for address in pair.into_iter().flatten() {
            if !order.contains(&address) {
                order.push(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(
            interleave(&addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"])),
            addresses(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"])
        );
        assert_eq!(interleave(&addresses(&["192.0.2.1", "192.0.2.1"])), addresses(&["192.0.2.1"]));
        assert!(interleave(&[]).is_empty());
    }
}
