//! The identity of what is asked for.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hasher},
};

/// A 64-bit keyed hash of a resource's canonical form; for a name, its lower-cased wire format (RFC 1035, 3.1).
///
/// The key is per installation, so the number means nothing to a stranger and nobody without the key can make two
/// names collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId(pub u64);

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A map whose keys are IDs, or begin with one.
pub type ResourceMap<K, V> = HashMap<K, V, BuildHasherDefault<ResourceHasher>>;

/// Hashes IDs: they are keyed hashes already, so one multiplication spreads them over a table, and nobody without the
/// key can aim at a bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceHasher(u64);

impl Hasher for ResourceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}
