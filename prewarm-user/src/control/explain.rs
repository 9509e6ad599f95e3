//! Why something is expected, as `prewarm explain` shows it: what the model and the policy said, with names for IDs.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// Of this name only, be it expected or not.
    pub name: Option<String>,
    /// Of what this client accesses next; without one, of the client that accessed something last.
    pub client: Option<IpAddr>,
    /// As if only the accesses up to the last but so many less one had been yet; 1 is the last one.
    pub last: Option<usize>,
    /// At most so many candidates.
    pub limit: usize,
}

/// Why a client's candidates stand where they stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// Whose; none where nobody asked for anything yet.
    pub client: Option<IpAddr>,
    /// Its accesses of the last minute, newest first.
    pub burst: Vec<HeardView>,
    /// The candidates, best worth first.
    pub candidates: Vec<ReasonView>,
    /// Where a name was given: what followed it so far, most often first.
    pub followers: Vec<FollowerView>,
}

/// One access.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeardView {
    /// Of what; the resource ID where its name is forgotten.
    pub name: String,
    /// Seconds ago.
    pub age_seconds: f64,
}

/// One candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonView {
    /// What; the resource ID where its name is forgotten.
    pub name: String,
    /// Its resource ID, 16 hex digits.
    pub resource: String,
    /// Whether the model proposes it by itself.
    pub proposed: bool,
    /// Whether no copy of it would be there without prewarm, as far as the model can tell.
    pub cold: bool,
    /// The probability of an access within the horizon, 0 to 1.
    pub probability: f64,
    /// The same before the last correction.
    pub uncorrected: f64,
    /// The probability that what is made ready now is used, given that no better moment comes, 0 to 1.
    pub worth: f64,
    /// By when a tenth of the accesses that come have come, in milliseconds.
    pub earliest_ms: f64,
    /// The same for half of them.
    pub expected_ms: f64,
    /// The same for nine tenths.
    pub latest_ms: f64,
    /// The contexts that know it, the last access's first.
    pub votes: Vec<VoteView>,
    /// What the judgement turned on, most first.
    pub effects: Vec<EffectView>,
    /// Its rhythm on the whole host.
    pub rhythm: RhythmView,
    /// This client's habit with it, if there is one.
    pub habit: Option<RhythmView>,
    /// What could be done, and what comes of it; empty where nothing is known of the name.
    pub actions: Vec<AppraisalView>,
}

/// What one context says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoteView {
    /// Which kind: "one", "one-of-client", "two", "three", "other".
    pub context: String,
    /// The access that forms it.
    pub access: String,
    /// How many seconds ago it was.
    pub age_seconds: f64,
    /// How often the candidate followed within a minute; counts fade.
    pub hits: u32,
    /// Out of how many times.
    pub trials: u32,
    /// How many of the hits came up to 0.02, 0.1, 0.3, 1, 3, 10, 30 and 60 seconds later, as shares.
    pub lag_shares: Vec<f32>,
    /// How many hits came later than the context is old, and so may still come.
    pub due: f32,
    /// For the latest eight occurrences that are over, the latest last: "x" where it followed, "." where not.
    pub lately: String,
}

/// What a judgement turned on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectView {
    /// What was looked at.
    pub of: String,
    /// How much it adds to the logit of the probability.
    pub logit: f64,
}

/// When something comes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RhythmView {
    /// Accesses.
    pub count: u32,
    /// Seconds since the last.
    pub age_seconds: f64,
    /// Mean gap (geometric) in seconds.
    pub mean_gap_seconds: Option<f64>,
    /// By which factor gaps differ from it, in the mean.
    pub spread: Option<f64>,
}

/// What could be done for a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppraisalView {
    /// "resolve", "lease" or "warm".
    pub action: String,
    /// The name, with the port where there is one.
    pub target: String,
    /// What it saves if it is used, in milliseconds.
    pub saved_ms: f64,
    /// What it costs if it is not, at today's price, in milliseconds.
    pub cost_ms: f64,
    /// What it is worth, all in all, in milliseconds.
    pub value_ms: f64,
    /// The worth from which on it is done, 0 to 1.
    pub break_even: f64,
    /// "done", "waiting", "under way", or why not.
    pub verdict: String,
}

/// What followed a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowerView {
    /// What; the resource ID where its name is forgotten.
    pub name: String,
    /// How often, within a minute; counts fade.
    pub hits: u32,
    /// Out of how many times.
    pub trials: u32,
    /// How many of the hits came up to 0.02, 0.1, 0.3, 1, 3, 10, 30 and 60 seconds later, as shares.
    pub lag_shares: Vec<f32>,
}
