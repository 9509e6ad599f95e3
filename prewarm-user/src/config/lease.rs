//! How many connections are kept open ahead of need, for how long, and how hard that is tried.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::within;
use crate::model::Origin;

/// Leases: connections that are open before anybody asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseSettings {
    /// Leases and dials at the same time, over all origins; 0 opens none. A quarter of the descriptors that the daemon
    /// may have stays free for others.
    pub total: u32,
    /// Leases and dials at the same time to one origin.
    pub per_origin: u32,
    /// Leases and dials at the same time to one address, whatever names it has.
    pub per_address: u32,
    /// Leases and dials at the same time to one network, /24 of IPv4 or /48 of IPv6; never less than to one
    /// address.
    pub per_network: u32,
    /// Whether leases follow the recent rate of use, besides predictions: where programs keep coming, what they take is
    /// replaced, as far as it would rather be used than not.
    pub demand: bool,
    /// Origins to keep leases to at all times, for services that are called rarely: their names are looked up again when
    /// their addresses run out. Each is replaced shortly before it ends, where `per_origin` has room for both. The guard
    /// rails hold for them too.
    #[schemars(example = example_keep())]
    pub keep: Vec<KeepSettings>,
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
    /// Origins (NAME:PORT) whose server speaks first: what it says stays in the connection for the program, however old.
    /// Servers that are not named here are found out, and their greetings handed over while younger than a second.
    pub speaks_first: Vec<String>,
}

/// One origin that leases are kept to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepSettings {
    /// NAME:PORT.
    pub origin: String,
    /// How many.
    pub count: u32,
}

fn example_keep() -> Vec<KeepSettings> {
    vec![KeepSettings { origin: "api.example.org:443".to_owned(), count: 2 }]
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            total: 256,
            per_origin: 4,
            per_address: 8,
            per_network: 32,
            demand: true,
            keep: Vec::new(),
            dials_per_second: 50.0,
            dial_burst: 50,
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

impl LeaseSettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        within("lease.total", self.total, 0..=65_536)?;
        within("lease.per_origin", self.per_origin, 1..=64)?;
        within("lease.per_address", self.per_address, 1..=256)?;
        within("lease.per_network", self.per_network, 1..=4096)?;
        for keep in &self.keep {
            let KeepSettings { origin, count } = keep;
            origin.parse::<Origin>().map_err(|_| format!("lease.keep: {origin:?} is not NAME:PORT"))?;
            within(&format!("lease.keep: count of {origin}"), *count, 1..=self.per_origin)?;
        }
        within("lease.dials_per_second", self.dials_per_second, 0.1..=10_000.0)?;
        within("lease.dial_burst", self.dial_burst, 1..=10_000)?;
        within("lease.idle_seconds", self.idle_seconds, 1.0..=300.0)?;
        within("lease.connect_timeout_seconds", self.connect_timeout_seconds, 0.1..=60.0)?;
        within("lease.attempt_delay_ms", self.attempt_delay_ms, 100..=2000)?;
        within("lease.backoff_seconds", self.backoff_seconds, 0.1..=60.0)?;
        within("lease.backoff_ceiling_seconds", self.backoff_ceiling_seconds, self.backoff_seconds..=86_400.0)?;
        within("lease.breaker_failures", self.breaker_failures, 1..=1000)?;
        match self.speaks_first.iter().find(|origin| origin.parse::<Origin>().is_err()) {
            Some(bad) => Err(format!("lease.speaks_first: {bad:?} is not NAME:PORT")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_named() {
        assert_eq!(LeaseSettings::default().check(), Ok(()));
        let wrong = |change: fn(&mut LeaseSettings), key: &str| {
            let mut settings = LeaseSettings::default();
            change(&mut settings);
            let message = settings.check().unwrap_err();
            assert!(message.contains(key), "{message}");
        };
        wrong(|s| s.idle_seconds = f64::NAN, "lease.idle_seconds");
        wrong(|s| s.backoff_ceiling_seconds = 0.5, "lease.backoff_ceiling_seconds");
        wrong(|s| s.attempt_delay_ms = 1, "lease.attempt_delay_ms");
        wrong(|s| s.per_network = 0, "lease.per_network");
        wrong(|s| s.keep = vec![KeepSettings { origin: "no port".to_owned(), count: 1 }], "lease.keep");
        wrong(|s| s.keep = vec![KeepSettings { origin: "a.example:1".to_owned(), count: 5 }], "lease.keep");
        wrong(|s| s.breaker_failures = 0, "lease.breaker_failures");
        wrong(|s| s.speaks_first = vec!["no port".to_owned()], "lease.speaks_first");
    }
}
