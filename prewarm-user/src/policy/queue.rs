//! The prefetch queue: intents that wait for their time or for a budget, best value first, then earliest deadline.
//!
//! Comes in: intents, each under the key of what it would do. Goes out: the best one whose time has come. Never here:
//! two intents that would do the same, or more than the capacity; the one worth least makes room.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use crate::model::{ActionKind, Intent, IntentId, ResourceId, Timestamp};

/// What an intent would do, without its names: the resource, the kind, the port and the place of the path in the
/// configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) resource: ResourceId,
    pub(super) kind: ActionKind,
    pub(super) port: u16,
    pub(super) path: u16,
}

/// Value, deadline and number, in the order in which intents go.
type Rank = (Reverse<u64>, Timestamp, IntentId);

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    intents: HashMap<IntentId, (Key, Intent)>,
    keys: HashMap<Key, IntentId>,
    /// Waiting for their time, by time.
    waiting: BTreeSet<(Timestamp, IntentId)>,
    /// Ready to go, by rank, each kind for itself: a budget that is used up holds back its own kind only.
    ready: BTreeMap<ActionKind, BTreeSet<Rank>>,
    /// All, by rank, to find the worst.
    ranks: BTreeSet<Rank>,
    deadlines: BTreeSet<(Timestamp, IntentId)>,
}

/// A value as a number that sorts like it; values in the queue are above zero.
fn rank(intent: &Intent) -> Rank {
    (Reverse(intent.value.max(0.0).to_bits()), intent.deadline, intent.id)
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            intents: HashMap::new(),
            keys: HashMap::new(),
            waiting: BTreeSet::new(),
            ready: BTreeMap::new(),
            ranks: BTreeSet::new(),
            deadlines: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.intents.len()
    }

    /// The intent that would do the same.
    pub(super) fn find(&self, key: Key) -> Option<&Intent> {
        self.intents.get(self.keys.get(&key)?).map(|(_, intent)| intent)
    }

    /// Takes an intent in; returns the one that had to go for it, which may be itself.
    pub(super) fn push(&mut self, key: Key, intent: Intent) -> Option<Intent> {
        let mut dropped = self.remove(key);
        if self.intents.len() >= self.capacity
            && let Some(&worst) = self.ranks.last()
        {
            if worst <= rank(&intent) {
                return Some(intent);
            }
            dropped = self.take(worst.2).map(|(_, intent)| intent);
        }
        let id = intent.id;
        self.waiting.insert((intent.start, id));
        self.ranks.insert(rank(&intent));
        self.deadlines.insert((intent.deadline, id));
        self.keys.insert(key, id);
        self.intents.insert(id, (key, intent));
        dropped
    }

    /// Makes those ready whose time has come.
    pub(super) fn ripen(&mut self, now: Timestamp) {
        while let Some(&(start, id)) = self.waiting.first() {
            if start > now {
                break;
            }
            self.waiting.pop_first();
            if let Some((key, intent)) = self.intents.get(&id) {
                self.ready.entry(key.kind).or_default().insert(rank(intent));
            }
        }
    }

    /// The best of a kind that is ready, left in its place.
    pub(super) fn peek(&self, kind: ActionKind) -> Option<(Key, &Intent)> {
        let (_, _, id) = self.ready.get(&kind)?.first()?;
        self.intents.get(id).map(|(key, intent)| (*key, intent))
    }

    /// Takes the intent out that would do this.
    pub(super) fn remove(&mut self, key: Key) -> Option<Intent> {
        let id = *self.keys.get(&key)?;
        self.take(id).map(|(_, intent)| intent)
    }

    /// Takes out one whose deadline has passed.
    pub(super) fn pop_expired(&mut self, now: Timestamp) -> Option<Intent> {
        let &(deadline, id) = self.deadlines.first()?;
        if deadline >= now { None } else { self.take(id).map(|(_, intent)| intent) }
    }

    /// When the next one's time comes.
    pub(super) fn next_start(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(start, _)| *start)
    }

    /// Whether any is ready and held back by a budget.
    pub(super) fn has_ready(&self) -> bool {
        self.ready.values().any(|ready| !ready.is_empty())
    }

    /// All, best first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Intent> {
        self.ranks.iter().filter_map(|(_, _, id)| self.intents.get(id)).map(|(_, intent)| intent)
    }

    pub(super) fn bytes(&self) -> usize {
        // Names are shared with the history; five indices of 16 to 32 bytes point at each intent.
        self.intents.capacity() * (size_of::<(IntentId, (Key, Intent))>() + 1) * 8 / 7 + self.intents.len() * 200
    }

    fn take(&mut self, id: IntentId) -> Option<(Key, Intent)> {
        let (key, intent) = self.intents.remove(&id)?;
        self.keys.remove(&key);
        self.waiting.remove(&(intent.start, id));
        self.deadlines.remove(&(intent.deadline, id));
        self.ranks.remove(&rank(&intent));
        if let Some(ready) = self.ready.get_mut(&key.kind) {
            ready.remove(&rank(&intent));
        }
        Some((key, intent))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Action;

    fn key(resource: u64) -> Key {
        Key { resource: ResourceId(resource), kind: ActionKind::Resolve, port: 0, path: 0 }
    }

    fn intent(id: u64, resource: u64, value: f64, start: u64, deadline: u64) -> Intent {
        Intent {
            id: IntentId(id),
            resource: ResourceId(resource),
            action: Action::Resolve { name: "a.example".parse().unwrap() },
            probability: 0.5,
            value,
            start: Timestamp::from_nanos(start),
            deadline: Timestamp::from_nanos(deadline),
            cause: Timestamp::ZERO,
        }
    }

    proptest! {
        /// The queue against a plain list.
        #[test]
        fn behaves_like_a_sorted_list(
            steps in prop::collection::vec((0u8..4, 0u64..12, 0u32..40, 0u64..50, 0u64..80), 1..200),
        ) {
            let mut queue = Queue::new(6);
            let mut list: Vec<Intent> = Vec::new();
            let order = |a: &Intent, b: &Intent| rank(a).cmp(&rank(b));
            let mut now = 0;
            for (id, (step, resource, value, start, deadline)) in (0u64..).zip(steps) {
                match step {
                    0 | 1 => {
                        let new = intent(id, resource, f64::from(value), start, deadline);
                        list.retain(|i| i.resource != new.resource);
                        list.push(new.clone());
                        list.sort_by(order);
                        list.truncate(6);
                        queue.push(key(resource), new);
                    }
                    2 => {
                        now = now.max(start);
                        queue.ripen(Timestamp::from_nanos(now));
                        let best = list.iter().find(|i| i.start.as_nanos() <= now).cloned();
                        prop_assert_eq!(queue.peek(ActionKind::Resolve).map(|(_, i)| i.clone()), best.clone());
                        if let Some(best) = best {
                            queue.remove(key(best.resource.0));
                            list.retain(|i| i.id != best.id);
                        }
                    }
                    _ => {
                        while let Some(gone) = queue.pop_expired(Timestamp::from_nanos(now)) {
                            prop_assert!(gone.deadline.as_nanos() < now);
                            list.retain(|i| i.id != gone.id);
                        }
                        prop_assert!(list.iter().all(|i| i.deadline.as_nanos() >= now));
                    }
                }
                prop_assert_eq!(queue.iter().cloned().collect::<Vec<_>>(), list.clone());
                prop_assert_eq!(queue.len(), list.len());
            }
        }
    }
}
