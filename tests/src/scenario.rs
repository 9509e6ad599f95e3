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
#[derive(Clone, Debug)]
pub struct Follower {
    /// Fully qualified.
    pub name: String,
    /// What is fetched from it.
    pub path: String,
    /// Served by the far caching server, and configured as a path to warm.
    pub far_cache: bool,
}

/// A page and what follows it.
#[derive(Clone, Debug)]
pub struct Page {
    /// Fully qualified.
    pub name: String,
    /// For the page and its followers.
    pub scheme: Scheme,
    /// Fetched together, a gap after the page.
    pub followers: Vec<Follower>,
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What the file says.
    pub plan: Plan,
    /// What is visited.
    pub pages: Vec<Page>,
}

/// The file; each key is explained there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the scenario files say it beside the values")]
pub struct Plan {
    pub place: Place,
    pub zone: String,
    pub sites: Vec<String>,
    pub followers: Vec<String>,
    pub gap_milliseconds: [u64; 2],
    pub far_cached: Vec<String>,
    pub far_cached_path: String,
    pub far_cached_seconds: u64,
    pub ttl_seconds: u64,
    pub hold_seconds: u64,
    pub cold_visits: usize,
    pub learn_visits: usize,
    pub measured_visits: usize,
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
        let plan: Plan = toml::from_str(text).context("read the scenario")?;
        ensure!(!plan.sites.is_empty() && !plan.followers.is_empty(), "a scenario without sites or followers");
        ensure!(plan.gap_milliseconds[0] <= plan.gap_milliseconds[1], "a gap that ends before it starts");
        let pages =
            plan.sites.iter().zip(Scheme::ALL.into_iter().cycle()).map(|(site, scheme)| plan.page(site, scheme));
        let pages = pages.collect();
        Ok(Self { plan, pages })
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

    /// How long after a visit nothing of it is in a cache any more; caches count in whole seconds.
    pub fn forgotten_after(&self, page: &Page) -> Duration {
        let far_cached = page.followers.iter().any(|follower| follower.far_cache);
        let longest =
            if far_cached { self.plan.ttl_seconds.max(self.plan.far_cached_seconds) } else { self.plan.ttl_seconds };
        Duration::from_secs(longest + 1)
    }
}

impl Plan {
    fn page(&self, site: &str, scheme: Scheme) -> Page {
        let far_cached = self.far_cached.iter().any(|name| name == site);
        let last = self.followers.len() - 1;
        let follower = |(place, follower): (usize, &String)| {
            let far_cache = far_cached && place == last;
            let path = if far_cache { self.far_cached_path.clone() } else { "/".to_owned() };
            Follower { name: format!("{follower}.{site}.{}", self.zone), path, far_cache }
        };
        Page {
            name: format!("{site}.{}", self.zone),
            scheme,
            followers: self.followers.iter().enumerate().map(follower).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Scenario};

    #[test]
    fn every_scenario_reads_and_names_no_name_twice() {
        for place in [Place::Host, Place::Gateway] {
            let scenario = Scenario::of(place).unwrap();
            assert_eq!(scenario.plan.place, place);
            let mut names = scenario.names();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
            assert!(scenario.pages.iter().all(|page| page.followers.len() == 3));
            assert_eq!(scenario.far_cached().count(), scenario.plan.far_cached.len());
            // Each has an address of its own in a /24, beside that of the authority.
            assert!(names.len() < 254);
        }
    }
}
