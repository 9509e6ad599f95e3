//! How often a resource was seen lately, roughly, in fixed memory (TinyLFU: Einziger, Friedman, Manes 2017).
//!
//! Comes in: sightings. Goes out: an estimate from 0 to 15, never below the truth since the last ageing. Never here:
//! the resources themselves.

use crate::model::ResourceId;

/// A count-min sketch of 4-bit counters whose counts are halved every so many sightings.
#[derive(Debug)]
pub(super) struct Sketch {
    /// Sixteen counters a word.
    words: Vec<u64>,
    mask: u64,
    sightings: usize,
    halve_at: usize,
}

const ROWS: u64 = 4;
const TOP: u64 = 15;

impl Sketch {
    /// A sketch for about `entries` resources of interest.
    pub(super) fn new(entries: usize) -> Self {
        // Sixteen counters a row and entry: with ten sightings an entry before ageing, strangers rarely meet in all four.
        let words = (entries.max(16) * 4).next_power_of_two();
        Self { words: vec![0; words], mask: words as u64 - 1, sightings: 0, halve_at: entries.max(16) * 10 }
    }

    /// Notes a sighting.
    pub(super) fn add(&mut self, resource: ResourceId) {
        let least = self.estimate(resource);
        if least < TOP {
            // Only the least counters grow: that keeps the others from overstating.
            for row in 0..ROWS {
                let (word, shift) = self.place(resource, row);
                if (self.words[word] >> shift) & TOP == least {
                    self.words[word] += 1 << shift;
                }
            }
        }
        self.sightings += 1;
        if self.sightings >= self.halve_at {
            self.sightings /= 2;
            for word in &mut self.words {
                *word = (*word >> 1) & 0x7777_7777_7777_7777;
            }
        }
    }

    /// How often it was seen, at most.
    pub(super) fn estimate(&self, resource: ResourceId) -> u64 {
        (0..ROWS)
            .map(|row| {
                let (word, shift) = self.place(resource, row);
                (self.words[word] >> shift) & TOP
            })
            .min()
            .unwrap_or(0)
    }

    /// Bytes taken.
    pub(super) fn bytes(&self) -> usize {
        self.words.capacity() * 8
    }

    fn place(&self, resource: ResourceId, row: u64) -> (usize, u32) {
        let mut hash = (resource.0 ^ (row << 56)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        hash ^= hash >> 29;
        // Each row has four counters of its own in a word, so rows never share one.
        let counter = row * 4 + (hash >> 62);
        ((hash & self.mask) as usize, (counter * 4) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_ages() {
        let mut sketch = Sketch::new(1024);
        for _ in 0..6 {
            sketch.add(ResourceId(7));
        }
        assert!(sketch.estimate(ResourceId(7)) >= 6);
        assert!(sketch.estimate(ResourceId(8)) < 6);
        for other in 100..12_000 {
            sketch.add(ResourceId(other));
        }
        assert!(sketch.estimate(ResourceId(7)) < TOP, "counts are halved");
        for _ in 0..100 {
            sketch.add(ResourceId(9));
        }
        assert_eq!(sketch.estimate(ResourceId(9)), TOP);
    }
}
