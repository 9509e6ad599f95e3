//! The lab: a self-contained proof of what prewarm saves, cold against warm, over a long link.
//!
//! In: scenarios, a round-trip time, the binary under test; out: the rows of a report. Per scenario: a world is built,
//! visits are played cold, the daemon starts and learns from further visits, then the same kind of visits is measured
//! through prewarm. Without a binary only the cold half is played.

mod course;
mod figures;
mod play;
mod progress;
mod table;
mod targets;
mod world;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;
use crate::daemon::{Daemon, DaemonOptions};
use crate::path::Path;
use crate::program::program;
use crate::report::Row;
use crate::scenario::{Place, Scenario, Scheme};
use crate::servers::ForwardProxy;
use crate::visit::{Visitor, Way};

use figures::Half;
use play::{Player, Sample};
use world::World;

pub use course::Course;
pub use figures::{COLD, PREWARM};
pub use progress::Progress;
pub use table::render;
pub use targets::{Verdict, judge};
pub use world::Family;

/// The order of visits is the same in every run.
const SEED: u64 = 40;

/// How the lab is played.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of the link.
    pub round_trip: Duration,
    /// Measured visits, instead of the scenario's own number.
    pub visits: Option<usize>,
    /// Visits to learn from, instead of the scenario's own number.
    pub learn: Option<usize>,
    /// The address family of everything.
    pub family: Family,
    /// Whether prewarm sees what arrives; without it the scenario `gateway` has to fail.
    pub ingress: bool,
    /// Whether configurations and logs of all programs stay.
    pub keep: bool,
    /// The binary under test.
    pub binary: Option<PathBuf>,
}

/// Plays one course and gives its rows.
///
/// # Errors
/// When the world can't be built, the daemon doesn't start or ends, or the user interrupts.
pub fn play(course: Course, options: &Options, progress: &Progress) -> Result<Vec<Row>> {
    let scenario = Scenario::of(course.place)?;
    let label = case_label(course, options);
    progress.say(&format!("{label}: building the world"));
    let world = World::build(&scenario, options.round_trip, options.family, options.keep)?;
    if options.keep {
        progress.say(&format!("{label}: logs stay in {}", world.directory().display()));
    }
    let round_trip = world.measure_round_trip()?;
    progress.say(&format!("{label}: measured round trip {:.2} ms", round_trip.as_secs_f64() * 1e3));
    let mut lab = Lab { course, scenario: &scenario, world: &world, options, progress, label: &label };
    let mut player = Player::new(&scenario, SEED);
    let cold = lab.cold(&mut player)?;
    let warm = match &options.binary {
        Some(_) => Some(lab.warm(&mut player, round_trip)?),
        None => {
            progress.say(&format!("{label}: {} is not set, so only cold", crate::daemon::BINARY_VARIABLE));
            None
        }
    };
    let mut rows = Vec::new();
    for scheme in Scheme::ALL {
        rows.extend(figures::rows(&format!("{label}/{}", scheme.label()), scheme, round_trip, &cold, warm.as_ref()));
    }
    Ok(rows)
}

/// `exec/40`: the way out (or the gateway), the family, the round trip in milliseconds.
fn case_label(course: Course, options: &Options) -> String {
    let family = if options.family == Family::V6 { "6" } else { "" };
    format!("{course}{family}/{}", options.round_trip.as_millis())
}

struct Lab<'a> {
    course: Course,
    scenario: &'a Scenario,
    world: &'a World,
    options: &'a Options,
    progress: &'a Progress,
    label: &'a str,
}

impl Lab<'_> {
    /// What it costs without prewarm: a program that connects by itself, or the gateway's proxy that does.
    fn cold(&mut self, player: &mut Player<'_>) -> Result<Half> {
        self.world.resolver.flush()?;
        let (_proxy, way) = self.forwarded_or(Vec::new(), Way::Direct(Vec::new()))?;
        // What cold costs needs no thousand requests to be known.
        let visits = self.scenario.plan.cold_visits.min(self.options.visits.unwrap_or(usize::MAX));
        self.phase("cold", player, &self.visitor(way, None)?, visits)
    }

    fn warm(&mut self, player: &mut Player<'_>, round_trip: Duration) -> Result<Half> {
        let binary = self.options.binary.as_deref().context("no binary under test")?;
        let (namespace, interface) = match self.scenario.plan.place {
            Place::Host => (&self.world.client, world::CLIENT_INTERFACE),
            Place::Gateway => (&self.world.gateway, world::GATEWAY_INTERFACE),
        };
        let cgroup = if self.course.path == Path::Redirect { Some(Cgroup::create("lab")?) } else { None };
        let configuration = self.configuration() + &self.course.path.settings(&self.world.site(cgroup.as_ref()));
        let options =
            DaemonOptions { interfaces: vec![interface.to_owned()], configuration, ingress: self.options.ingress };
        let mut daemon = Daemon::start(namespace, binary, &options, self.world.directory())?;
        let (proxy, way) = self.forwarded_or(daemon.wrapper(), self.way(&daemon))?;
        let visitor = self.visitor(way, cgroup.as_ref())?;
        self.phase("learning", player, &visitor, self.options.learn.unwrap_or(self.scenario.plan.learn_visits))?;

        let before = daemon.stats()?;
        let names_before = self.world.resolver.counts()?;
        let visits = self.options.visits.unwrap_or(self.scenario.plan.measured_visits);
        let unused_before = self.unused()?;
        let mut half = self.phase("prewarm", player, &visitor, visits)?;
        let after = daemon.stats()?;
        fs::write(self.world.directory().join("stats.json"), daemon.command(&["stats", "--json"])?)?;
        let names_after = self.world.resolver.counts()?;
        let prefetches = self.world.web.prefetches()?;
        // Leases that still wait are closed when their owner ends, and then the origin has seen all of them.
        drop(proxy);
        drop(daemon);
        self.world.wait_until_quiet()?;
        let unused_after = self.unused()?;
        half.unused = std::array::from_fn(|scheme| unused_after[scheme] - unused_before[scheme]);

        let leased = figures::leased(&half, round_trip);
        let taken = after.leases.taken - before.leases.taken;
        self.progress.say(&format!(
            "{}: {leased} connections without a handshake, {taken} leases taken by prewarm's count{}",
            self.label,
            if leased == taken { "" } else { " (they differ)" }
        ));
        self.progress.say(&format!(
            "{}: resolver: {} questions from its cache, {} over the link; {prefetches} prefetch requests at the origin",
            self.label,
            names_after.hits - names_before.hits,
            names_after.misses - names_before.misses,
        ));
        Ok(half)
    }

    /// How visitors reach origins over leases.
    fn way(&self, daemon: &Daemon) -> Way {
        let path = self.course.path;
        match (path, path.listener(&self.world.site(None))) {
            (Path::Socks, Some(proxy)) => Way::Socks(proxy),
            (Path::Connect, Some(proxy)) => Way::Connect(proxy),
            (Path::Exec, _) => Way::Direct(daemon.wrapper()),
            (Path::Fd, _) => Way::Fd(daemon.socket().to_owned()),
            // What the kernel redirects or takes over knows nothing of it.
            (Path::Socks | Path::Connect | Path::Redirect | Path::Tproxy, _) => Way::Direct(Vec::new()),
        }
    }

    /// The gateway's forward proxy under this wrapper, where the course has one; else this way.
    fn forwarded_or(&self, wrapper: Vec<OsString>, way: Way) -> Result<(Option<ForwardProxy>, Way)> {
        if (self.course.path, self.course.place) != (Path::Exec, Place::Gateway) {
            return Ok((None, way));
        }
        let (gateway, address) = (&self.world.gateway, self.world.gateway_address());
        let proxy = ForwardProxy::start(gateway, address, &wrapper, self.world.directory())?;
        let way = Way::Forward(proxy.address());
        Ok((Some(proxy), way))
    }

    fn visitor<'a>(&'a self, way: Way, cgroup: Option<&'a Cgroup>) -> Result<Visitor<'a>> {
        let authority = self.world.certificates.authority.clone();
        let (plain, curl) = (program("plain-client")?, self.course.path != Path::Fd);
        Ok(Visitor { namespace: &self.world.client, cgroup, authority, plain, curl, way })
    }

    fn phase(&self, phase: &str, player: &mut Player<'_>, visitor: &Visitor<'_>, visits: usize) -> Result<Half> {
        let title = format!("{}: {phase}", self.label);
        self.progress.say(&format!("{title}, {visits} visits"));
        let samples = player.play(visitor, visits, |visit| self.progress.count(&title, visit, visits));
        self.progress.done(&title);
        let samples = samples?;
        for Sample { name, fetch, .. } in &samples {
            if let Err(error) = fetch {
                self.progress.say(&format!("{title}: {name}: {error}"));
            }
        }
        Ok(Half { samples, unused: [0, 0] })
    }

    fn unused(&self) -> Result<[u64; 2]> {
        let [http, tls] = Scheme::ALL.map(|scheme| self.world.web.unused_connections(scheme.port()));
        Ok([http?, tls?])
    }

    /// The daemon's configuration: the sites' networks allowed, the resolver to warm, the far cache to fill.
    fn configuration(&self) -> String {
        let [v4, v6] = world::SITE_NETWORKS;
        let mut text = format!(
            "[policy]\nhold_seconds = {}\n\n[policy.guard]\nallow_networks = [\"{v4}\", \"{v6}\"]\n\n[resolve]\nservers = [\"{}\"]\n\n\
             [requests]\nca_file = \"{}\"\n",
            self.scenario.plan.hold_seconds,
            std::net::SocketAddr::new(self.world.gateway_address(), 53),
            self.world.certificates.authority.display(),
        );
        for (scheme, follower) in self.scenario.far_cached() {
            let url = format!("{}://{}{}", scheme.url(), follower.name, follower.path);
            text.push_str(&format!("\n[[warm]]\nurl = \"{url}\"\nmethod = \"GET\"\n"));
        }
        text
    }
}
