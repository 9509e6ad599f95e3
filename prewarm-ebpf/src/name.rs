//! Names on the wire: their end, their ID, their lower case.
//!
//! Two ways to find a name's end: [`scan`] takes the first zero byte, a word at a time, and hashes as it goes; it is
//! wrong only for names with a zero byte inside a label. [`walk`] goes from label to label and is never wrong. What
//! was only scanned may be compared with what was walked before, and nothing else.

use crate::{
    Counter, Packet,
    hash::{HashKey, Lanes},
    le64,
};

/// The longest name in wire format (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;
/// The most labels a name of that length can have, with the root.
const MAX_LABELS: usize = 128;
const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// What ends with the first zero byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The ID of these bytes.
    pub id: u64,
    /// How many they are, with the zero byte.
    pub length: usize,
}

/// Upper-case ASCII letters in a word made lower case (RFC 4343, 3), everything else left alone.
#[inline(always)]
#[must_use]
pub const fn fold(word: u64) -> u64 {
    let low = word & !HIGHS;
    let from_a = low.wrapping_add(ONES * (0x80 - b'A' as u64));
    let past_z = low.wrapping_add(ONES * (0x7f - b'Z' as u64));
    word | ((from_a & !past_z & !word & HIGHS) >> 2)
}

/// A mark at the first zero byte, and perhaps at bytes behind it; zero when there is no zero byte.
#[inline(always)]
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// Reads from `at` to the first zero byte. `None` when there is none within 255 bytes and the frame.
#[inline(always)]
pub fn scan<P: Packet>(packet: &P, at: usize, key: &HashKey) -> Option<Scan> {
    let mut lanes = Lanes::new(key);
    let mut index = 0;
    let word = loop {
        if index == 32 {
            return None;
        }
        let Some(window) = packet.window::<8>(at + 8 * index) else {
            break packet.rest(at + 8 * index);
        };
        let word = le64(window);
        if zero_bytes(word) != 0 {
            break word;
        }
        lanes.absorb(key, index, fold(word));
        index += 1;
    };
    // From here on it doesn't matter how the loop was left.
    let (index, word) = (packet.blur(index) & 31, packet.blur_word(word));
    let zeros = zero_bytes(word);
    if zeros == 0 {
        return None;
    }
    // One bit, the lowest of the zero byte; one less is a mask of all bytes before it.
    let bit = (zeros & zeros.wrapping_neg()) >> 7;
    lanes.absorb(key, index, fold(word) & (bit - 1));
    // Multiplying moves the number of the zero byte into the uppermost one.
    let byte = (bit.wrapping_mul(0x0001_0203_0405_0607) >> 56) as usize;
    let length = 8 * index + byte + 1;
    if length > MAX_NAME {
        return None;
    }
    let length = packet.blur(length);
    Some(Scan { id: lanes.finish(key, length), length })
}

/// Walks the labels from `at` and gives the name's length with its terminating zero.
///
/// # Errors
/// The reason when the bytes up to `end` are no uncompressed name of at most 255 bytes.
#[inline(always)]
pub fn walk<P: Packet>(packet: &P, at: usize, end: usize) -> Result<usize, Counter> {
    let mut length = 0;
    for _ in 0..MAX_LABELS {
        let Some(&[label]) = packet.window::<1>(at + length) else {
            return Err(Counter::NameOverrun);
        };
        length += 1 + label as usize;
        if label == 0 {
            if packet.beyond(at + length, end) {
                return Err(Counter::NameOverrun);
            }
            return Ok(packet.blur(length));
        }
        if label >= 0xc0 {
            return Err(Counter::NameCompressed);
        }
        if label > 63 {
            return Err(Counter::LabelType);
        }
        if length >= MAX_NAME {
            return Err(Counter::NameTooLong);
        }
    }
    Err(Counter::NameTooLong)
}

/// The ID of a name whose labels were walked, zero bytes inside them or not.
#[inline(always)]
pub fn hash_walked<P: Packet>(packet: &P, at: usize, length: usize, key: &HashKey) -> u64 {
    let mut lanes = Lanes::new(key);
    let mut index = 0;
    // All words but the last, which holds one to eight bytes.
    while index < 31 && packet.beyond(length, 8 * index + 8) {
        lanes.absorb(key, index, fold(word(packet, at + 8 * index)));
        index += 1;
    }
    let index = packet.blur(index) & 31;
    let unused = (64 - 8 * (length - 8 * index)) & 63;
    let last = fold(word(packet, packet.blur(at + 8 * index)));
    lanes.absorb(key, index, (last << unused) >> unused);
    lanes.finish(key, length)
}

/// Eight bytes of the frame, zeros behind its end.
#[inline(always)]
pub fn word<P: Packet>(packet: &P, at: usize) -> u64 {
    packet.blur_word(match packet.window::<8>(at) {
        Some(window) => le64(window),
        None => packet.rest(at),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{KEY_WORDS, resource_id};

    fn key() -> HashKey {
        let mut state = 1_u64;
        std::array::from_fn::<_, KEY_WORDS, _>(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state
        })
    }

    proptest! {
        #[test]
        fn folding_is_that_of_the_standard_library(bytes in any::<[u8; 8]>()) {
            let mut lower = bytes;
            lower.make_ascii_lowercase();
            prop_assert_eq!(fold(u64::from_le_bytes(bytes)).to_le_bytes(), lower);
        }

        #[test]
        fn a_scan_ends_at_the_first_zero(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..40) {
            let frame = &bytes[..];
            let wanted = frame.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0)).map(|zero| zero + 1);
            match scan(&frame, at, &key()) {
                Some(found) if at + found.length <= frame.len() => {
                    prop_assert_eq!(Some(found.length), wanted);
                    let lower = frame[at..at + found.length].to_ascii_lowercase();
                    prop_assert_eq!(found.id, resource_id(&key(), &lower));
                }
                // Behind the end there are zeros; whoever calls sees that the name is not inside its message.
                Some(_) => prop_assert_eq!(wanted, None),
                None => prop_assert!(wanted.is_none_or(|length| length > MAX_NAME)),
            }
        }

        #[test]
        fn three_ways_to_an_id_agree(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..64), 0..5)) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(label.len() as u8);
                wire.extend(label);
            }
            wire.push(0);
            prop_assume!(wire.len() <= MAX_NAME);
            let mut frame = vec![7; 54];
            frame.extend(&wire);
            frame.extend([0, 1, 0, 1]);
            let frame = &frame[..];
            let length = walk(&frame, 54, frame.len()).unwrap();
            prop_assert_eq!(length, wire.len());
            let id = resource_id(&key(), &wire.to_ascii_lowercase());
            prop_assert_eq!(hash_walked(&frame, 54, length, &key()), id);
            if let Some(scan) = scan(&frame, 54, &key()) {
                prop_assert_eq!(scan.length == length, scan.id == id);
            }
        }
    }

    #[test]
    fn every_break_of_a_name_has_its_reason() {
        for (wire, reason) in [
            (&b"\xc0\x0c"[..], Counter::NameCompressed),
            (b"\x01a\xff\x00", Counter::NameCompressed),
            (b"\x40", Counter::LabelType),
            (b"\xbf", Counter::LabelType),
            (b"\x05ab", Counter::NameOverrun),
            (b"", Counter::NameOverrun),
        ] {
            assert_eq!(walk(&wire, 0, wire.len()), Err(reason), "{wire:02x?}");
        }
        let long = [&[63; 64][..], &[63; 64], &[63; 64], &[63; 64], b"\0"].concat();
        assert_eq!(walk(&&long[..], 0, long.len()), Err(Counter::NameTooLong));
        // The name is there, but its message ends before.
        assert_eq!(walk(&&b"\x01a\0"[..], 0, 2), Err(Counter::NameOverrun));
    }
}
