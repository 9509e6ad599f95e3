//! Fits the weights of the predictor's network over recorded traffic and writes them as `predict/weights.rs`.
//!
//! `cargo run --release -p prewarm-tests --example fit_predictor -- FOLDER [OUT]`. With an `OUT` the weights are fitted
//! over all traces and written there; without one, traces of one origin are left out in turn, and the coverage on those
//! left out is printed: what to expect of traffic that was never seen. `docs/prediction.md` tells why it is done so.

mod fit;
mod net;
mod rows;

use std::path::PathBuf;

use anyhow::Context as _;
use prewarm_tests::{
    bench::predict::{case_of, generated, metric, read, traces},
    captures,
};
use rows::{Trace, thinned};

/// Traces recorded at the same place, by how their names begin: left out together.
const ORIGINS: [&[&str]; 5] = [&["m57"], &["wrccdc"], &["lab24h", "phone"], &["oj", "twiki"], &["har", "iot"]];

#[expect(clippy::print_stdout, reason = "a tool prints its figures")]
pub(crate) fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map(PathBuf::from).or_else(captures::recorded).context("name a folder of traces")?;
    let out = arguments.next().map(PathBuf::from);
    let mut traces_read = Vec::new();
    for path in traces(&folder) {
        let events = read(&path)?;
        traces_read.push((case_of(&path), Trace::new(thinned(&events), true)));
        traces_read.push((case_of(&path), Trace::new(events, false)));
    }
    // Made-up courses beside them: dense and regular as the recorded traffic is not.
    let visits = |course: &generated::Course| 450 / (course.clients * (1 + course.followers));
    let courses: Vec<Trace> =
        generated::courses().iter().map(|course| Trace::new(course.events(visits(course)), true)).collect();
    if let Some(out) = out {
        let all: Vec<&Trace> = traces_read.iter().map(|(_, trace)| trace).chain(&courses).collect();
        let net = fit::fit(&all);
        for (name, trace) in traces_read.iter().filter(|(_, trace)| !trace.derived) {
            show(name, trace, &net);
        }
        std::fs::write(out, net.source())?;
        return Ok(());
    }
    let of = |name: &str| ORIGINS.iter().position(|origin| origin.iter().any(|start| name.starts_with(start)));
    for origin in 0..ORIGINS.len() {
        let rest: Vec<&Trace> = traces_read
            .iter()
            .filter(|(name, _)| of(name) != Some(origin))
            .map(|(_, trace)| trace)
            .chain(&courses)
            .collect();
        let net = fit::fit(&rest);
        for (name, trace) in traces_read.iter().filter(|(name, trace)| of(name) == Some(origin) && !trace.derived) {
            show(name, trace, &net);
        }
    }
    println!("traces without an origin of their own were only fitted to");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a tool prints its figures")]
fn show(name: &str, trace: &Trace, net: &net::Net) {
    let coverage = metric::sweep(&trace.events, &trace.said(net), 60.0).coverage;
    println!("{name:<16}{:>6.1}{:>6.1}{:>6.1}{:>6.1}", coverage[0], coverage[1], coverage[2], coverage[3]);
}
