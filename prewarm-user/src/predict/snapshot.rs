//! The model's memory as bytes, to be kept across restarts.
//!
//! Comes in: a model, or bytes written before. Goes out: bytes, or a model that goes on where the other stopped. Never
//! here: files; who calls writes beside the old one and renames. What is kept is what was learnt: contexts, resources,
//! habits, seasons, ledgers, corrections, the network's lessons. Bursts and open trials are a minute's matter and begin anew. Bytes that are not whole,
//! of another version or for another size of tables are refused, and the caller begins with an empty model.

use std::io::{self, Read, Write};

use super::{
    Mixture,
    arcs::Node,
    correction::Correction,
    habits::Habit,
    resources::{Ledger, Resource},
    seasons::Season,
};
use crate::config::PredictSettings;

const MAGIC: [u8; 8] = *b"prewarmP";
/// Of the form below; another one is not read.
const VERSION: u32 = 2;

/// Why bytes are no model.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// They can't be read to the end.
    #[error("reading the predictor's snapshot")]
    Read(#[from] io::Error),
    /// They were written by another version, or are something else.
    #[error("the snapshot is none of version {VERSION}")]
    Version,
    /// They were written for tables of another size.
    #[error("the snapshot is for another predict.memory_mib")]
    Size,
    /// They are damaged.
    #[error("the snapshot is damaged")]
    Damaged,
}

/// What can be told as bytes, with a fixed number of them.
pub(super) trait Record: Sized {
    fn put(&self, to: &mut Bytes<'_>);
    fn take(from: &mut Source<'_>) -> Self;
    /// Whether it has something to tell.
    fn is_used(&self) -> bool {
        true
    }
}

/// Bytes being written.
#[derive(Debug)]
pub(super) struct Bytes<'a>(&'a mut Vec<u8>);

/// Bytes being read; what lies past the end reads as zero, and is noticed.
#[derive(Debug)]
pub(super) struct Source<'a> {
    rest: &'a [u8],
    short: bool,
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl Record for $kind {
            fn put(&self, to: &mut Bytes<'_>) {
                to.0.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut Source<'_>) -> Self {
                Self::from_le_bytes(from.bytes())
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, f32, f64);

impl<T: Record, const N: usize> Record for [T; N] {
    fn put(&self, to: &mut Bytes<'_>) {
        self.iter().for_each(|record| record.put(to));
    }

    fn take(from: &mut Source<'_>) -> Self {
        std::array::from_fn(|_| T::take(from))
    }
}

impl Bytes<'_> {
    pub(super) fn put(&mut self, record: &impl Record) -> &mut Self {
        record.put(self);
        self
    }

    /// The used records of a table, each with its place.
    fn table<T: Record>(&mut self, table: &[T]) {
        let used = table.iter().filter(|record| record.is_used()).count();
        self.put(&(table.len() as u64)).put(&(used as u64));
        for (place, record) in (0u32..).zip(table).filter(|(_, record)| record.is_used()) {
            self.put(&place).put(record);
        }
    }
}

impl Source<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        if let Some((bytes, rest)) = self.rest.split_first_chunk() {
            self.rest = rest;
            *bytes
        } else {
            self.short = true;
            [0; N]
        }
    }

    pub(super) fn take<T: Record>(&mut self) -> T {
        T::take(self)
    }

    fn table<T: Record>(&mut self, table: &mut [T]) -> Result<(), SnapshotError> {
        if self.take::<u64>() != table.len() as u64 {
            return Err(SnapshotError::Size);
        }
        for _ in 0..self.take::<u64>() {
            let place = self.take::<u32>() as usize;
            let record = self.take::<T>();
            *table.get_mut(place).filter(|_| !self.short).ok_or(SnapshotError::Damaged)? = record;
        }
        Ok(())
    }
}

impl Mixture {
    /// Writes what was learnt.
    ///
    /// # Errors
    /// When `to` does not take it.
    pub fn save(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut content = Vec::new();
        let mut bytes = Bytes(&mut content);
        let state = self.learnt();
        bytes.put(&state.now).put(state.ledger).put(&state.soon[0]).put(&state.soon[1]).put(state.worth);
        bytes.put(state.network);
        bytes.table::<Resource>(state.resources);
        bytes.table::<Node>(state.nodes);
        bytes.table::<Habit>(state.habits);
        bytes.table::<Season>(state.seasons);
        to.write_all(&MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        to.write_all(&checksum(&content).to_le_bytes())?;
        to.write_all(&content)
    }

    /// A model that goes on where the one that was written stopped. The time between does not count, since the clock
    /// may have begun anew.
    ///
    /// # Errors
    /// Why the bytes are no model for these settings.
    pub fn load(settings: &PredictSettings, from: &mut dyn Read) -> Result<Self, SnapshotError> {
        let mut head = [0; 20];
        from.read_exact(&mut head)?;
        let mut source = Source { rest: &head, short: false };
        if source.take::<[u8; 8]>() != MAGIC || source.take::<u32>() != VERSION {
            return Err(SnapshotError::Version);
        }
        let sum = source.take::<u64>();
        // A table is never larger in the file than in memory, but for places of four bytes.
        let most = (u64::from(settings.memory_mib) + 1) << 21;
        let mut content = Vec::new();
        from.take(most).read_to_end(&mut content)?;
        if checksum(&content) != sum {
            return Err(SnapshotError::Damaged);
        }
        let mut source = Source { rest: &content, short: false };
        let mut model = Self::new(settings);
        let now = source.take::<f64>();
        let (ledger, soon, worth) = (source.take::<Ledger>(), source.take::<[Correction; 2]>(), source.take());
        let state = model.learnt_mut();
        (*state.ledger, *state.soon, *state.worth) = (ledger, soon, worth);
        *state.network = source.take();
        source.table::<Resource>(state.resources)?;
        source.table::<Node>(state.nodes)?;
        source.table::<Habit>(state.habits)?;
        source.table::<Season>(state.seasons)?;
        if source.short || !source.rest.is_empty() || !now.is_finite() {
            return Err(SnapshotError::Damaged);
        }
        model.resume(now.max(0.0));
        Ok(model)
    }
}

/// FNV-1a over words: notices damage, does not stop forgery; the file lies where only prewarm writes.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (hash ^ u64::from_le_bytes(word) ^ (chunk.len() as u64) << 60)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{ResourceId, Timestamp},
        predict::{ClientKey, Predictor as _},
    };

    fn settings(memory_mib: u32) -> PredictSettings {
        PredictSettings { memory_mib, ..Default::default() }
    }

    /// A page with three followers, every minute and a half.
    fn visits(model: &mut Mixture, from_ms: u64, count: u64) {
        for visit in 0..count {
            for (resource, lag) in [(1, 0), (2, 200), (3, 500), (4, 900)] {
                let now = Timestamp::from_nanos((from_ms + visit * 90_000 + lag) * 1_000_000);
                model.learn(now, ClientKey(1), ResourceId(resource << 40 | resource));
                model.predict(now, ClientKey(1), &mut Vec::new());
            }
        }
    }

    fn bytes(model: &Mixture) -> Vec<u8> {
        let mut bytes = Vec::new();
        model.save(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_learnt_is_known_after_a_restart() {
        let mut model = Mixture::new(&settings(2));
        visits(&mut model, 1_000_000_000, 30);
        let saved = bytes(&model);
        let mut again = Mixture::load(&settings(2), &mut saved.as_slice()).unwrap();
        assert_eq!(bytes(&again), saved, "nothing lost, nothing added");
        // The clock has begun anew.
        visits(&mut again, 0, 1);
        let now = Timestamp::from_nanos(90_000_000_000);
        let mut out = Vec::new();
        again.learn(now, ClientKey(1), ResourceId(1 << 40 | 1));
        again.predict(now, ClientKey(1), &mut out);
        for resource in [2u64, 3, 4] {
            let known = out.iter().find(|p| p.resource == ResourceId(resource << 40 | resource));
            assert!(known.is_some_and(|p| p.probability > 0.8), "{out:?}");
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        let mut model = Mixture::new(&settings(1));
        visits(&mut model, 0, 5);
        let saved = bytes(&model);
        let load = |bytes: &[u8], memory| Mixture::load(&settings(memory), &mut &*bytes).unwrap_err();
        assert!(matches!(load(&saved, 2), SnapshotError::Size));
        assert!(matches!(load(&saved[..10], 1), SnapshotError::Read(_)));
        assert!(matches!(load(&saved[..saved.len() - 1], 1), SnapshotError::Damaged));
        let mut other = saved.clone();
        other[8] ^= 1;
        assert!(matches!(load(&other, 1), SnapshotError::Version));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn damage_is_noticed(at in 20usize..2000, bit in 0u8..8, garbage in prop::collection::vec(0u8.., 0..200)) {
            let mut model = Mixture::new(&settings(1));
            visits(&mut model, 0, 5);
            let mut saved = bytes(&model);
            let at = at % (saved.len() - 20) + 20;
            saved[at] ^= 1 << bit;
            prop_assert!(Mixture::load(&settings(1), &mut saved.as_slice()).is_err());
            prop_assert!(Mixture::load(&settings(1), &mut garbage.as_slice()).is_err());
        }
    }
}
