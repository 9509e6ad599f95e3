//! What is visited, read from `scenarios/*.toml`: pages, the names that follow each, and the pace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Where prewarm runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On the client: its questions leave, `prewarm exec -- curl` takes the leases.
    Host,
    /// Beside the resolver: clients' questions arrive, `prewarm exec -- tinyproxy` takes the leases.
    Gateway,
}

/// How a page and its followers are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HTTP on port 80.
    Http,
    /// HTTP over TLS 1.3 on port 443.
    Tls,
}

impl Scheme {
    /// Both, in the order of the report.
    pub const ALL: [Self; 2] = [Self::Http, Self::Tls];

    /// As it stands in the name of a case.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
        }
    }

    /// As it stands in a URL.
    pub fn url(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "https",
        }
    }

    /// Where it is served.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Tls => 443,
        }
    }
}

/// A name that is asked for after a page.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Follower {
    /// Fully qualified.
    pub name: String,
    /// What is fetched from it.
    #[serde(default = "root")]
    pub path: String,
    /// Served by the far caching server, and configured as a path to warm.
    #[serde(default)]
    pub far_cache: bool,
}

/// A page and what follows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Fully qualified.
    pub name: String,
    /// For the page and its followers.
    pub scheme: Scheme,
    /// Fetched together, a gap after the page.
    pub followers: Vec<Follower>,
}

/// A scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Where prewarm runs.
    pub place: Place,
    /// The zone all names are in.
    pub zone: String,
    /// Of every record; a page is visited again only after its names have expired.
    pub ttl_seconds: u64,
    /// From the end of a page to its followers, shortest and longest.
    pub gap_milliseconds: [u64; 2],
    /// Visits without prewarm, unless the user says otherwise.
    pub cold_visits: usize,
    /// Visits from which prewarm learns; they count for nothing.
    pub learn_visits: usize,
    /// Visits through prewarm, unless the user says otherwise.
    pub measured_visits: usize,
    /// What is visited.
    pub pages: Vec<Page>,
}

fn root() -> String {
    "/".to_owned()
}

impl Scenario {
    /// The scenario that comes with this crate.
    ///
    /// # Errors
    /// When the file is not a scenario, which a test excludes.
    pub fn of(place: Place) -> Result<Self> {
        let text = match place {
            Place::Host => include_str!("../scenarios/host.toml"),
            Place::Gateway => include_str!("../scenarios/gateway.toml"),
        };
        let scenario: Self = toml::from_str(text).context("read the scenario")?;
        ensure!(scenario.pages.iter().all(|page| !page.followers.is_empty()), "a page without followers");
        ensure!(scenario.gap_milliseconds[0] <= scenario.gap_milliseconds[1], "a gap that ends before it starts");
        Ok(scenario)
    }

    /// Every name, each once, in the order of the file.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for page in &self.pages {
            names.push(page.name.as_str());
            names.extend(page.followers.iter().map(|follower| follower.name.as_str()));
        }
        names
    }

    /// The followers behind the far caching server, with the scheme of their page.
    pub fn far_cached(&self) -> impl Iterator<Item = (Scheme, &Follower)> {
        self.pages.iter().flat_map(|page| {
            page.followers.iter().filter(|follower| follower.far_cache).map(|follower| (page.scheme, follower))
        })
    }

    /// How long a page's names are certainly not in a cache any more; caches count in whole seconds.
    pub fn expired_after(&self) -> Duration {
        Duration::from_secs(self.ttl_seconds + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Scenario};

    #[test]
    fn every_scenario_reads_and_names_no_name_twice() {
        for place in [Place::Host, Place::Gateway] {
            let scenario = Scenario::of(place).unwrap();
            assert_eq!(scenario.place, place);
            let mut names = scenario.names();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
            assert!(scenario.pages.iter().all(|page| page.followers.len() == 3));
            assert_eq!(scenario.far_cached().count(), 1);
        }
    }
}
