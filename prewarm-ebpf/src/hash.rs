//! The resource ID: a keyed 64-bit hash of a lower-cased wire-format name.
//!
//! Two independent lanes of MULTILINEAR-HM (Lemire and Kaser, "Strongly universal string hashing is fast", The
//! Computer Journal 57(11), 2014, part 3) over 32-bit characters with 64-bit keys, of which each gives its upper 32
//! bits:
//!
//! `lane = base + length × k + Σ (key₂ᵢ + lowᵢ) × (key₂ᵢ₊₁ + highᵢ)  mod 2⁶⁴`, `lowᵢ` and `highᵢ` the halves of the
//! name's i-th 8 bytes, zeros behind its end.
//!
//! Two names of one length differ in some half, so the difference of their lanes is linear in a key of its own with
//! a coefficient below 2³² in size; two names of different lengths differ by a multiple of `k` below 2⁸ in size.
//! Either way the difference is uniform over the multiples of a power of two that is at most 2³¹, and `base` makes it
//! independent of where in its upper half's 2³² values a lane lies: one lane gives both the same with probability
//! 2⁻³², both lanes with 2⁻⁶⁴. Whoever doesn't hold the key has to try about 2³² names to find two that collide.

/// How many 64-bit keys there are: four for each of 32 words, and a base and a length key for each lane.
pub const KEY_WORDS: usize = 4 * WORDS + 4;
/// The words of the longest name.
const WORDS: usize = 32;

/// The key, uniformly random and secret.
pub type HashKey = [u64; KEY_WORDS];

/// A hash under way.
#[derive(Clone, Copy)]
pub(crate) struct Lanes {
    a: u64,
    b: u64,
}

impl Lanes {
    #[inline(always)]
    pub(crate) fn new(key: &HashKey) -> Self {
        Self { a: key[4 * WORDS], b: key[4 * WORDS + 1] }
    }

    /// Takes in the folded word number `index`, below 32.
    #[inline(always)]
    pub(crate) fn absorb(&mut self, key: &HashKey, index: usize, word: u64) {
        let (low, high) = (word & 0xffff_ffff, word >> 32);
        let at = 4 * (index & (WORDS - 1));
        self.a = self.a.wrapping_add(low.wrapping_add(key[at]).wrapping_mul(high.wrapping_add(key[at + 1])));
        self.b = self.b.wrapping_add(low.wrapping_add(key[at + 2]).wrapping_mul(high.wrapping_add(key[at + 3])));
    }

    #[inline(always)]
    pub(crate) fn finish(self, key: &HashKey, length: usize) -> u64 {
        let length = length as u64;
        let a = self.a.wrapping_add(length.wrapping_mul(key[4 * WORDS + 2]));
        let b = self.b.wrapping_add(length.wrapping_mul(key[4 * WORDS + 3]));
        (a & 0xffff_ffff_0000_0000) | (b >> 32)
    }
}

/// The ID of the name with this lower-cased wire format, of at most 255 bytes (what is longer counts as cut there).
#[must_use]
pub fn resource_id(key: &HashKey, wire: &[u8]) -> u64 {
    let wire = &wire[..wire.len().min(255)];
    let mut lanes = Lanes::new(key);
    for (index, bytes) in wire.chunks(8).enumerate() {
        let word = bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        lanes.absorb(key, index, word);
    }
    lanes.finish(key, wire.len())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key() -> HashKey {
        std::array::from_fn(|index| (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    }

    #[test]
    fn ids_are_spread_in_both_halves() {
        let key = key();
        let (mut whole, mut low, mut high) = (HashSet::new(), HashSet::new(), HashSet::new());
        for number in 0..40_000_u32 {
            let mut wire = vec![8];
            wire.extend(format!("{number:08}").bytes());
            wire.extend(b"\x07example\x03org\0");
            let id = resource_id(&key, &wire);
            whole.insert(id);
            low.insert(id & 0xffff);
            high.insert(id >> 48);
        }
        assert_eq!(whole.len(), 40_000);
        // Of 65,536 places, 40,000 random ones hit about 29,900.
        assert!(low.len() > 29_000 && high.len() > 29_000, "{} {}", low.len(), high.len());
    }

    #[test]
    fn the_length_counts() {
        let key = key();
        assert_ne!(resource_id(&key, b"\x01a\0"), resource_id(&key, b"\x01a\0\0"));
        assert_ne!(resource_id(&key, b"\0"), resource_id(&key, b""));
    }
}
