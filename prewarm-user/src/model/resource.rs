//! The identity of what is asked for.

use std::fmt;

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
