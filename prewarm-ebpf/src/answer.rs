//! The answer section: addresses, the least TTL, service bindings (RFC 1035, 4.1.3; RFC 9460).

use crate::{
    Counter, LIMIT, Packet, be16, be32,
    headers::{halves, mapped},
};

const A: u16 = 1;
const AAAA: u16 = 28;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;
const IN: u16 = 1;
/// Steps from label to label and from record to record, of all records together. A server that compresses needs one a
/// record; what lies behind the last step is told by [`Outline::more`].
const MAX_STEPS: usize = 64;

/// Where the addresses of an answer go.
pub trait Addresses {
    /// Takes address number `index`, below [`crate::abi::ADDRESSES`], as two words in memory order.
    fn put(&mut self, index: usize, address: [u64; 2]);
}

/// What the answer section says besides the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The least TTL of its records, in seconds; zero when there are none.
    pub ttl: u32,
    /// How many addresses it has, those included for which there was no room.
    pub addresses: usize,
    /// Whether an HTTPS or SVCB record is there.
    pub service_binding: bool,
    /// Whether there were more records than are looked at.
    pub more: bool,
}

/// Reads `count` records from `at`, which must all end before `end`. Owner names are skipped: a pointer ends one, and
/// where it points is not followed, so pointers can't loop.
///
/// # Errors
/// [`Counter::BadAnswer`] when they don't.
#[inline(always)]
pub fn records<P: Packet, S: Addresses>(
    packet: &P,
    at: usize,
    end: usize,
    count: u16,
    sink: &mut S,
) -> Result<Outline, Counter> {
    let mut at = packet.blur(at);
    let mut left = packet.blur(count as usize & LIMIT);
    let mut ttl = packet.blur_word(u64::from(u32::MAX));
    let mut addresses = packet.blur(0);
    let mut bindings = packet.blur(0);
    for _ in 0..MAX_STEPS {
        if left == 0 {
            break;
        }
        let Some(&[label]) = packet.window::<1>(at) else { return Err(Counter::BadAnswer) };
        if label > 63 && label < 0xc0 {
            return Err(Counter::BadAnswer);
        }
        if label != 0 && label < 0xc0 {
            let next = at + 1 + label as usize;
            if packet.beyond(next, end) {
                return Err(Counter::BadAnswer);
            }
            at = packet.blur(next);
            continue;
        }
        let fixed_at = packet.blur(at + if label == 0 { 1 } else { 2 });
        let Some(fixed) = packet.window::<10>(fixed_at) else { return Err(Counter::BadAnswer) };
        let (rtype, class, length) = (be16(fixed, 0), be16(fixed, 2), be16(fixed, 8) as usize);
        let data = fixed_at + 10;
        if packet.beyond(data + length, end) {
            return Err(Counter::BadAnswer);
        }
        // The uppermost bit set means zero (RFC 2181, 8).
        let seconds = be32(fixed, 4);
        let seconds = packet.blur_word(if seconds >> 31 == 1 { 0 } else { u64::from(seconds) });
        ttl = packet.blur_word(if seconds < ttl { seconds } else { ttl });
        if class == IN {
            if let Some(address) = address(packet, rtype, data, length)? {
                if addresses < crate::abi::ADDRESSES {
                    sink.put(addresses, address);
                }
                addresses += 1;
            }
            if rtype == HTTPS || rtype == SVCB {
                bindings += 1;
            }
        }
        addresses = packet.blur(addresses);
        bindings = packet.blur(bindings);
        left = packet.blur(left - 1);
        at = packet.blur(data + length);
    }
    let ttl = if ttl == u64::from(u32::MAX) { 0 } else { ttl as u32 };
    Ok(Outline { ttl, addresses, service_binding: bindings > 0, more: left > 0 })
}

/// The address of a record, if it is one for addresses.
#[inline(always)]
fn address<P: Packet>(packet: &P, rtype: u16, data: usize, length: usize) -> Result<Option<[u64; 2]>, Counter> {
    match rtype {
        A if length == 4 => Ok(packet.window::<4>(data).map(|bytes| mapped(*bytes))),
        AAAA if length == 16 => Ok(packet.window::<16>(data).map(halves)),
        A | AAAA => Err(Counter::BadAnswer),
        _ => Ok(None),
    }
}
