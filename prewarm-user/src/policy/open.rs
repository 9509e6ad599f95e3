//! The intents that were handed out and have no outcome yet.
//!
//! Comes in: intents as they are handed out, and their end. Goes out: what is open for a resource, and what ran out.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::queue::Key;
use crate::model::{ActionKind, Intent, IntentId, ResourceId, ResourceMap, Timestamp};

/// A lease lives on after its deadline while whoever holds it thinks it is of use; after this long it is given up.
const LOST_AFTER: Duration = Duration::from_secs(900);
/// A look-up or a warm request is over after this long.
const BUSY_FOR: Duration = Duration::from_secs(2);
/// A question this host sends so soon after a warm-up began, and before any answer, is the warm-up's own.
const ECHO_WITHIN: Duration = Duration::from_millis(100);

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: IntentId,
    pub(super) started: Timestamp,
    intent: Intent,
    /// When its time is over.
    end: Timestamp,
    echoed: bool,
}

impl Entry {
    /// The probability of its use, as it was when it was handed out.
    pub(super) const fn probability(&self) -> f64 {
        self.intent.probability
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Open {
    by_key: ResourceMap<Key, Entry>,
    ids: HashMap<IntentId, Key>,
    /// Sorted by resource, so that all of one stand together.
    keys: BTreeSet<Key>,
    ends: BTreeSet<(Timestamp, IntentId)>,
    /// When each was handed out, by kind, to count those under way.
    started: [BTreeSet<(Timestamp, IntentId)>; 3],
}

fn end(kind: ActionKind, intent: &Intent) -> Timestamp {
    if kind == ActionKind::Lease { intent.deadline + LOST_AFTER } else { intent.deadline }
}

impl Open {
    pub(super) fn insert(&mut self, now: Timestamp, key: Key, intent: &Intent) {
        let end = end(key.kind, intent);
        self.ends.insert((end, intent.id));
        self.started[key.kind as usize].insert((now, intent.id));
        self.ids.insert(intent.id, key);
        self.keys.insert(key);
        self.by_key.insert(key, Entry { id: intent.id, started: now, intent: intent.clone(), end, echoed: false });
    }

    pub(super) fn remove(&mut self, id: IntentId) -> Option<(Key, Entry)> {
        let key = self.ids.remove(&id)?;
        let entry = self.by_key.remove(&key)?;
        self.keys.remove(&key);
        self.ends.remove(&(entry.end, id));
        self.started[key.kind as usize].remove(&(entry.started, id));
        Some((key, entry))
    }

    pub(super) fn by_key(&self, key: Key) -> Option<&Entry> {
        self.by_key.get(&key)
    }

    /// What is open for a resource.
    pub(super) fn of(&self, resource: ResourceId) -> Vec<Key> {
        let first = Key { resource, kind: ActionKind::Resolve, port: 0, path: 0 };
        self.keys.range(first..).take_while(|key| key.resource == resource).copied().collect()
    }

    /// How many of a kind are open.
    pub(super) fn count(&self, kind: ActionKind) -> usize {
        self.started[kind as usize].len()
    }

    /// How many of a kind began so lately that they are still under way.
    pub(super) fn busy(&self, kind: ActionKind, now: Timestamp) -> usize {
        self.started[kind as usize].iter().rev().take_while(|(started, _)| now.since(*started) < BUSY_FOR).count()
    }

    /// One whose time is over.
    pub(super) fn ended(&self, now: Timestamp) -> Option<(Key, IntentId)> {
        let &(end, id) = self.ends.first()?;
        if end >= now { None } else { self.ids.get(&id).map(|key| (*key, id)) }
    }

    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Whether a question for the resource is the doing of something that just began; true once for each.
    pub(super) fn echo(&mut self, now: Timestamp, resource: ResourceId) -> bool {
        for key in self.of(resource) {
            if let Some(entry) = self.by_key.get_mut(&key)
                && !entry.echoed
                && now.since(entry.started) < ECHO_WITHIN
            {
                entry.echoed = true;
                return true;
            }
        }
        false
    }

    /// When the time of what is open for a key is over.
    pub(super) fn end(&self, key: Key) -> Option<Timestamp> {
        self.by_key.get(&key).map(|entry| entry.end)
    }

    /// What is open for a key is of no use beyond `end`.
    pub(super) fn shorten(&mut self, key: Key, end: Timestamp) {
        if let Some(entry) = self.by_key.get_mut(&key)
            && end < entry.end
        {
            self.ends.remove(&(entry.end, entry.id));
            self.ends.insert((end, entry.id));
            entry.end = end;
        }
    }

    /// An answer came: questions from now on are not the doing of what is open.
    pub(super) fn answered(&mut self, resource: ResourceId) {
        for key in self.of(resource) {
            if let Some(entry) = self.by_key.get_mut(&key) {
                entry.echoed = true;
            }
        }
    }

    pub(super) fn intents(&self) -> impl Iterator<Item = Intent> {
        self.by_key.values().map(|entry| entry.intent.clone())
    }

    pub(super) fn bytes(&self) -> usize {
        self.by_key.capacity() * (size_of::<(Key, Entry)>() + 1) * 8 / 7 + self.by_key.len() * 160
    }
}
