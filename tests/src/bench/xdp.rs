//! Nanoseconds a packet, by test-run, against a program that only lets packets pass.
//!
//! A test run repeats one frame and gives the mean time in whole nanoseconds; the cost of the harness is in every
//! figure, and the subject `pass` says how much that is. Rounds are interleaved and their median is given, because the
//! machine is shared. Where each packet leaves a record, runs are no longer than the ring has room for, which is
//! emptied in between. `new-17` needs another name in each packet: the program `bench_new` counts letters of the name
//! up before it goes the usual way, `bench_vary` only counts, and the figure is the difference on top of `pass`. `answer-N`
//! needs a question in each run, where the last left an answer: `bench_answer` makes one of it before it goes the usual
//! way, `bench_restore` only makes one, of a packet that it makes longer first; what that alone costs is half of what
//! `bench_tail` does. Everything is on: counters, ageing, the daemon's beat, the client's standing, its network's share.
//! `missed-17` is a question that is left to the server because no answer is at hand.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, ensure};
use prewarm_ebpf::{
    abi::{BENCH_NEW, BENCH_VARY, INGRESS, PASS},
    answers::{AnswerRules, BENCH_ANSWER, BENCH_RESTORE, BENCH_TAIL, KIND_RECURSION},
};
use prewarm_user::{
    kernel::{Key, Settings, Trial, object},
    model::Name,
    resolve::answers,
};

use super::Row;
use crate::{
    answers::{Holder, lenient, seal, server},
    frames::{Question, answer, question, tcp, udp, wrap},
};

const ROUNDS: usize = 9;
/// Repeats of a run that leaves no records.
const REPEATS: u32 = 200_000;
/// Repeats of a run whose records must fit into the ring.
const BATCH: u32 = 2_000;
const BATCHES: u32 = 30;

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

    let mut answering = Answering::new()?;
    for length in [17, 35, 64, 255] {
        cases.push((format!("answer-{length}"), Kind::Answer, answering.lay(length)?));
    }
    cases.push(("missed-17".to_owned(), Kind::Missed, question(&Question { edns: false, qtype: 28, ..ask(17)? })));

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
                Kind::Answer => answering.measure(frame, base)?,
                Kind::Missed => {
                    answering.0.trial.run(INGRESS, frame, 1)?;
                    answering.0.trial.discard();
                    answering.0.heart.beat()?;
                    nanos(answering.0.trial.run(INGRESS, frame, REPEATS)?.1)
                }
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
    /// Is answered.
    Answer,
    /// Could be answered, if there were an answer.
    Missed,
}

/// The programs with answers for some names.
struct Answering(Holder);

impl Answering {
    fn new() -> anyhow::Result<Self> {
        let mut holder = Holder::new(&[BENCH_ANSWER, BENCH_RESTORE, BENCH_TAIL])?;
        // A share that is looked at and never used up.
        holder.maps.rule(&AnswerRules { cost: 1, burst: u64::MAX >> 1, ..lenient() })?;
        Ok(Self(holder))
    }

    /// Lays an answer ready with one address for a name of this length, and gives the frame that asks for it.
    fn lay(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        let asked = answers::Question { name: name(length)?, qtype: 1, kind: KIND_RECURSION };
        let mut reply = asked.message(1);
        reply[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
        reply[7] = 1;
        reply.extend(b"\xc0\x0c\0\x01\0\x01\0\x01\x51\x80\0\x04\xc6\x33\x64\x07");
        // The asking side is the asked one, so that the packet turned around is the same.
        let server = server(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        self.0.lay(&asked, &reply, server, 3_000_000_000)?;
        self.0.vouch(server)?;
        let asking = Question { client: server, edns: false, ..Question::new(asked.name.clone()) };
        let mut frame = wrap(&asking, 17, &udp(53, 53, &asked.message(1)), false);
        let total = u16::try_from(frame.len())?;
        frame[18..20].copy_from_slice(&total.to_be_bytes());
        frame.copy_within(0..6, 6);
        seal(&mut frame);
        Ok(frame)
    }

    /// Nanoseconds of an answered packet, on top of nothing: as if it came as it is, and no time were needed to measure.
    fn measure(&mut self, frame: &[u8], base: f64) -> anyhow::Result<f64> {
        let Holder { trial, heart, .. } = &mut self.0;
        let mut run = |program, repeat| -> anyhow::Result<(u32, f64)> {
            heart.beat()?;
            let (verdict, took) = trial.run(program, frame, repeat)?;
            Ok((verdict, nanos(took)))
        };
        // The first of them is the event that the others fold into.
        let (verdict, _) = run(BENCH_ANSWER, 1)?;
        ensure!(verdict == XDP_TX, "the bench's question is not answered");
        let (verdict, whole) = run(BENCH_ANSWER, REPEATS)?;
        ensure!(verdict == XDP_TX, "the bench's question is not answered for long");
        let (_, restored) = run(BENCH_RESTORE, REPEATS)?;
        let (_, resized) = run(BENCH_TAIL, REPEATS)?;
        self.0.trial.discard();
        Ok(whole - restored + (resized - base) / 2.0 + base)
    }
}

/// The verdict that sends a packet back.
const XDP_TX: u32 = 3;

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
