//! The secret that resource IDs hang on.

use std::{fmt, hash::Hasher as _};

use prewarm_ebpf::{HashKey, KEY_WORDS, resource_id};
use siphasher::sip::SipHasher24;

use crate::model::{Name, ResourceId};

/// The key of resource IDs: per installation, shared by a cluster, never shown.
#[derive(Clone)]
pub struct Key(Box<HashKey>);

impl Key {
    /// The key that belongs to a secret, which must be random. The hash wants more key than anyone would store;
    /// SipHash-2-4 as a pseudo-random function stretches it.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let mut key = Box::new([0; KEY_WORDS]);
        let (halves, _) = secret.as_chunks::<16>();
        for (index, word) in (0_u64..).zip(key.iter_mut()) {
            for (side, half) in (0_u64..).zip(halves) {
                let mut hasher = SipHasher24::new_with_key(half);
                hasher.write_u64(index);
                hasher.write_u64(side);
                *word ^= hasher.finish();
            }
        }
        Self(key)
    }

    /// The ID of a name, the same that the kernel programs give it.
    #[must_use]
    pub fn resource_id(&self, name: &Name) -> ResourceId {
        ResourceId(resource_id(&self.0, name.as_wire()))
    }

    /// The words that the parser takes it in.
    #[must_use]
    pub fn words(&self) -> &HashKey {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_depend_on_name_and_secret() {
        let (one, other) = (Key::from_secret(&[1; 32]), Key::from_secret(&[2; 32]));
        let ids: HashSet<_> = (0..1000)
            .map(|i| format!("host{i}.example.org").parse::<Name>().unwrap())
            .flat_map(|name| [one.resource_id(&name), other.resource_id(&name)])
            .collect();
        assert_eq!(ids.len(), 2000);
        assert!(Key::from_secret(&[0; 32]).words().iter().all(|&word| word != 0));
        let name: Name = "WWW.example.ORG".parse().unwrap();
        assert_eq!(one.resource_id(&name), one.resource_id(&"www.example.org".parse().unwrap()));
    }
}
