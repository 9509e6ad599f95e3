//! Several recordings as one, by time, on a clock that begins with the first observation.
//!
//! Logs are written when something is over, but their times say when it began, so lines come a little out of order: they
//! are sorted within a window, and what comes later than that is counted and moved.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{Reason, Recording, RecordingError, Shows};
use crate::model::{Observation, Timestamp};

/// How far observations of one file may be out of order, in time and in number.
const WINDOW: Duration = Duration::from_secs(120);
const MOST: usize = 1 << 15;
/// The clock's start: zero stands for "never" in places.
const START: Duration = Duration::from_secs(1);

/// Recordings merged by time.
#[derive(Debug)]
pub struct Merged {
    sources: Vec<Source>,
    first: Option<Timestamp>,
    last: Timestamp,
}

#[derive(Debug)]
struct Source {
    recording: Recording,
    waiting: BinaryHeap<Reverse<Waiting>>,
    newest: Timestamp,
    number: u64,
    ended: bool,
    late: u64,
}

/// An observation that waits for its turn; those of one time keep their order.
#[derive(Debug)]
struct Waiting {
    number: u64,
    observation: Observation,
}

impl Waiting {
    const fn key(&self) -> (Timestamp, u64) {
        (self.observation.at, self.number)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Source {
    /// Reads on until the earliest that waits can't be overtaken any more.
    fn fill(&mut self) -> Result<(), RecordingError> {
        while !self.ended
            && self.waiting.len() < MOST
            && self.waiting.peek().is_none_or(|first| self.newest.since(first.0.observation.at) < WINDOW)
        {
            match self.recording.next_observation()? {
                Some(observation) => {
                    self.newest = self.newest.max(observation.at);
                    self.number += 1;
                    self.waiting.push(Reverse(Waiting { number: self.number, observation }));
                }
                None => self.ended = true,
            }
        }
        Ok(())
    }

    fn next_at(&self) -> Option<Timestamp> {
        self.waiting.peek().map(|first| first.0.observation.at)
    }
}

impl Merged {
    /// Merges recordings.
    #[must_use]
    pub fn new(recordings: Vec<Recording>) -> Self {
        let source = |recording| Source {
            recording,
            waiting: BinaryHeap::new(),
            newest: Timestamp::ZERO,
            number: 0,
            ended: false,
            late: 0,
        };
        Self { sources: recordings.into_iter().map(source).collect(), first: None, last: Timestamp::ZERO }
    }

    /// The next observation, and what its recording shows; times begin with one second and never run backwards.
    ///
    /// # Errors
    /// When a file can't be read on.
    pub fn next_observation(&mut self) -> Result<Option<(Observation, Shows)>, RecordingError> {
        for source in &mut self.sources {
            source.fill()?;
        }
        let next =
            self.sources.iter_mut().filter(|source| source.next_at().is_some()).min_by_key(|source| source.next_at());
        let Some((source, Reverse(waiting))) =
            next.and_then(|source| source.waiting.pop().map(|waiting| (source, waiting)))
        else {
            return Ok(None);
        };
        let mut observation = waiting.observation;
        let first = *self.first.get_or_insert(observation.at);
        let at = Timestamp::from_origin(START) + observation.at.since(first);
        source.late += u64::from(at < self.last);
        self.last = self.last.max(at);
        observation.at = self.last;
        Ok(Some((observation, source.recording.shows())))
    }

    /// When the first observation was made, in seconds since 1970.
    #[must_use]
    pub fn began(&self) -> Option<Duration> {
        self.first.map(|first| Duration::from_nanos(first.as_nanos()))
    }

    /// The recordings, each with the number of observations read from it and what was left out of it.
    pub fn recordings(&self) -> impl Iterator<Item = (&Recording, u64, Vec<(Reason, u64, u64)>)> {
        self.sources.iter().map(|source| {
            let mut reasons: Vec<_> = source.recording.left_out().iter().collect();
            if source.late > 0 {
                reasons.push((Reason::OutOfOrder, source.late, 0));
            }
            (&source.recording, source.number, reasons)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{kernel::Key, model::Seen};

    fn trace(lines: &[(f64, &str)]) -> Recording {
        let text: String = lines.iter().map(|(at, name)| format!("{at:.3}\t1\t{name}\n")).collect();
        let key = Key::from_secret(&[0; 32]);
        Recording::of_bytes(Path::new("trace"), text.into_bytes(), None, &key).unwrap()
    }

    fn order(recordings: Vec<Recording>) -> (Vec<(u64, String)>, Vec<u64>) {
        let mut merged = Merged::new(recordings);
        let mut order = Vec::new();
        while let Some((observation, _)) = merged.next_observation().unwrap() {
            let Seen::Question { name: Some(name), .. } = observation.seen else {
                unreachable!("a trace has no other")
            };
            order.push((observation.at.as_nanos() / 1_000_000, name.to_string()));
        }
        let late = |(_, _, reasons): (&Recording, u64, Vec<(Reason, u64, u64)>)| {
            reasons.iter().filter(|reason| reason.0 == Reason::OutOfOrder).map(|reason| reason.1).sum()
        };
        (order, merged.recordings().map(late).collect())
    }

    #[test]
    fn files_are_merged_and_their_lines_sorted() {
        let first = trace(&[(100.0, "a.example"), (103.0, "d.example"), (101.0, "b.example"), (160.0, "f.example")]);
        let second = trace(&[(102.0, "c.example"), (150.0, "e.example")]);
        let (order, late) = order(vec![first, second]);
        let expected = [(1000, "a"), (2000, "b"), (3000, "c"), (4000, "d"), (51_000, "e"), (61_000, "f")];
        assert_eq!(order, expected.map(|(at, name)| (at, format!("{name}.example"))));
        assert_eq!(late, [0, 0]);
    }

    #[test]
    fn what_comes_hours_late_is_counted_and_moved() {
        let (order, late) = order(vec![trace(&[
            (10_000.0, "a.example"),
            (20_000.0, "b.example"),
            (30_000.0, "c.example"),
            (10_500.0, "d.example"),
            (30_001.0, "e.example"),
        ])]);
        let names: Vec<_> = order.iter().map(|(_, name)| &name[..1]).collect();
        assert_eq!(names, ["a", "b", "d", "c", "e"]);
        assert!(order.is_sorted_by_key(|(at, _)| *at), "{order:?}");
        assert_eq!(late, [1]);
    }
}
