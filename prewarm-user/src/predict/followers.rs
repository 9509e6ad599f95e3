//! What followed a resource so far: the plainest context, as it was counted.

use super::{Mixture, arcs, lags};
use crate::model::ResourceId;

/// A resource that followed another within a minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Follower {
    /// What.
    pub resource: ResourceId,
    /// How often it followed; counts fade.
    pub hits: u32,
    /// Out of how many times.
    pub trials: u32,
    /// How many of the hits came up to 0.02, 0.1, 0.3, 1, 3, 10, 30 and 60 seconds later, as shares.
    pub lag_shares: [f32; lags::BINS],
}

impl Mixture {
    /// What followed a resource, most often first.
    pub(super) fn followed(&self, resource: ResourceId) -> Vec<Follower> {
        let node = self.resources.find(resource).and_then(|at| self.arcs.find(arcs::key(&[1, u64::from(at)])));
        let Some(node) = node else { return Vec::new() };
        let follower = |arc: arcs::Arc<'_>| {
            let hits: u32 = arc.lags.iter().map(|&count| u32::from(count)).sum();
            Some(Follower {
                resource: self.resources.id(arc.to)?,
                hits,
                trials: u32::from(node.count),
                lag_shares: arc.lags.map(|count| f32::from(count) / hits.max(1) as f32),
            })
        };
        let mut followers: Vec<_> = node.arcs().filter_map(follower).collect();
        followers.sort_by(|a, b| b.hits.cmp(&a.hits).then(a.resource.cmp(&b.resource)));
        followers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::PredictSettings,
        model::Timestamp,
        predict::{ClientKey, Predictor as _},
    };

    #[test]
    fn counts_are_told_as_they_are() {
        let mut model = Mixture::new(&PredictSettings { memory_mib: 1, ..Default::default() });
        for visit in 0..6u64 {
            for (resource, lag) in [(1, 0), (2, 200), (3, 900)].into_iter().take(if visit < 4 { 3 } else { 2 }) {
                let now = Timestamp::from_nanos((visit * 90_000 + lag) * 1_000_000);
                model.learn(now, ClientKey(1), ResourceId(resource << 40 | resource));
            }
        }
        let id = |n: u64| ResourceId(n << 40 | n);
        let told = model.followers(id(1));
        let counts: Vec<_> = told.iter().map(|f| (f.resource, f.hits, f.trials)).collect();
        assert_eq!(counts, [(id(2), 6, 6), (id(3), 4, 6)]);
        assert_eq!((told[0].lag_shares[2], told[1].lag_shares[3]), (1.0, 1.0), "0.2 s and 0.9 s");
        assert!(model.followers(id(9)).is_empty());
    }
}
