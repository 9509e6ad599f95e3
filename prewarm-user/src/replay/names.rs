//! Two caches side by side, one of a world without prewarm and one of a world with it: who would have waited for a name.
//!
//! Comes in: accesses, answers, look-ups made ahead, each with its time. Goes out: how long each access waits. Both are
//! shared by all clients, as the resolver of a host or a network is; an answer is kept for its TTL, and a hit extends
//! nothing.

use std::time::Duration;

use crate::model::{ResourceId, ResourceMap, Timestamp};

/// Names above which those that no cache holds any more are dropped.
const MANY: usize = 1 << 17;
/// Names that the caches hold at most; what comes then finds them empty, as a cache that is flooded forgets.
const MOST: usize = 1 << 20;

/// What an access finds in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The answer.
    Ready,
    /// A look-up under way, which takes so long yet.
    UnderWay(Duration),
    /// Nothing.
    Nothing,
}

impl Found {
    /// How long that keeps the client waiting where a look-up takes so long.
    pub(super) fn wait(self, took: Duration) -> Duration {
        match self {
            Self::Ready => Duration::ZERO,
            Self::UnderWay(left) => left.min(took),
            Self::Nothing => took,
        }
    }
}

/// An answer in a cache.
#[derive(Clone, Copy, Debug, Default)]
struct Copy {
    ready: Timestamp,
    expire: Timestamp,
}

impl Copy {
    fn access(&mut self, at: Timestamp, took: Duration, ttl: Duration) -> Found {
        if self.expire > at {
            return if self.ready <= at { Found::Ready } else { Found::UnderWay(self.ready.since(at)) };
        }
        *self = Self { ready: at + took, expire: at + took + ttl };
        Found::Nothing
    }
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    cold: Copy,
    warm: Copy,
    /// When the look-up ahead began that nobody has used so far.
    mark: Option<Timestamp>,
    /// As last observed.
    took: Option<Duration>,
    ttl: Option<Duration>,
}

/// Look-ups made ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookUps {
    /// All of them.
    pub made: u64,
    /// Whose answer was asked for while it was kept.
    pub used: u64,
    /// Used within ten seconds of their beginning.
    pub used_10: u64,
    /// Used within a minute.
    pub used_60: u64,
    /// Asked for while they were under way.
    pub late: u64,
}

impl LookUps {
    /// Whose answer nobody asked for in time.
    #[must_use]
    pub const fn in_vain(&self) -> u64 {
        self.made - self.used - self.late
    }
}

/// All names.
#[derive(Debug)]
pub(super) struct Names {
    names: ResourceMap<ResourceId, Name>,
    prune_at: usize,
    took: Duration,
    ttl: Duration,
    pub(super) look_ups: LookUps,
}

impl Names {
    /// None; a look-up takes so long, and an answer is kept for so long, where nothing was observed.
    pub(super) fn new(took: Duration, ttl: Duration) -> Self {
        Self { names: ResourceMap::default(), prune_at: MANY, took, ttl, look_ups: LookUps::default() }
    }

    /// How long a look-up takes.
    pub(super) fn took(&self, resource: ResourceId) -> Duration {
        self.names.get(&resource).and_then(|name| name.took).unwrap_or(self.took)
    }

    /// How long its answer is kept.
    pub(super) fn ttl(&self, resource: ResourceId) -> Duration {
        self.names.get(&resource).and_then(|name| name.ttl).unwrap_or(self.ttl)
    }

    /// Somebody asks: what is found without prewarm, and with it.
    pub(super) fn access(&mut self, at: Timestamp, resource: ResourceId) -> (Found, Found) {
        let (took, ttl) = (self.took(resource), self.ttl(resource));
        self.prune(at);
        let name = self.names.entry(resource).or_default();
        let cold = name.cold.access(at, took, ttl);
        let warm = name.warm.access(at, took, ttl);
        if let Some(mark) = name.mark.take() {
            let lead = at.since(mark);
            match warm {
                Found::Ready => {
                    self.look_ups.used += 1;
                    self.look_ups.used_10 += u64::from(lead <= Duration::from_secs(10));
                    self.look_ups.used_60 += u64::from(lead <= Duration::from_secs(60));
                }
                Found::UnderWay(_) => self.look_ups.late += 1,
                // It ran out before.
                Found::Nothing => {}
            }
        }
        (cold, warm)
    }

    /// An answer came for an access that found this: what was taken for its time and TTL is put right.
    pub(super) fn answered(
        &mut self,
        at: Timestamp,
        resource: ResourceId,
        took: Option<Duration>,
        ttl: Option<Duration>,
        (cold, warm): (Found, Found),
    ) {
        let keep = ttl.unwrap_or(self.ttl);
        let name = self.names.entry(resource).or_default();
        name.took = took.or(name.took);
        name.ttl = ttl.or(name.ttl);
        for (copy, found) in [(&mut name.cold, cold), (&mut name.warm, warm)] {
            if found == Found::Nothing {
                *copy = Copy { ready: at, expire: at + keep };
            }
        }
    }

    /// Until when the cache of the world with prewarm keeps the answer.
    pub(super) fn kept_until(&self, resource: ResourceId) -> Timestamp {
        self.names.get(&resource).map_or(Timestamp::ZERO, |name| name.warm.expire)
    }

    /// Looks a name up ahead; gives when its answer is there and until when it is kept. What the cache holds is answered
    /// from there, and renews nothing.
    pub(super) fn look_up(&mut self, at: Timestamp, resource: ResourceId) -> (Timestamp, Timestamp) {
        let (took, ttl) = (self.took(resource), self.ttl(resource));
        self.prune(at);
        let name = self.names.entry(resource).or_default();
        if name.warm.expire <= at {
            name.warm = Copy { ready: at + took, expire: at + took + ttl };
            name.mark = Some(at);
            self.look_ups.made += 1;
        }
        (name.warm.ready.max(at), name.warm.expire)
    }

    /// Drops what no cache holds, once there is much of it.
    fn prune(&mut self, at: Timestamp) {
        if self.names.len() >= self.prune_at {
            self.names.retain(|_, name| name.cold.expire.max(name.warm.expire) > at);
            if self.names.len() >= MOST {
                self.names.clear();
            }
            self.prune_at = (2 * self.names.len()).clamp(MANY, MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(40);
    const TTL: Duration = Duration::from_secs(60);
    const NAME: ResourceId = ResourceId(7);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_hit_extends_nothing_and_an_answer_sets_the_time() {
        let mut names = Names::new(TOOK, TTL);
        assert_eq!(names.access(at(1000), NAME), (Found::Nothing, Found::Nothing));
        assert_eq!(names.access(at(1010), NAME).0, Found::UnderWay(Duration::from_millis(30)));
        let found = (Found::Nothing, Found::Nothing);
        names.answered(at(1005), NAME, Some(Duration::from_millis(5)), Some(Duration::from_secs(2)), found);
        assert_eq!(names.access(at(3004), NAME), (Found::Ready, Found::Ready));
        assert_eq!(names.access(at(3005), NAME), (Found::Nothing, Found::Nothing));
        // As observed from then on: five milliseconds, two seconds.
        assert_eq!(names.kept_until(NAME), at(3005 + 5 + 2000));
    }

    #[test]
    fn a_look_up_ahead_is_for_one_world_alone_and_renews_nothing() {
        let mut names = Names::new(TOOK, TTL);
        assert_eq!(names.look_up(at(1000), NAME), (at(1040), at(61_040)));
        assert_eq!(names.look_up(at(2000), NAME), (at(2000), at(61_040)), "it is in the cache");
        assert_eq!(names.access(at(5000), NAME), (Found::Nothing, Found::Ready));
        assert_eq!(names.look_ups, LookUps { made: 1, used: 1, used_10: 1, used_60: 1, late: 0 });
        // Used once; what runs out unused is in vain.
        names.look_up(at(70_000), NAME);
        names.access(at(140_000), NAME);
        assert_eq!((names.look_ups.made, names.look_ups.used, names.look_ups.in_vain()), (2, 1, 1));
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let mut names = Names::new(TOOK, Duration::from_secs(86_400));
        for number in 0..MOST as u64 + 200_000 {
            names.access(at(1000 + number / 1000), ResourceId(number << 24));
        }
        assert!(names.names.len() <= MOST, "{}", names.names.len());
    }
}
