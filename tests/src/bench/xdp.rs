//! Nanoseconds a packet, by test-run, against a program that only lets packets pass.
//!
//! A test run repeats one frame and gives the mean time in whole nanoseconds; the cost of the harness is in every
//! figure, and the subject `pass` says how much that is. Rounds are interleaved and their median is given, because the
//! machine is shared. Where each packet leaves a record, runs are no longer than the ring has room for, which is
//! emptied in between. `new-17` needs another name in each packet: the program `bench_new` counts letters of the name
//! up before it goes the usual way, `bench_vary` only counts, and the figure is the difference on top of `pass`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use prewarm_ebpf::abi::{BENCH_NEW, BENCH_VARY, INGRESS, PASS};
use prewarm_user::{
    kernel::{Key, Settings, Trial, object},
    model::Name,
};

use super::Row;
use crate::frames::{Question, answer, question, tcp};

const ROUNDS: usize = 9;
/// Repeats of a run that leaves no records.
const REPEATS: u32 = 200_000;
/// Repeats of a run whose records must fit into the ring.
const BATCH: u32 = 1_000;
const BATCHES: u32 = 60;

/// Runs the bench.
///
/// # Errors
/// When the programs can't be loaded or run.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let object = object().context("built without the kernel programs (hint: cargo xtask bench xdp)")?;
    let key = Key::from_secret(&[7; 32]);
    let folding = Settings { window: Duration::from_secs(3600), ..Settings::new(key.clone()) };
    let never = Settings { window: Duration::ZERO, ..Settings::new(key.clone()) };
    let mut folding = Trial::load(object, &folding, &[INGRESS, PASS])?;
    let mut never = Trial::load(object, &never, &[INGRESS, PASS, BENCH_NEW, BENCH_VARY])?;
    never.known().insert(key.resource_id(&name(17)?))?;

    let mut cases = vec![("other".to_owned(), Kind::Plain, tcp(443))];
    for length in [17, 35, 64, 255] {
        cases.push((format!("known-{length}"), Kind::Plain, question(&ask(length)?)));
    }
    cases.push(("event-17".to_owned(), Kind::Event, question(&ask(17)?)));
    cases.push(("new-17".to_owned(), Kind::New, question(&ask(17)?)));
    cases.push(("response-17".to_owned(), Kind::Event, answer(&ask(17)?)));

    let mut samples = vec![(Vec::new(), Vec::new()); cases.len()];
    for _ in 0..ROUNDS {
        for ((_, kind, frame), (ours, pass)) in cases.iter().zip(&mut samples) {
            let trial = if *kind == Kind::Plain { &mut folding } else { &mut never };
            let base = nanos(trial.run(PASS, frame, REPEATS)?.1);
            pass.push(base);
            ours.push(match kind {
                Kind::Plain => {
                    // The first of them is the event that the others fold into.
                    trial.run(INGRESS, frame, 1)?;
                    trial.discard();
                    nanos(trial.run(INGRESS, frame, REPEATS)?.1)
                }
                Kind::Event => batches(trial, INGRESS, frame)?,
                Kind::New => base + batches(trial, BENCH_NEW, frame)? - batches(trial, BENCH_VARY, frame)?,
            });
        }
    }
    let lost = folding.counters().ingress()?.ring_lost + never.counters().ingress()?.ring_lost;
    ensure!(lost == 0, "the ring had no room for {lost} records, so the figures are of something else");

    let row = |case: &str, subject: &str, samples: &mut Vec<f64>| Row {
        case: case.to_owned(),
        subject: subject.to_owned(),
        metric: "ns_per_packet".to_owned(),
        value: median(samples),
        unit: "ns".to_owned(),
    };
    Ok(cases
        .iter()
        .zip(&mut samples)
        .flat_map(|((case, ..), (ours, pass))| [row(case, "prewarm", ours), row(case, "pass", pass)])
        .collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Leaves no record, but for the first.
    Plain,
    /// Leaves a record each.
    Event,
    /// Leaves a record with another name each.
    New,
}

/// The mean over many short runs, between which the ring is emptied.
fn batches(trial: &mut Trial, program: &'static str, frame: &[u8]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for _ in 0..BATCHES {
        sum += nanos(trial.run(program, frame, BATCH)?.1);
        trial.discard();
    }
    Ok(sum / f64::from(BATCHES))
}

fn ask(length: usize) -> anyhow::Result<Question> {
    Ok(Question { edns: true, ..Question::new(name(length)?) })
}

/// A name of this length in wire format; its first label has at least eight letters.
fn name(length: usize) -> anyhow::Result<Name> {
    let mut text = "aaaaaaaaaa".to_owned();
    let mut label = 0;
    // Text is two bytes shorter than wire format: the first length and the last zero.
    while text.len() < length - 2 {
        let left = length - 2 - text.len();
        if label == 0 || (label >= 30 && left > 1) {
            text.push('.');
            label = 1;
        } else {
            text.push('b');
            label += 1;
        }
    }
    let name: Name = text.parse().context("a name for the bench")?;
    ensure!(name.as_wire().len() == length, "the name has {} bytes, not {length}", name.as_wire().len());
    Ok(name)
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
