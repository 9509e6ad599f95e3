//! Settings of what is worth doing, how much of it, and what is never done.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::within;
use crate::model::Name;

/// What is worth making ready, and within which budgets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySettings {
    /// Whether predicted names are looked up.
    pub resolve: bool,
    /// Whether connections are opened.
    pub lease: bool,
    /// Unused warm-ups allowed for each access that would have been cold without prewarm, 0.01 to 10; the price of a
    /// warm-up follows it.
    pub waste_budget: f64,
    /// Probability below which nothing is ever done, 0 to 1.
    pub probability_floor: f64,
    /// Ports to open connections to when none was learnt for a name, each 1 to 65535. Ports are learnt from programs
    /// under `prewarm exec`; a gateway that sees only questions needs them here, for example [443].
    pub assume_ports: Vec<u16>,
    /// What an unused warm-up costs.
    pub cost: CostSettings,
    /// Milliseconds a round trip to an origin is taken for until it was measured, 0.1 to 5000.
    pub assumed_round_trip_ms: f64,
    /// Milliseconds a look-up is taken for until some were measured, 0.1 to 5000.
    pub assumed_lookup_ms: f64,
    /// Milliseconds that a warm request saves whoever asks next, until some were measured, 0.1 to 60000.
    pub assumed_warm_ms: f64,
    /// Seconds for which what was made ready is held for its user, 1 to 300.
    pub hold_seconds: f64,
    /// Intents waiting for their time, 1 to 65536; the one worth least is dropped first.
    pub queue: u32,
    /// Look-ups under way at once, 1 to 65536.
    pub max_resolves: u32,
    /// Leases dialling or waiting at once, 1 to 65536; one waits for each origin at most.
    pub max_leases: u32,
    /// Warm requests under way at once, 1 to 65536.
    pub max_warms: u32,
    /// Look-ups a second, 0.1 to 100000, with a burst of as many.
    pub resolves_per_second: f64,
    /// Connections opened a second, 0.1 to 100000, with a burst of as many.
    pub dials_per_second: f64,
    /// Warm-ups that one client's questions may cause a second, 0.1 to 100000, with a burst of as many.
    pub intents_per_client_per_second: f64,
    /// Bytes a second that warm requests may fetch, 1 to 10000000000, with a burst of ten seconds' worth.
    pub warm_bytes_per_second: f64,
    /// Bytes one warm request is taken to fetch, 1 to 1000000000.
    pub warm_bytes: f64,
    /// Failures in a row after which an origin is left alone, 1 to 1000; so it is when three times as many uses were
    /// expected of what was made ready and none came.
    pub breaker_failures: u32,
    /// Seconds for which it is left alone first, 1 to 3600; doubled each time it goes on.
    pub breaker_backoff_seconds: f64,
    /// The longest time it is left alone, in seconds, 1 to 86400.
    pub breaker_ceiling_seconds: f64,
    /// Origins whose state (round trip, breaker) is kept, 16 to 1048576.
    pub origins: u32,
    /// What is never done.
    pub guard: GuardSettings,
}

/// Milliseconds one would pay to avoid an unused warm-up, before the price controller scales them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CostSettings {
    /// Of a name looked up, in milliseconds, 0.01 to 10000.
    pub resolve_ms: f64,
    /// Of a connection, in milliseconds, 0.01 to 10000.
    pub lease_ms: f64,
    /// Of a request, in milliseconds, 0.01 to 10000.
    pub warm_ms: f64,
}

/// What is never done, whatever it would be worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GuardSettings {
    /// Networks that may be connected to although they are private, local or reserved, as ADDRESS/LENGTH.
    #[schemars(with = "Vec<String>")]
    pub allow_networks: Vec<IpNet>,
    /// Networks that are never connected to, as ADDRESS/LENGTH; goes before `allow_networks`.
    #[schemars(with = "Vec<String>")]
    pub deny_networks: Vec<IpNet>,
    /// Networks whose questions are learnt from, as ADDRESS/LENGTH, besides this host and the networks it is on.
    /// Questions from elsewhere can be forged and are only counted.
    #[schemars(with = "Vec<String>")]
    pub clients: Vec<IpNet>,
    /// Ports that may be connected to, each 1 to 65535.
    pub ports: Vec<u16>,
    /// Zones whose names may be made ready, with all names below; empty for all.
    pub allow_names: Vec<String>,
    /// Zones whose names are never made ready, with all names below; goes before `allow_names`.
    pub deny_names: Vec<String>,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            resolve: true,
            lease: true,
            waste_budget: 0.5,
            probability_floor: 0.02,
            assume_ports: Vec::new(),
            cost: CostSettings::default(),
            assumed_round_trip_ms: 40.0,
            assumed_lookup_ms: 30.0,
            assumed_warm_ms: 100.0,
            hold_seconds: 20.0,
            queue: 4096,
            max_resolves: 64,
            max_leases: 256,
            max_warms: 16,
            resolves_per_second: 200.0,
            dials_per_second: 50.0,
            intents_per_client_per_second: 50.0,
            warm_bytes_per_second: 1_000_000.0,
            warm_bytes: 65_536.0,
            breaker_failures: 3,
            breaker_backoff_seconds: 10.0,
            breaker_ceiling_seconds: 600.0,
            origins: 16_384,
            guard: GuardSettings::default(),
        }
    }
}

impl Default for CostSettings {
    fn default() -> Self {
        Self { resolve_ms: 2.0, lease_ms: 10.0, warm_ms: 30.0 }
    }
}

impl Default for GuardSettings {
    fn default() -> Self {
        let networks = [
            [10, 0, 0, 0, 8],
            [100, 64, 0, 0, 10],
            [127, 0, 0, 0, 8],
            [169, 254, 0, 0, 16],
            [172, 16, 0, 0, 12],
            [192, 168, 0, 0, 16],
        ]
        .map(|[a, b, c, d, length]| IpNet::new_assert([a, b, c, d].into(), length));
        let networks6 = [
            ([0, 0, 0, 0, 0, 0, 0, 1u16], 128),
            ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
            ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
        ]
        .map(|(segments, length)| IpNet::new_assert(segments.into(), length));
        Self {
            allow_networks: Vec::new(),
            deny_networks: Vec::new(),
            clients: networks.into_iter().chain(networks6).collect(),
            ports: vec![80, 443],
            allow_names: Vec::new(),
            deny_names: Vec::new(),
        }
    }
}

impl PolicySettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        within("policy.waste_budget", self.waste_budget, 0.01..=10.0)?;
        within("policy.probability_floor", self.probability_floor, 0.0..=1.0)?;
        within("policy.cost.resolve_ms", self.cost.resolve_ms, 0.01..=10_000.0)?;
        within("policy.cost.lease_ms", self.cost.lease_ms, 0.01..=10_000.0)?;
        within("policy.cost.warm_ms", self.cost.warm_ms, 0.01..=10_000.0)?;
        within("policy.assumed_round_trip_ms", self.assumed_round_trip_ms, 0.1..=5000.0)?;
        within("policy.assumed_lookup_ms", self.assumed_lookup_ms, 0.1..=5000.0)?;
        within("policy.assumed_warm_ms", self.assumed_warm_ms, 0.1..=60_000.0)?;
        within("policy.hold_seconds", self.hold_seconds, 1.0..=300.0)?;
        within("policy.queue", self.queue, 1..=65_536)?;
        within("policy.max_resolves", self.max_resolves, 1..=65_536)?;
        within("policy.max_leases", self.max_leases, 1..=65_536)?;
        within("policy.max_warms", self.max_warms, 1..=65_536)?;
        within("policy.resolves_per_second", self.resolves_per_second, 0.1..=100_000.0)?;
        within("policy.dials_per_second", self.dials_per_second, 0.1..=100_000.0)?;
        within("policy.intents_per_client_per_second", self.intents_per_client_per_second, 0.1..=100_000.0)?;
        within("policy.warm_bytes_per_second", self.warm_bytes_per_second, 1.0..=1e10)?;
        within("policy.warm_bytes", self.warm_bytes, 1.0..=1e9)?;
        within("policy.breaker_failures", self.breaker_failures, 1..=1000)?;
        within("policy.breaker_backoff_seconds", self.breaker_backoff_seconds, 1.0..=3600.0)?;
        within("policy.breaker_ceiling_seconds", self.breaker_ceiling_seconds, 1.0..=86_400.0)?;
        within("policy.origins", self.origins, 16..=1 << 20)?;
        for &port in &self.assume_ports {
            if !self.guard.ports.contains(&port) {
                return Err(format!(
                    "policy.assume_ports has {port}, which policy.guard.ports does not allow; add it there or take it out here"
                ));
            }
        }
        self.guard.check()
    }
}

impl GuardSettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.ports.contains(&0) {
            return Err("policy.guard.ports has 0; write ports from 1 to 65535".into());
        }
        for (key, zones) in [("allow_names", &self.allow_names), ("deny_names", &self.deny_names)] {
            for zone in zones {
                zone.parse::<Name>().map_err(|error| {
                    format!("policy.guard.{key} has {zone:?}: {error}; write a zone, for example example.org")
                })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass() {
        assert_eq!(PolicySettings::default().check(), Ok(()));
    }

    #[test]
    fn a_wrong_key_is_named() {
        let wrong = |change: fn(&mut PolicySettings), key: &str| {
            let mut settings = PolicySettings::default();
            change(&mut settings);
            let message = settings.check().unwrap_err();
            assert!(message.contains(key), "{message}");
        };
        wrong(|s| s.waste_budget = f64::NAN, "policy.waste_budget");
        wrong(|s| s.queue = 0, "policy.queue");
        wrong(|s| s.assume_ports = vec![8443], "policy.assume_ports");
        wrong(|s| s.guard.ports = vec![0], "policy.guard.ports");
        wrong(|s| s.guard.deny_names = vec!["a..b".into()], "policy.guard.deny_names");
    }
}
