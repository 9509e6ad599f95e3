//! What the predictor is held against on traces: simple models, each in a few lines.
//!
//! Comes in: events. Goes out: what each model says after each event. A client's context is its own past, cut where two
//! of its events lie more than 60 s apart; counts are of all clients together.

use std::collections::HashMap;

use super::{Event, Said};

/// Names said of one event at most.
const SAID: usize = 64;
/// Names that the most popular are said from.
const POPULAR: usize = 400;
/// Silence in seconds that cuts a context.
const CUT: f64 = 60.0;

type Counts = HashMap<u32, u32>;

/// A model that is told event by event.
pub trait Baseline {
    /// Learns an event, and says what comes after it: names with scores, best first.
    fn event(&mut self, event: &Event) -> Vec<(u32, f32)>;
}

fn run(baseline: &mut dyn Baseline, events: &[Event]) -> Said {
    events.iter().map(|event| baseline.event(event)).collect()
}

/// Each baseline's name and what it says.
#[must_use]
pub fn all(events: &[Event]) -> Vec<(&'static str, Said)> {
    vec![
        ("popular", popular(events)),
        ("markov-1", run(&mut Markov::default(), events)),
        ("ppm-3", ppm(events, 3)),
        ("dg-4", run(&mut Graph::new(Window::Events(4)), events)),
        ("window-10", run(&mut Graph::new(Window::Seconds(10.0)), events)),
        ("window-60", run(&mut Graph::new(Window::Seconds(60.0)), events)),
    ]
}

/// The names accessed most, by share of all events.
fn popular(events: &[Event]) -> Said {
    let mut counts = Counts::new();
    let mut ranked: Vec<u32> = Vec::new();
    let mut said = Vec::with_capacity(events.len());
    for (before, event) in events.iter().enumerate() {
        *counts.entry(event.resource).or_insert_with(|| {
            ranked.push(event.resource);
            0
        }) += 1;
        ranked.sort_by(|a, b| counts[b].cmp(&counts[a]).then(a.cmp(b)));
        let share = |name: &u32| (*name, counts[name] as f32 / (before + 1) as f32);
        said.push(ranked.iter().take(POPULAR).map(share).collect());
    }
    said
}

/// The clients' contexts: the names of the current session, oldest first.
#[derive(Debug, Default)]
struct Sessions(HashMap<u32, Vec<(u32, f64)>>);

impl Sessions {
    /// The session that the event continues, without the event.
    fn at(&mut self, event: &Event) -> &mut Vec<(u32, f64)> {
        let session = self.0.entry(event.client).or_default();
        if session.last().is_some_and(|(_, at)| event.at - at > CUT) {
            session.clear();
        }
        session
    }
}

/// What came next, by share: an order-1 Markov model, event by event.
#[derive(Debug, Default)]
pub struct Markov {
    sessions: Sessions,
    next: HashMap<u32, Counts>,
}

impl Baseline for Markov {
    fn event(&mut self, event: &Event) -> Vec<(u32, f32)> {
        let session = self.sessions.at(event);
        if let Some((last, _)) = session.last() {
            *self.next.entry(*last).or_default().entry(event.resource).or_default() += 1;
        }
        // The last is all that is looked at.
        session.clear();
        session.push((event.resource, event.at));
        self.next.get(&event.resource).map_or_else(Vec::new, |counts| {
            let all: u32 = counts.values().sum();
            ranked(counts.iter().map(|(name, count)| (*name, *count as f32 / all as f32)))
        })
    }
}

/// Prediction by partial matching with escape C and exclusion (Moffat 1990), from `order` down to 0.
fn ppm(events: &[Event], order: usize) -> Said {
    let (mut sessions, mut next) = (Sessions::default(), HashMap::<Vec<u32>, Counts>::new());
    let mut said = Vec::with_capacity(events.len());
    for event in events {
        let session = sessions.at(event);
        let names: Vec<u32> = session.iter().map(|(name, _)| *name).collect();
        for length in 0..=order.min(names.len()) {
            *next.entry(names[names.len() - length..].to_vec()).or_default().entry(event.resource).or_default() += 1;
        }
        session.push((event.resource, event.at));
        let names: Vec<u32> = session.iter().rev().take(order).rev().map(|(name, _)| *name).collect();
        let (mut left, mut scores) = (1.0f32, Counts::new().into_keys().map(|name| (name, 0.0)).collect::<Vec<_>>());
        let mut excluded = std::collections::HashSet::new();
        for length in (0..=names.len()).rev() {
            let Some(counts) = next.get(&names[names.len() - length..]) else { continue };
            let fresh: Vec<_> = counts.iter().filter(|(name, _)| !excluded.contains(*name)).collect();
            let all: u32 = fresh.iter().map(|(_, count)| **count).sum();
            if all == 0 {
                continue;
            }
            let whole = (all as usize + fresh.len()) as f32;
            scores.extend(fresh.iter().map(|(name, count)| (**name, left * **count as f32 / whole)));
            left *= fresh.len() as f32 / whole;
            excluded.extend(fresh.iter().map(|(name, _)| **name));
        }
        said.push(ranked(scores.into_iter()));
    }
    said
}

/// How far back an access depends on another.
#[derive(Clone, Copy, Debug)]
pub enum Window {
    /// So many events.
    Events(usize),
    /// So many seconds.
    Seconds(f64),
}

/// The dependency graph (Padmanabhan and Mogul 1996): what followed an appearance of a name, within so many events or
/// seconds, by share of its appearances; event by event.
#[derive(Debug)]
pub struct Graph {
    window: Window,
    sessions: Sessions,
    arcs: HashMap<u32, Counts>,
    counts: Counts,
}

impl Graph {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(window: Window) -> Self {
        Self { window, sessions: Sessions::default(), arcs: HashMap::new(), counts: Counts::new() }
    }
}

impl Baseline for Graph {
    fn event(&mut self, event: &Event) -> Vec<(u32, f32)> {
        let within = |back: usize, age: f64| match self.window {
            Window::Events(count) => back < count,
            Window::Seconds(seconds) => age <= seconds,
        };
        let session = self.sessions.at(event);
        let mut seen = Vec::new();
        let mut reached = 0;
        for (back, &(name, at)) in session.iter().rev().enumerate() {
            if !within(back, event.at - at) {
                break;
            }
            reached = back + 1;
            // What an earlier appearance of the same name separates does not count again.
            if name == event.resource {
                reached = session.len();
                break;
            }
            if !seen.contains(&name) {
                seen.push(name);
                *self.arcs.entry(name).or_default().entry(event.resource).or_default() += 1;
            }
        }
        // What lies behind the window now lies behind it for good.
        session.drain(..session.len() - reached);
        session.push((event.resource, event.at));
        let count = self.counts.entry(event.resource).or_default();
        *count += 1;
        let followers = self.arcs.get(&event.resource).into_iter().flatten();
        ranked(followers.map(|(name, hits)| (*name, *hits as f32 / *count as f32)))
    }
}

/// The best, best first.
fn ranked(scores: impl Iterator<Item = (u32, f32)>) -> Vec<(u32, f32)> {
    let mut scores: Vec<_> = scores.collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scores.truncate(SAID);
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_knows_what_it_should() {
        let events: Vec<_> = [(0, 0.0), (1, 1.0), (2, 30.0), (0, 200.0), (1, 201.0), (2, 231.0), (0, 400.0)]
            .map(|(resource, at)| Event { at, client: 0, resource })
            .into();
        for (name, said) in all(&events) {
            let last = said.last().expect("one for each event");
            let follows = last.iter().any(|(name, score)| *name == 1 && (0.0..=1.0).contains(score));
            assert!(follows, "{name}: {last:?}");
            let far = last.iter().any(|(name, _)| *name == 2);
            assert_eq!(far, !matches!(name, "markov-1" | "window-10"), "{name}: {last:?}");
        }
    }
}
