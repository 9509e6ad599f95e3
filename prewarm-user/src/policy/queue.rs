//! The prefetch queue: intents that wait for their time or for a budget, best value first, then earliest deadline.
//!
//! Comes in: intents, each under the key of what it would do. Goes out: the best one whose time has come. Never here:
//! two intents that would do the same, or more than the capacity; what is worth least makes room.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use crate::model::{ActionKind, Intent, ResourceId, ResourceMap, Timestamp};

/// How often a queue is walked for what is over.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);

/// What an intent would do, without its names: the resource, the kind, the port and the place of the path in the
/// configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) resource: ResourceId,
    pub(super) kind: ActionKind,
    pub(super) port: u16,
    pub(super) path: u16,
}

/// Value, deadline and key, in the order in which intents go.
type Rank = (Reverse<u64>, Timestamp, Key);

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    intents: ResourceMap<Key, Intent>,
    /// Waiting for their time, by time.
    waiting: BTreeSet<(Timestamp, Key)>,
    /// Ready to go, by rank, each kind for itself: a budget that is used up holds back its own kind only.
    ready: [BTreeSet<Rank>; 3],
    /// No deadline lies before this.
    first_deadline: Timestamp,
}

/// A value as a number that sorts like it; values in the queue are above zero.
fn rank(key: Key, intent: &Intent) -> Rank {
    (Reverse(intent.value.max(0.0).to_bits()), intent.deadline, key)
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            intents: ResourceMap::default(),
            waiting: BTreeSet::new(),
            ready: Default::default(),
            first_deadline: Timestamp::from_nanos(u64::MAX),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.intents.len()
    }

    /// The intent that would do the same.
    pub(super) fn find(&self, key: Key) -> Option<&Intent> {
        self.intents.get(&key)
    }

    /// Takes an intent in, in place of the one that would do the same. A full queue first drops its worst eighth, or
    /// turns the newcomer down if that is worse still; returns what is dropped.
    pub(super) fn push(&mut self, key: Key, intent: Intent) -> Vec<Intent> {
        self.remove(key);
        let mut dropped = Vec::new();
        if self.intents.len() >= self.capacity {
            let mut ranks: Vec<_> = self.intents.iter().map(|(key, intent)| rank(*key, intent)).collect();
            let keep = self.capacity - self.capacity.div_ceil(8);
            let (_, &mut limit, worst) = ranks.select_nth_unstable(keep);
            if rank(key, &intent) >= limit {
                return vec![intent];
            }
            for (_, _, key) in worst.iter().copied().chain([limit]) {
                dropped.extend(self.remove(key));
            }
        }
        self.waiting.insert((intent.start, key));
        self.first_deadline = self.first_deadline.min(intent.deadline);
        self.intents.insert(key, intent);
        dropped
    }

    /// Makes those ready whose time has come.
    pub(super) fn ripen(&mut self, now: Timestamp) {
        while let Some(&(start, key)) = self.waiting.first() {
            if start > now {
                break;
            }
            self.waiting.pop_first();
            if let Some(intent) = self.intents.get(&key) {
                self.ready[key.kind as usize].insert(rank(key, intent));
            }
        }
    }

    /// The best of a kind that is ready, left in its place.
    pub(super) fn peek(&self, kind: ActionKind) -> Option<Key> {
        self.ready[kind as usize].first().map(|(_, _, key)| *key)
    }

    /// Takes the intent out that would do this.
    pub(super) fn remove(&mut self, key: Key) -> Option<Intent> {
        let intent = self.intents.remove(&key)?;
        if !self.waiting.remove(&(intent.start, key)) {
            self.ready[key.kind as usize].remove(&rank(key, &intent));
        }
        Some(intent)
    }

    /// Takes out those whose deadline has passed. Looks at all, but only when one may have passed.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Intent> {
        if now <= self.first_deadline {
            return Vec::new();
        }
        let over: Vec<_> =
            self.intents.iter().filter(|(_, intent)| intent.deadline < now).map(|(key, _)| *key).collect();
        let expired = over.into_iter().filter_map(|key| self.remove(key)).collect();
        // Looked at again after a while at the earliest, so that a full queue is not walked at every event.
        let next = self.intents.values().map(|intent| intent.deadline).min();
        self.first_deadline = next.map_or(Timestamp::from_nanos(u64::MAX), |next| next.max(now + EXPIRE_EVERY));
        expired
    }

    /// When the next one's time comes.
    pub(super) fn next_start(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(start, _)| *start)
    }

    /// Whether any is ready and held back by a budget.
    pub(super) fn has_ready(&self) -> bool {
        self.ready.iter().any(|ready| !ready.is_empty())
    }

    /// All, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Intent> {
        self.intents.values()
    }

    pub(super) fn bytes(&self) -> usize {
        // Names are shared with the history; two indices of up to 40 bytes point at each intent.
        self.intents.capacity() * (size_of::<(Key, Intent)>() + 1) * 8 / 7 + self.intents.len() * 80
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Action, IntentId};

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
            steps in prop::collection::vec((0u8..4, 0u64..20, 0u32..40, 0u64..50, 0u64..80), 1..200),
        ) {
            let mut queue = Queue::new(8);
            let mut list: Vec<Intent> = Vec::new();
            let order = |a: &Intent, b: &Intent| rank(key(a.resource.0), a).cmp(&rank(key(b.resource.0), b));
            let mut now = 0;
            for (id, (step, resource, value, start, deadline)) in (0u64..).zip(steps) {
                match step {
                    0 | 1 => {
                        let new = intent(id, resource, f64::from(value), start, deadline);
                        list.retain(|i| i.resource != new.resource);
                        let full = list.len() == 8;
                        list.push(new.clone());
                        list.sort_by(order);
                        // The worst of the eight makes room, or the newcomer stays out.
                        list.truncate(8);
                        let dropped = queue.push(key(resource), new);
                        prop_assert_eq!(dropped.len(), usize::from(full));
                    }
                    2 => {
                        now = now.max(start);
                        queue.ripen(Timestamp::from_nanos(now));
                        let best = list.iter().find(|i| i.start.as_nanos() <= now).cloned();
                        prop_assert_eq!(queue.peek(ActionKind::Resolve), best.as_ref().map(|b| key(b.resource.0)));
                        if let Some(best) = best {
                            prop_assert_eq!(queue.remove(key(best.resource.0)), Some(best.clone()));
                            list.retain(|i| i.id != best.id);
                        }
                    }
                    _ => {
                        for gone in queue.expire(Timestamp::from_nanos(now)) {
                            prop_assert!(gone.deadline.as_nanos() < now);
                            list.retain(|i| i.id != gone.id);
                        }
                    }
                }
                let mut held: Vec<_> = queue.iter().cloned().collect();
                held.sort_by(order);
                prop_assert_eq!(&held, &list);
                prop_assert_eq!(queue.len(), list.len());
            }
        }
    }

    #[test]
    fn what_is_over_goes() {
        let mut queue = Queue::new(8);
        queue.push(key(1), intent(1, 1, 1.0, 0, 10));
        queue.push(key(2), intent(2, 2, 1.0, 0, 1000));
        assert!(queue.expire(Timestamp::from_nanos(10)).is_empty());
        assert_eq!(queue.expire(Timestamp::from_nanos(11)).len(), 1);
        assert_eq!(queue.expire(Timestamp::from_nanos(500_000_000)).len(), 1);
        assert_eq!((queue.len(), queue.next_start()), (0, None));
    }
}
