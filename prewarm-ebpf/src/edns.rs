//! EDNS of a question: the OPT record (RFC 6891), where it comes first behind the question, as all clients send it.

use crate::{Packet, be16, be32};

const OPT: u16 = 41;
const CLIENT_SUBNET: u16 = 8;
/// Options looked at; a client subnet behind more than these is not seen.
const MAX_OPTIONS: usize = 8;

/// What the OPT record says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edns {
    /// Whether there is one.
    pub present: bool,
    /// The size of answers the client takes over UDP.
    pub size: u16,
    /// Whether DNSSEC records are wanted (DO).
    pub dnssec: bool,
    /// Whether a client subnet is given (RFC 7871).
    pub subnet: bool,
}

/// Reads the OPT record at `at`, if there is one and it lies before `end`.
#[inline(always)]
pub fn edns<P: Packet>(packet: &P, at: usize, end: usize) -> Edns {
    let none = Edns::default();
    let Some(record) = packet.window::<11>(at) else { return none };
    let begin = at + 11;
    let stop = begin + be16(record, 9) as usize;
    if record[0] != 0 || be16(record, 1) != OPT || packet.beyond(stop, end) {
        return none;
    }
    let stop = packet.blur(stop);
    let mut subnet = false;
    let mut at = packet.blur(begin);
    for _ in 0..MAX_OPTIONS {
        let Some(option) = packet.window::<4>(at) else { break };
        if packet.beyond(at + 4, stop) {
            break;
        }
        if be16(option, 0) == CLIENT_SUBNET {
            subnet = true;
            break;
        }
        at += 4 + be16(option, 2) as usize;
        if packet.beyond(at, stop) {
            break;
        }
        at = packet.blur(at);
    }
    Edns { present: true, size: be16(record, 3), dnssec: be32(record, 5) & 0x8000 != 0, subnet }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_walked_to_the_subnet() {
        let record = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x11\0\x0a\0\x02ab\0\x08\0\x07\0\x01\x18\0\xc0\0\x02";
        let whole = edns(&&record[..], 0, record.len());
        assert_eq!(whole, Edns { present: true, size: 1232, dnssec: true, subnet: true });
        // What doesn't lie in the message is not there.
        assert_eq!(edns(&&record[..], 0, record.len() - 1), Edns::default());
        for end in 0..record.len() {
            assert_eq!(edns(&&record[..end], 0, end), Edns::default());
        }
        // An option that lies about its length hides what is behind it.
        let mut lying = *record;
        lying[14] = 200;
        assert!(!edns(&&lying[..], 0, lying.len()).subnet);
    }
}
