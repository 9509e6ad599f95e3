//! Settings: what the operator decides.
//!
//! Comes in: a file, the environment, flags, each weaker than the next. Goes out: one checked [`Config`], and a sample
//! file made from the documentation of these very fields. Never here: reading a setting anywhere but at start and
//! reload, or a default that stands elsewhere than in `Default`.

mod answers;
mod capture;
mod handover;
mod history;
mod lease;
mod load;
mod policy;
mod predict;
mod sample;
mod service;
mod sources;
mod warm;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Origin;

pub use answers::{AnswerAt, AnswersSettings};
pub use capture::{CaptureSettings, XdpMode};
pub use handover::{HandoverSettings, ProxySettings, RedirectSettings, TproxySettings};
pub use history::HistorySettings;
pub use lease::{KeepSettings, LeaseSettings};
pub use load::{ConfigError, Sources, load};
pub use policy::{CostSettings, GuardSettings, PolicySettings};
pub use predict::PredictSettings;
pub use sample::sample;
pub use service::{ControlSettings, MetricsSettings, ResolveSettings};
pub use sources::{Source, SourceError, SourcesSettings};
pub use warm::{Method, WarmRequest, WarmSettings};

/// Where the configuration lies on an installed host.
pub const DEFAULT_PATH: &str = "/etc/prewarm/config.toml";

/// All settings. Every part has a section; a missing key has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which interfaces are watched, and how.
    pub capture: CaptureSettings,
    /// Where names are learnt from, beside the packets on the interfaces.
    pub sources: SourcesSettings,
    /// What is remembered of names, addresses and clients.
    pub history: HistorySettings,
    /// How the next names are predicted.
    pub predict: PredictSettings,
    /// What a warm-up is worth, what it may cost, and what is never done.
    pub policy: PolicySettings,
    /// How predicted names are looked up.
    pub resolve: ResolveSettings,
    /// Answers in the kernel, for questions to a DNS server on this host.
    pub answers: AnswersSettings,
    /// Pre-established connections.
    pub lease: LeaseSettings,
    /// Who may take leases, and by which ways.
    pub handover: HandoverSettings,
    /// How warm requests are sent.
    pub requests: WarmSettings,
    /// The control socket.
    pub control: ControlSettings,
    /// The Prometheus endpoint.
    pub metrics: MetricsSettings,
    /// Safe requests sent ahead, so that caches at the origin are hot when a name of theirs is expected.
    pub warm: Vec<WarmRequest>,
}

impl Config {
    /// The requests to send ahead: to whom, for what.
    pub fn warm_targets(&self) -> impl Iterator<Item = (Origin, String)> {
        self.warm.iter().filter_map(|request| Some((request.origin()?, request.path())))
    }

    /// Whether the settings make sense together; each complaint names its key and what to do.
    ///
    /// # Errors
    /// With all complaints, not only the first.
    pub fn check(&self) -> Result<(), ConfigError> {
        let sections = [
            self.capture.check(),
            self.sources.check(),
            self.history.check(),
            self.predict.check(),
            self.policy.check(),
            self.resolve.check(),
            self.answers.check(),
            self.lease.check(),
            self.handover.check(),
            self.requests.check(),
            self.metrics.check(),
        ];
        let warm = self.warm.iter().enumerate().map(|(index, request)| request.check(index));
        let complaints: Vec<String> = sections.into_iter().chain(warm).filter_map(Result::err).collect();
        if complaints.is_empty() { Ok(()) } else { Err(ConfigError::Senseless(complaints)) }
    }
}

/// `Ok` when `value` lies within `range`, else what is wrong with `key` and what to do.
fn within<T: PartialOrd + std::fmt::Display + Copy>(
    key: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), String> {
    // A NaN is in no range, so it is refused as well.
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!("{key} = {value} is out of range; set it to a value from {} to {}", range.start(), range.end()))
}
