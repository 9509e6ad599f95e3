//! The bench of the predictor: what it would have made ready on recorded accesses, and what it says comes next in
//! sequences, each beside the baselines in the same run.
//!
//! Comes in: traces (time, client, resource) and sequences. Goes out: rows. `docs/prediction.md` tells what they mean.

mod flags;
pub mod generated;
pub mod sequences;
pub mod timing;

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
pub use flags::Flags;
pub use prewarm_user::replay::{Event, Said, baselines, metric};
use prewarm_user::{
    config::PredictSettings,
    model::{ResourceId, Timestamp},
    predict::{ClientKey, Mixture, Predictor},
};

use super::Row;

/// The times to live that are replayed, with what is appended to the name of the case.
const TTLS: [(f64, &str); 2] = [(60.0, ""), (300.0, "@300")];

/// Reads a trace: time, client and resource separated by tabs; gzip-compressed if its name ends so.
///
/// # Errors
/// When the file can't be read or a line is none.
pub fn read(path: &Path) -> anyhow::Result<Vec<Event>> {
    let mut numbers = HashMap::new();
    let mut clients = HashMap::new();
    let mut events: Vec<Event> = Vec::new();
    for line in lines(path)?.lines() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        let mut fields = line.splitn(3, '\t');
        let (Some(at), Some(client), Some(resource)) = (fields.next(), fields.next(), fields.next()) else {
            anyhow::bail!("{}: {line:?} has not three fields", path.display());
        };
        let next = u32::try_from(numbers.len())?;
        let resource = *numbers.entry(resource.to_owned()).or_insert(next);
        let next = u32::try_from(clients.len())?;
        let client = *clients.entry(client.to_owned()).or_insert(next);
        let at: f64 = at.parse().with_context(|| format!("{}: {at:?} is no time", path.display()))?;
        anyhow::ensure!(at.is_finite(), "{}: {at} is no time", path.display());
        events.push(Event { at, client, resource });
    }
    Ok(events)
}

/// The lines of a file, compressed or not.
fn lines(path: &Path) -> anyhow::Result<Box<dyn std::io::BufRead>> {
    let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let read: Box<dyn Read> = if compressed { Box::new(flate2::read::GzDecoder::new(file)) } else { Box::new(file) };
    Ok(Box::new(BufReader::new(read)))
}

/// What prewarm's predictor says.
#[derive(Debug)]
pub struct Prewarm {
    /// How much a copy made now is worth.
    pub worths: Said,
    /// The probability of an access within ten seconds.
    pub probabilities: Said,
    /// Nanoseconds of each event.
    pub nanos: Vec<u64>,
    /// Bytes of the model.
    pub bytes: usize,
}

/// Runs prewarm's predictor over the events.
#[must_use]
pub fn run_prewarm(events: &[Event]) -> Prewarm {
    let mut model = Mixture::new(&PredictSettings { candidates: 64, ..Default::default() });
    let (mut worths, mut probabilities) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
    let mut nanos = Vec::with_capacity(events.len());
    let mut out = Vec::new();
    let first = events.first().map_or(0.0, |event| event.at);
    for event in events {
        let (now, client) = (since(first, event.at), ClientKey(u128::from(event.client)));
        let before = super::nanos();
        model.learn(now, client, spread(event.resource));
        model.predict(now, client, &mut out);
        nanos.push(super::nanos() - before);
        worths.push(model.outlooks().iter().map(|outlook| (unspread(outlook.resource), outlook.worth)).collect());
        probabilities.push(out.iter().map(|p| (unspread(p.resource), p.probability as f32)).collect());
    }
    Prewarm { worths, probabilities, nanos, bytes: model.bytes() }
}

/// A trace's time as a time of the model.
#[must_use]
pub fn since(first: f64, at: f64) -> Timestamp {
    Timestamp::from_origin(Duration::try_from_secs_f64((at - first).max(0.0)).unwrap_or(Duration::MAX))
}

/// The traces of a folder, if it is there.
#[must_use]
pub fn traces(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(".tsv.gz"))
        .collect();
    found.sort();
    found
}

/// The rows of one trace, for each TTL: prewarm and the baselines.
#[must_use]
pub fn trace(case: &str, events: &[Event]) -> Vec<Row> {
    let mut rows = Vec::new();
    let prewarm = run_prewarm(events);
    let mut subjects = vec![("prewarm", &prewarm.worths)];
    let baselines = baselines::all(events);
    subjects.extend(baselines.iter().map(|(name, said)| (*name, said)));
    for (ttl, suffix) in TTLS {
        let case = format!("{case}{suffix}");
        for (subject, said) in &subjects {
            let sweep = metric::sweep(events, said, ttl);
            let mut push = |metric: &str, value| rows.push(Row::new(&case, subject, metric, value, "percent"));
            for (cost, coverage) in metric::COSTS.iter().zip(sweep.coverage) {
                push(&format!("net_coverage_{cost}"), coverage);
            }
            push("precision_10", sweep.precision[0]);
            push("precision_60", sweep.precision[1]);
            push("waste", sweep.waste);
        }
    }
    let mut nanos = prewarm.nanos;
    nanos.sort_unstable();
    let mean = nanos.iter().sum::<u64>() as f64 / nanos.len().max(1) as f64 / 1000.0;
    let p99 = nanos.get(nanos.len() * 99 / 100).copied().unwrap_or(0) as f64 / 1000.0;
    let error = metric::calibration(events, &prewarm.probabilities).0;
    rows.push(Row::new(case, "prewarm", "calibration_error", error, ""));
    rows.push(Row::new(case, "prewarm", "us_per_event_mean", mean, "us"));
    rows.push(Row::new(case, "prewarm", "us_per_event_p99", p99, "us"));
    rows.push(Row::new(case, "prewarm", "bytes", prewarm.bytes as f64, "bytes"));
    rows
}

/// Mean coverage of each subject over the traces, for each TTL.
#[must_use]
pub fn means(rows: &[Row]) -> Vec<Row> {
    let mut sums: Vec<(String, String, String, f64, f64)> = Vec::new();
    for row in rows.iter().filter(|row| row.metric.starts_with("net_coverage_")) {
        let case = row.case.split_once('@').map_or_else(|| "mean".to_owned(), |(_, of)| format!("mean@{of}"));
        let same = |sum: &&mut (String, String, String, f64, f64)| {
            sum.0 == case && sum.1 == row.subject && sum.2 == row.metric
        };
        if let Some(sum) = sums.iter_mut().find(same) {
            (sum.3, sum.4) = (sum.3 + row.value, sum.4 + 1.0);
        } else {
            sums.push((case, row.subject.clone(), row.metric.clone(), row.value, 1.0));
        }
    }
    sums.iter()
        .map(|(case, subject, metric, sum, count)| Row::new(case, subject, metric, sum / count, "percent"))
        .collect()
}

/// A file's name without its endings.
#[must_use]
pub fn case_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Runs the metric over traces; rows for each trace, subject and figure, and the means.
///
/// # Errors
/// When a trace can't be read.
pub fn run(paths: &[PathBuf], rows_of: &dyn Fn(&str, &[Event]) -> Vec<Row>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for path in paths {
        rows.extend(rows_of(&case_of(path), &read(path)?));
    }
    rows.extend(means(&rows));
    Ok(rows)
}

/// IDs are keyed hashes: spread over all bits.
#[must_use]
pub fn spread(number: u32) -> ResourceId {
    ResourceId((u64::from(number) << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The number behind a spread ID.
#[must_use]
pub fn unspread(resource: ResourceId) -> u32 {
    // The inverse of the odd factor, modulo 2^64.
    resource.0.wrapping_mul(0xf1de_83e1_9937_733d) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        for number in [0, 1, 77, u32::MAX] {
            assert_eq!(unspread(spread(number)), number);
        }
    }

    /// A page whose three followers come 0.2, 0.5 and 1 s later, visited every two minutes among noise.
    fn visits() -> Vec<Event> {
        let mut events = Vec::new();
        for visit in 0..200u32 {
            let at = f64::from(visit) * 120.0;
            for (resource, lag) in [(0, 0.0), (1, 0.2), (2, 0.5), (3, 1.0)] {
                events.push(Event { at: at + lag, client: 0, resource });
            }
            events.push(Event { at: at + 70.0, client: 0, resource: 4 + visit });
        }
        events
    }

    #[test]
    fn what_repeats_is_foreseen() {
        let rows = trace("visits", &visits());
        let value = |subject: &str, metric: &str| {
            rows.iter()
                .find(|row| row.case == "visits" && row.subject == subject && row.metric == metric)
                .unwrap()
                .value
        };
        // Three of five accesses follow the first, which comes every two minutes; the fifth can't be known.
        let coverage = value("prewarm", "net_coverage_1");
        assert!(coverage > 55.0 && coverage <= 80.0, "{coverage}");
        assert!(value("prewarm", "calibration_error") < 0.05);
        assert!(value("window-60", "net_coverage_1") > 55.0);
    }
}
