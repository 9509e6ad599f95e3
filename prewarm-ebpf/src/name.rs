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
