//! The same requests to origins of every kind, without prewarm and over each way: which of them fail.
//!
//! Comes in: ways, the daemon's binary. Goes out: how many failed cold, and how many over leases that had not failed
//! cold. Never here: origins that wait for anybody; theirs is the shortest patience there is.

use std::collections::BTreeMap;
use std::path::Path as File;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Row;
use crate::bed::origins::Origins;
use crate::bed::{Bed, Keep, outcome};
use crate::client::requests::Answers;
use crate::daemon::Daemon;
use crate::interrupt;
use crate::path::Path;

/// Long enough that a FIN is often under way when a lease is taken.
const ROUND_TRIP: Duration = Duration::from_millis(10);
/// Leases that are kept to each origin.
const KEPT: u32 = 2;
/// The longest pause before a request, in milliseconds: well within and well beyond the patience of all of them.
const PAUSE: &str = "80";
/// How long the daemon gets to learn what its origins are like.
const ACQUAINTANCE: Duration = Duration::from_secs(3);

/// Makes so many requests to each origin, first cold, then over these ways.
///
/// # Errors
/// Without root and the packages, or when a way doesn't work at all.
pub fn run(binary: &File, paths: &[Path], count: u32, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let bed = Bed::build(Some(ROUND_TRIP))?;
    let origins = Origins::start(&bed)?;
    let keeps: Vec<_> = origins.list.iter().map(|listed| Keep { port: listed.port, count: KEPT }).collect();
    say(&format!("behaviours: cold, {count} requests to each of {} origins", origins.list.len()));
    let cold: BTreeMap<String, Answers> = outcome(&mut client(&bed, &origins, Path::Exec, None, count)?)?;
    let mut rows = Vec::new();
    for (name, answers) in &cold {
        rows.push(Row::new(&format!("cold-behaviours/{name}"), "cold", "failed", answers.failed.len() as f64, ""));
    }
    for path in paths {
        interrupt::check()?;
        say(&format!("behaviours: {}, {count} requests to each of {} origins", path.label(), origins.list.len()));
        let mut daemon = bed.start_daemon(*path, binary, &keeps)?;
        crate::clock::pause(ACQUAINTANCE);
        let before = daemon.stats()?.leases.taken;
        let mut command = client(&bed, &origins, *path, Some(&daemon), count)?;
        let warm: BTreeMap<String, Answers> = outcome(&mut command).with_context(|| path.label())?;
        let taken = daemon.stats()?.leases.taken - before;
        for (name, answers) in &warm {
            let case = format!("{}-behaviours/{name}", path.label());
            let cold = cold.get(name).map(|answers| &answers.failed[..]).unwrap_or_default();
            let worse: Vec<_> = answers.failed.iter().filter(|number| !cold.contains(number)).collect();
            if !worse.is_empty() {
                let some: Vec<_> = answers.complaints.iter().take(3).collect();
                say(&format!("{case}: failed though not cold: {worse:?}, {some:?}"));
            }
            rows.push(Row::new(&case, super::handover::PREWARM, "failed", answers.failed.len() as f64, ""));
            rows.push(Row::new(&case, "cold", "failed", cold.len() as f64, ""));
            rows.push(Row::new(&case, super::handover::PREWARM, "failed_not_cold", worse.len() as f64, ""));
        }
        let share = 100.0 * taken as f64 / (f64::from(count) * warm.len() as f64);
        rows.push(Row::new(
            &format!("{}-behaviours", path.label()),
            super::handover::PREWARM,
            "lease_share",
            share,
            "%",
        ));
    }
    Ok(rows)
}

fn client(bed: &Bed, origins: &Origins, path: Path, daemon: Option<&Daemon>, count: u32) -> Result<Command> {
    let mut command = bed.client(path, daemon, "requests")?;
    command.args(["--pause", PAUSE]);
    command.args(origins.counterparts(bed, path, daemon, count).iter().map(ToString::to_string));
    Ok(command)
}
