//! Why the model says what it says: for each candidate the counts behind it, who spoke for it, and what was made of it.
//!
//! Comes in: a client, how far back to look, and the resource in question. Goes out: plain data. Never here: a change
//! of anything that was learnt; only the room in which candidates are gathered is used.

use serde::{Serialize, Serializer};

use super::{
    ClientKey, Mixture,
    arcs::{Handle, Node},
    features::squash,
    gather::{self, Candidate, View},
    lags, network,
    resources::Ref,
};
use crate::model::{ResourceId, Timestamp, Timing};

/// Why a client's candidates stand where they stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// The client's accesses of the last minute, newest first, each resource once.
    pub burst: Vec<Heard>,
    /// The candidates, best worth first.
    pub candidates: Vec<Reason>,
}

/// One access of the burst.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Heard {
    /// Of what.
    #[serde(serialize_with = "hexadecimal")]
    pub resource: ResourceId,
    /// Seconds ago.
    pub age_seconds: f64,
}

/// One candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// What.
    #[serde(serialize_with = "hexadecimal")]
    pub resource: ResourceId,
    /// Whether it is a candidate by itself; if not it was only asked for, and nothing proposes it.
    pub proposed: bool,
    /// Whether no copy of it would be there without prewarm.
    pub cold: bool,
    /// The probability of an access within the horizon.
    pub probability: f64,
    /// The same before the last correction.
    pub uncorrected: f64,
    /// The probability that a copy made now is used, given that no better moment comes.
    pub worth: f64,
    /// When a tenth, a half and nine tenths of the accesses that come have come, in seconds.
    pub quantiles_seconds: [f64; 3],
    /// When they come.
    #[serde(skip)]
    pub timing: Timing,
    /// The contexts that know it, the last access's first.
    pub votes: Vec<Vote>,
    /// What the judgement turned on: by how much the logit of the probability would be lower without it, most first.
    pub effects: Vec<Effect>,
    /// Its rhythm on the whole host.
    pub rhythm: Rhythm,
    /// This client's habit with it, if there is one.
    pub habit: Option<Rhythm>,
}

/// Which kind of context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The access alone.
    One,
    /// The access alone, of this client only.
    OneOfClient,
    /// With the one before.
    Two,
    /// With the two before.
    Three,
    /// An access of another client, alone.
    Other,
}

/// What one context says of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Vote {
    /// Which kind.
    pub order: Order,
    /// The access that forms it.
    #[serde(serialize_with = "hexadecimal")]
    pub access: ResourceId,
    /// Which one of the burst, the last being 0; for another client's the place among the host's latest.
    pub place: usize,
    /// How many seconds ago it was.
    pub age_seconds: f64,
    /// How often the candidate followed within a minute; counts fade.
    pub hits: u32,
    /// Out of how many times that the context occurred before.
    pub trials: u32,
    /// How many of the hits came up to 0.02, 0.1, 0.3, 1, 3, 10, 30 and 60 seconds later, as shares.
    pub lag_shares: [f32; lags::BINS],
    /// How many hits came later than the context is old, and so may still come.
    pub due: f32,
    /// How many occurrences ago it followed last; 0 is the latest one that is over.
    pub last_followed: u8,
    /// For the latest eight occurrences that are over, whether it followed; the latest is the lowest bit.
    pub lately: u8,
}

/// What the judgement turned on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// What was looked at.
    pub of: &'static str,
    /// How much it adds to the logit of the probability.
    pub logit: f64,
}

/// When a resource comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rhythm {
    /// Accesses.
    pub count: u32,
    /// Seconds since the last.
    pub age_seconds: f64,
    /// Mean gap (geometric) in seconds, from two accesses on.
    pub mean_gap_seconds: Option<f64>,
    /// By which factor gaps differ from it, in the mean.
    pub spread: Option<f64>,
}

/// The names of the groups of features, in their order.
const GROUPS: [&str; network::GROUPS] = [
    "last access",
    "last access, this client",
    "last two accesses",
    "last three accesses",
    "earlier accesses",
    "earlier accesses, this client",
    "earlier pairs",
    "agreement of earlier accesses",
    "other clients",
    "own rhythm",
    "this client's habit",
    "how predictions of it turned out",
];
const ORDERS: [Order; 4] = [Order::One, Order::OneOfClient, Order::Two, Order::Three];

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn hexadecimal<S: Serializer>(resource: &ResourceId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(resource)
}

/// A rhythm from a mean and a deviation of logarithms to the base 2.
fn rhythm(count: u16, age: f64, pace: f32, spread: f32) -> Rhythm {
    let known = count > 1;
    Rhythm {
        count: count.into(),
        age_seconds: age.max(0.0),
        mean_gap_seconds: known.then(|| f64::from(pace).exp2()),
        spread: known.then(|| f64::from(spread).exp2()),
    }
}

impl Mixture {
    /// The reasons for what is said of this client's next accesses: after its latest access, or with `last` of two and
    /// more, as if that many less one had not been yet; the counts are today's. With `resource`, of this one only, be
    /// it a candidate or not.
    pub(super) fn reasons(
        &mut self,
        now: Timestamp,
        client: ClientKey,
        last: Option<usize>,
        resource: Option<ResourceId>,
    ) -> Explanation {
        let mut now = self.time(now);
        let Some(mut burst) = self.recent.get(client).copied() else { return Explanation::default() };
        let over = last.unwrap_or(1).max(1) - 1;
        if over > 0 {
            burst.step_back(over);
            let Some(step) = burst.steps().first() else { return Explanation::default() };
            now = step.at;
        }
        let view = View {
            now,
            lead: self.lead,
            client: super::mixture::number(client),
            burst: &burst,
            arcs: &self.arcs,
            resources: &self.resources,
            habits: &self.habits,
            host: &self.host,
            ledger: &self.ledger,
        };
        self.gathering.gather(&view);
        let wanted = resource.map(|resource| self.resources.find(resource));
        let of_itself = self.gathering.candidates.len();
        if let Some(Some(wanted)) = wanted {
            self.gathering.include(wanted, &view);
        }
        let base = self.gathering.base();
        let start = self.network.sums(base);
        let reason = |(place, candidate): (usize, &Candidate)| {
            let logits = self.network.judge(&candidate.features, candidate.touched, base, &start);
            let soon = &self.soon[usize::from(candidate.cold)];
            let mut effects: Vec<Effect> = (0..network::GROUPS)
                .filter(|group| candidate.touched >> group & 1 == 1)
                .map(|group| {
                    let rest = self.network.judge(&candidate.features, candidate.touched & !(1 << group), base, &start);
                    Effect { of: GROUPS[group], logit: f64::from(logits.soon - rest.soon) }
                })
                .collect();
            effects.sort_by(|a, b| b.logit.abs().total_cmp(&a.logit.abs()));
            let known = self.resources.get(candidate.resource)?;
            let habit = self.habits.get(view.client, candidate.resource);
            Some(Reason {
                resource: self.resources.id(candidate.resource)?,
                proposed: place < of_itself,
                cold: candidate.cold,
                probability: f64::from(soon.probability(logits.soon)).clamp(0.0, 1.0),
                uncorrected: f64::from(squash(logits.soon)),
                worth: f64::from(squash(logits.worth)),
                quantiles_seconds: lags::quantiles(&candidate.lags, candidate.elapsed, [0.1, 0.5, 0.9])
                    .map(|time| time.as_secs_f64()),
                timing: Timing::new(&candidate.lags, candidate.elapsed),
                votes: self.votes(candidate.resource, &view),
                effects,
                rhythm: rhythm(known.count, now - known.last, known.rhythm.pace, known.rhythm.spread),
                habit: habit.map(|habit| rhythm(habit.count, f64::from(habit.age(now)), habit.pace, habit.spread)),
            })
        };
        let mut candidates: Vec<Reason> = self.gathering.candidates.iter().enumerate().filter_map(reason).collect();
        if resource.is_some() {
            candidates.retain(|reason| Some(reason.resource) == resource);
        }
        candidates.sort_by(|a, b| b.worth.total_cmp(&a.worth).then(a.resource.cmp(&b.resource)));
        let heard =
            burst.steps().iter().filter(|step| now - step.at <= f64::from(lags::WINDOW)).filter_map(|step| {
                Some(Heard { resource: self.resources.id(step.resource)?, age_seconds: now - step.at })
            });
        Explanation { burst: heard.collect(), candidates }
    }

    /// What each context says of a resource, as `gather` hears them.
    fn votes(&self, of: Ref, view: &View<'_>) -> Vec<Vote> {
        let mut votes = Vec::new();
        let mut ask = |order, place, access, at: f64, handle| {
            votes.extend(self.vote(of, order, place, access, (view.now - at).max(0.0), handle));
        };
        for (place, step) in view.burst.steps().iter().enumerate().take(gather::ASKED) {
            let came = view.burst.steps()[..place].iter().any(|step| step.resource == of);
            if step.resource == of && place == 0 || came || view.now - step.at > f64::from(lags::WINDOW) {
                continue;
            }
            for (&order, &handle) in ORDERS.iter().zip(&step.contexts).take(gather::contexts_asked(place)) {
                ask(order, place, step.resource, step.at, handle);
            }
        }
        for (place, latest) in gather::others(view) {
            ask(Order::Other, place, latest.resource, latest.at, latest.context);
        }
        votes
    }

    fn vote(&self, of: Ref, order: Order, place: usize, access: Ref, age: f64, handle: Handle) -> Option<Vote> {
        let node: &Node = self.arcs.get(handle).filter(|node| node.count > 1)?;
        let arc = node.arcs().find(|arc| arc.to == of)?;
        let hits: u32 = arc.lags.iter().map(|&count| u32::from(count)).sum();
        Some(Vote {
            order,
            access: self.resources.id(access)?,
            place,
            age_seconds: age,
            hits,
            trials: u32::from(node.count) - 1,
            lag_shares: arc.lags.map(|count| f32::from(count) / hits.max(1) as f32),
            due: hits as f32 - lags::mass_before(arc.lags, age as f32),
            last_followed: arc.ago,
            lately: arc.history,
        })
    }
}
