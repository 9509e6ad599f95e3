//! The replay metric of the predictor: what it would have made ready on recorded accesses, at which cost.
//!
//! Comes in: traces (time, client, resource). Goes out: net coverage at set costs, calibration, time and bytes, beside
//! a baseline in the same run. The definition is the one of `docs/prediction.md`: one cache with a fixed TTL shared by
//! all clients, a lead of 20 ms, at most 5 prefetches an event, the threshold swept.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use prewarm_user::{
    config::PredictSettings,
    model::{ResourceId, Timestamp},
    predict::{ClientKey, Mixture, Predictor},
};

use super::Row;

/// One access of a trace.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Seconds.
    pub at: f64,
    /// The client's number.
    pub client: u32,
    /// The resource's number, dense.
    pub resource: u32,
}

/// Lead time of a prefetch in seconds.
const LEAD: f64 = 0.020;
/// Prefetches for one event at most.
const MOST: usize = 5;
/// The costs at which coverage is told, in prefetches per miss without any.
const COSTS: [f64; 4] = [0.25, 0.5, 1.0, 2.0];

/// Reads a trace: time, client and resource separated by tabs, gzip-compressed.
///
/// # Errors
/// When the file can't be read or a line is none.
pub fn read(path: &Path) -> anyhow::Result<Vec<Event>> {
    let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut numbers = HashMap::new();
    let mut clients = HashMap::new();
    let mut events = Vec::new();
    for line in BufReader::new(flate2::read::GzDecoder::new(file)).lines() {
        let line = line?;
        let mut fields = line.splitn(3, '\t');
        let (Some(at), Some(client), Some(resource)) = (fields.next(), fields.next(), fields.next()) else {
            anyhow::bail!("{}: {line:?} has not three fields", path.display());
        };
        let next = u32::try_from(numbers.len())?;
        let resource = *numbers.entry(resource.to_owned()).or_insert(next);
        let next = u32::try_from(clients.len())?;
        let client = *clients.entry(client.to_owned()).or_insert(next);
        events.push(Event { at: at.parse()?, client, resource });
    }
    Ok(events)
}

/// What a model says after each event: names with scores, best first.
pub type Said = Vec<Vec<(u32, f32)>>;

/// Runs prewarm's predictor over the events; what it says, and the nanoseconds each event took.
#[must_use]
pub fn run_prewarm(events: &[Event]) -> (Said, Vec<u64>, usize) {
    let mut model = Mixture::new(&PredictSettings { candidates: 64, floor: 0.0, ..Default::default() });
    let mut said = Vec::with_capacity(events.len());
    let mut times = Vec::with_capacity(events.len());
    let mut out = Vec::new();
    let first = events.first().map_or(0.0, |event| event.at);
    for event in events {
        let now = Timestamp::from_origin(Duration::from_secs_f64((event.at - first).max(0.0)));
        let client = ClientKey(u128::from(event.client));
        let before = super::nanos();
        model.learn(now, client, spread(event.resource));
        model.predict(now, client, &mut out);
        times.push(super::nanos() - before);
        said.push(out.iter().map(|p| (unspread(p.resource), p.probability as f32)).collect());
    }
    (said, times, model.bytes())
}

/// The simple baseline that came out best on average: for each name, what followed within 60 s, by share.
#[must_use]
pub fn run_window(events: &[Event]) -> Said {
    let mut arcs: HashMap<u32, HashMap<u32, u32>> = HashMap::new();
    let mut counts: HashMap<u32, u32> = HashMap::new();
    let mut bursts: HashMap<u32, Vec<(u32, f64)>> = HashMap::new();
    let mut said = Vec::with_capacity(events.len());
    for event in events {
        let burst = bursts.entry(event.client).or_default();
        if burst.last().is_some_and(|(_, at)| event.at - at > 60.0) {
            burst.clear();
        }
        let mut seen = Vec::new();
        for &(name, at) in burst.iter().rev() {
            if name == event.resource || event.at - at > 60.0 {
                break;
            }
            if !seen.contains(&name) {
                seen.push(name);
                *arcs.entry(name).or_default().entry(event.resource).or_default() += 1;
            }
        }
        burst.push((event.resource, event.at));
        let count = counts.entry(event.resource).or_default();
        *count += 1;
        let mut all: Vec<_> = arcs
            .get(&event.resource)
            .into_iter()
            .flatten()
            .map(|(&name, &hits)| (name, hits as f32 / *count as f32))
            .collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(64);
        said.push(all);
    }
    said
}

/// Misses and prefetches of one replay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replay {
    /// Accesses that nothing was ready for.
    pub misses: usize,
    /// Prefetches made.
    pub prefetches: usize,
    /// Prefetches used within 10 s, 60 s, and the TTL.
    pub used: [usize; 3],
}

/// Replays the events with prefetches of what is said with a score of at least `threshold`.
#[must_use]
pub fn replay(events: &[Event], said: Option<&Said>, ttl: f64, threshold: f32) -> Replay {
    #[derive(Clone, Copy)]
    struct Copy {
        ready: f64,
        expire: f64,
        mark: f64,
    }
    let names = events.iter().map(|event| event.resource as usize + 1).max().unwrap_or(0);
    let none = Copy { ready: f64::NEG_INFINITY, expire: f64::NEG_INFINITY, mark: f64::NAN };
    let mut copies = vec![none; names];
    let mut result = Replay::default();
    for (index, event) in events.iter().enumerate() {
        let copy = &mut copies[event.resource as usize];
        if copy.expire > event.at {
            result.misses += usize::from(copy.ready > event.at);
        } else {
            result.misses += 1;
            *copy = Copy { ready: event.at, expire: event.at + ttl, mark: f64::NAN };
        }
        if !copy.mark.is_nan() {
            let lead = event.at - copy.mark;
            if lead >= LEAD && lead < ttl {
                result.used[0] += usize::from(lead <= 10.0);
                result.used[1] += usize::from(lead <= 60.0);
                result.used[2] += 1;
            }
            copy.mark = f64::NAN;
        }
        let mut made = 0;
        for &(name, score) in said.map_or(&[][..], |said| &said[index]) {
            if made >= MOST || score < threshold {
                break;
            }
            let copy = &mut copies[name as usize];
            if name == event.resource || copy.expire > event.at {
                continue;
            }
            *copy = Copy { ready: event.at + LEAD, expire: event.at + LEAD + ttl, mark: event.at };
            made += 1;
        }
        result.prefetches += made;
    }
    result
}

/// Net coverage in percent at each of the costs, by sweeping the threshold.
#[must_use]
pub fn net_coverage(events: &[Event], said: &Said, ttl: f64) -> [f64; 4] {
    let without = replay(events, None, ttl, 0.0).misses as f64;
    if without == 0.0 {
        return [0.0; 4];
    }
    let mut points: Vec<(f64, f64)> = (0..=70)
        .map(|step| {
            let threshold = if step == 70 { 0.0 } else { 0.97 * 0.92f64.powi(step) };
            let result = replay(events, Some(said), ttl, threshold as f32);
            (result.prefetches as f64 / without, 100.0 * (1.0 - result.misses as f64 / without))
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    COSTS.map(|cost| {
        let best = points.iter().filter(|point| point.0 <= cost).map(|point| point.1).fold(0.0, f64::max);
        let below = points.iter().rev().find(|point| point.0 <= cost).copied().unwrap_or((0.0, 0.0));
        let above = points.iter().find(|point| point.0 > cost);
        above.map_or(best, |above| {
            let part = (cost - below.0) / (above.0 - below.0);
            best.max(below.1 + part * (above.1 - below.1))
        })
    })
}

/// Mean distance between what was said and what came, over ten bins of the probability: for every candidate said with
/// at least 0.05, whether any client accessed it within 10 s.
#[must_use]
pub fn calibration_error(events: &[Event], said: &Said) -> f64 {
    let mut accesses: HashMap<u32, Vec<f64>> = HashMap::new();
    for event in events {
        accesses.entry(event.resource).or_default().push(event.at);
    }
    let mut bins = [(0.0, 0.0, 0.0); 10];
    for (index, event) in events.iter().enumerate() {
        for &(name, p) in &said[index] {
            if p < 0.05 || name == event.resource {
                continue;
            }
            let times = &accesses[&name];
            let next = times.partition_point(|at| *at <= event.at);
            let hit = times.get(next).is_some_and(|at| at - event.at <= 10.0);
            let bin = &mut bins[((p * 10.0) as usize).min(9)];
            bin.0 += 1.0;
            bin.1 += f64::from(p);
            bin.2 += f64::from(u8::from(hit));
        }
    }
    let all: f64 = bins.iter().map(|bin| bin.0).sum();
    bins.iter().filter(|bin| bin.0 > 0.0).map(|(_, said, came)| (said - came).abs()).sum::<f64>() / all.max(1.0)
}

/// The traces of the shared folder, if it is there.
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

/// Runs the metric over traces; a row for each trace, subject and figure, and the means.
///
/// # Errors
/// When a trace can't be read.
pub fn run(paths: &[PathBuf]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut sums: HashMap<&str, [f64; 4]> = HashMap::new();
    for path in paths {
        let events = read(path)?;
        let case = path.file_name().unwrap_or_default().to_string_lossy().replace(".tsv.gz", "");
        let (said, mut times, bytes) = run_prewarm(&events);
        let window = run_window(&events);
        for (subject, said) in [("prewarm", &said), ("window-60", &window)] {
            let coverage = net_coverage(&events, said, 60.0);
            let sum = sums.entry(subject).or_default();
            for (at, cost) in COSTS.iter().enumerate() {
                sum[at] += coverage[at];
                rows.push(Row::new(&case, subject, &format!("net_coverage_{cost}"), coverage[at], "percent"));
            }
        }
        times.sort_unstable();
        let mean = times.iter().sum::<u64>() as f64 / times.len().max(1) as f64 / 1000.0;
        let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or(0) as f64 / 1000.0;
        rows.push(Row::new(&case, "prewarm", "calibration_error", calibration_error(&events, &said), ""));
        rows.push(Row::new(&case, "prewarm", "us_per_event_mean", mean, "us"));
        rows.push(Row::new(&case, "prewarm", "us_per_event_p99", p99, "us"));
        rows.push(Row::new(&case, "prewarm", "bytes", bytes as f64, "bytes"));
    }
    for (subject, sum) in sums {
        for (at, cost) in COSTS.iter().enumerate() {
            let mean = sum[at] / paths.len().max(1) as f64;
            rows.push(Row::new("mean", subject, &format!("net_coverage_{cost}"), mean, "percent"));
        }
    }
    Ok(rows)
}

/// IDs are keyed hashes: spread over all bits.
fn spread(number: u32) -> ResourceId {
    ResourceId((u64::from(number) << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn unspread(resource: ResourceId) -> u32 {
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
        let events = visits();
        let (said, _, _) = run_prewarm(&events);
        let coverage = net_coverage(&events, &said, 60.0);
        // Three of five accesses follow the first; the rest can't be known.
        assert!(coverage[2] > 55.0 && coverage[2] <= 60.0, "{coverage:?}");
        let error = calibration_error(&events, &said);
        assert!(error < 0.05, "{error}");
        assert!(net_coverage(&events, &run_window(&events), 60.0)[2] > 55.0);
    }
}
