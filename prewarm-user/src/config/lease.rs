//! How many connections are kept open ahead of need, for how long, and how hard that is tried.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Origin;

/// Leases: connections that are open before anybody asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseSettings {
    /// Leases and dials at the same time, over all origins; 0 opens none.
    pub total: u32,
    /// Leases and dials at the same time to one origin.
    pub per_origin: u32,
    /// Leases and dials at the same time to one address, whatever names it has.
    pub per_address: u32,
    /// Dials a second, over all origins, on average.
    pub dials_per_second: f64,
    /// Dials that may start at once after a quiet time.
    pub dial_burst: u32,
    /// How long an unused lease is kept, in seconds; origins that close sooner are learnt. The earliest of the usual
    /// servers closes after 51 s.
    pub idle_seconds: f64,
    /// When a connection attempt is given up, in seconds.
    pub connect_timeout_seconds: f64,
    /// How long an attempt has to itself before the next address is tried too, in milliseconds (RFC 8305: 100 to 2000).
    pub attempt_delay_ms: u32,
    /// The pause after the first failure to reach an origin, in seconds; it doubles with each that follows.
    pub backoff_seconds: f64,
    /// The longest such pause, in seconds.
    pub backoff_ceiling_seconds: f64,
    /// Failures in a row after which an origin is left alone for the longest pause; then one trial decides.
    pub breaker_failures: u32,
    /// Origins (NAME:PORT) whose server speaks first: what it says stays in the connection for the program.
    pub speaks_first: Vec<String>,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            total: 256,
            per_origin: 2,
            per_address: 4,
            dials_per_second: 20.0,
            dial_burst: 20,
            idle_seconds: 22.0,
            connect_timeout_seconds: 3.0,
            attempt_delay_ms: 250,
            backoff_seconds: 1.0,
            backoff_ceiling_seconds: 300.0,
            breaker_failures: 5,
            speaks_first: Vec::new(),
        }
    }
}

/// Warm requests: one safe request ahead of need, so that caches at the origin are hot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmSettings {
    /// When a request is given up, in seconds, with its TLS handshake and its body.
    pub timeout_seconds: f64,
    /// How much of an answer is read, in bytes; the connection is closed then.
    pub body_limit_bytes: u64,
    /// How long an origin is left alone that answers 429 or 503 and does not say how long, in seconds.
    pub rest_seconds: f64,
    /// The longest such rest, whatever the origin says, in seconds.
    pub rest_ceiling_seconds: f64,
    /// A file with certificates (PEM) that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
}

impl Default for WarmSettings {
    fn default() -> Self {
        Self {
            timeout_seconds: 10.0,
            body_limit_bytes: 4 * 1024 * 1024,
            rest_seconds: 30.0,
            rest_ceiling_seconds: 3600.0,
            ca_file: None,
        }
    }
}

impl LeaseSettings {
    /// What is wrong with these settings, a sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value, least) in [
            ("dials_per_second", self.dials_per_second, 0.0),
            ("idle_seconds", self.idle_seconds, 0.1),
            ("connect_timeout_seconds", self.connect_timeout_seconds, 0.01),
            ("backoff_seconds", self.backoff_seconds, 0.0),
            ("backoff_ceiling_seconds", self.backoff_ceiling_seconds, self.backoff_seconds),
        ] {
            problems.extend(out_of_range("lease", name, value, least));
        }
        if !(100..=2000).contains(&self.attempt_delay_ms) {
            problems.push("lease.attempt_delay_ms must be from 100 to 2000 (RFC 8305)".to_owned());
        }
        if self.breaker_failures == 0 {
            problems.push("lease.breaker_failures must be at least 1".to_owned());
        }
        for origin in &self.speaks_first {
            if let Err(error) = origin.parse::<Origin>() {
                problems.push(format!("lease.speaks_first: {origin:?}: {error}"));
            }
        }
        problems
    }
}

impl WarmSettings {
    /// What is wrong with these settings, a sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        [
            ("timeout_seconds", self.timeout_seconds, 0.01),
            ("rest_seconds", self.rest_seconds, 0.0),
            ("rest_ceiling_seconds", self.rest_ceiling_seconds, self.rest_seconds),
        ]
        .into_iter()
        .filter_map(|(name, value, least)| out_of_range("warm", name, value, least))
        .collect()
    }
}

/// Durations and rates: numbers from `least` up to what a clock can hold.
fn out_of_range(table: &str, name: &str, value: f64, least: f64) -> Option<String> {
    let fits = value.is_finite() && value >= least && value <= 1e9;
    (!fits).then(|| format!("{table}.{name} must be a number from {least} to 1000000000, not {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_good_and_nonsense_is_named() {
        assert!(LeaseSettings::default().problems().is_empty());
        assert!(WarmSettings::default().problems().is_empty());
        let bad = LeaseSettings {
            idle_seconds: f64::NAN,
            backoff_ceiling_seconds: 0.5,
            attempt_delay_ms: 1,
            breaker_failures: 0,
            speaks_first: vec!["no port".to_owned()],
            ..LeaseSettings::default()
        };
        let problems = bad.problems();
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(problems[0].contains("idle_seconds"));
        let bad = WarmSettings { timeout_seconds: -1.0, ..WarmSettings::default() };
        assert_eq!(bad.problems().len(), 1);
    }
}
