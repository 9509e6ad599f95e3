//! The sequence protocol: which item comes next in ordered lists, in 14 folds, trained and then frozen.
//!
//! Comes in: files of integer sequences, one a line, shuffled already. Goes out: overall accuracy (predictions that are
//! one of the last `consequent` items, of all test sequences), time and bytes, beside AKOM, order-1 Markov and the
//! dependency graph in the same run.

use std::{
    collections::HashMap,
    hash::Hash,
    io::BufRead as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use prewarm_user::{model::ResourceId, predict::Sequences};

use super::{Row, case_of, lines};

/// Parts of which one is tested in turn.
const FOLDS: usize = 14;
/// Pairs that prewarm's model may take.
const PAIRS: usize = 16_000_000;
/// The shared sets: window and consequent.
const SHARED: [(&str, usize, usize); 6] =
    [("BMS", 5, 1), ("SIGN", 7, 3), ("FIFA", 5, 1), ("KOSARAK", 5, 3), ("BIBLE_WORD", 3, 1), ("BIBLE_CHAR", 5, 2)];

/// A file of sequences and how it is asked.
#[derive(Clone, Debug)]
pub struct Set {
    /// The file.
    pub path: PathBuf,
    /// Items that a prediction may be made from.
    pub window: usize,
    /// Last items of which the prediction must be one.
    pub consequent: usize,
}

/// The sets of the shared folder, if they are there.
#[must_use]
pub fn sets(folder: &Path) -> Vec<Set> {
    SHARED
        .iter()
        .map(|&(name, window, consequent)| Set { path: folder.join(format!("{name}.seq.gz")), window, consequent })
        .filter(|set| set.path.exists())
        .collect()
}

/// A model of sequences.
trait Model {
    fn learn(&mut self, sequence: &[ResourceId]);
    fn predict(&self, context: &[ResourceId]) -> Option<ResourceId>;
}

impl Model for Sequences {
    fn learn(&mut self, sequence: &[ResourceId]) {
        Self::learn(self, sequence);
    }

    fn predict(&self, context: &[ResourceId]) -> Option<ResourceId> {
        Self::predict(self, context)
    }
}

/// Markov chains of all orders up to `order`: the longest context that exists answers with its most frequent successor
/// (AKOM; with order 1, plain Markov).
struct Markov {
    order: usize,
    next: HashMap<Vec<ResourceId>, HashMap<ResourceId, u32>>,
}

impl Model for Markov {
    fn learn(&mut self, sequence: &[ResourceId]) {
        for place in 1..sequence.len() {
            for length in 1..=self.order.min(place) {
                let context = sequence[place - length..place].to_vec();
                *self.next.entry(context).or_default().entry(sequence[place]).or_default() += 1;
            }
        }
    }

    fn predict(&self, context: &[ResourceId]) -> Option<ResourceId> {
        (1..=self.order.min(context.len())).rev().find_map(|length| {
            best(self.next.get(&context[context.len() - length..])?.iter().map(|(item, count)| (*item, *count)))
        })
    }
}

/// The dependency graph: look-ahead of four, arcs with at least 0.12 of their node's weight.
#[derive(Default)]
struct Graph {
    counts: HashMap<ResourceId, u32>,
    arcs: HashMap<ResourceId, HashMap<ResourceId, u32>>,
}

impl Model for Graph {
    fn learn(&mut self, sequence: &[ResourceId]) {
        for (place, item) in sequence.iter().enumerate() {
            *self.counts.entry(*item).or_default() += 1;
            for next in sequence.iter().skip(place + 1).take(4) {
                *self.arcs.entry(*item).or_default().entry(*next).or_default() += 1;
            }
        }
    }

    fn predict(&self, context: &[ResourceId]) -> Option<ResourceId> {
        let item = context.iter().rev().find(|item| self.counts.contains_key(item))?;
        let least = 0.12 * f64::from(self.counts[item]);
        best(self.arcs.get(item)?.iter().filter(|arc| f64::from(*arc.1) >= least).map(|(item, count)| (*item, *count)))
    }
}

/// The item with the highest count; the lowest of equals.
fn best<T: Copy + Ord + Hash>(counts: impl Iterator<Item = (T, u32)>) -> Option<T> {
    counts.max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0))).map(|(item, _)| item)
}

/// Reads sequences: integers separated by blanks, one sequence a line.
///
/// # Errors
/// When the file can't be read or holds anything else.
pub fn read(path: &Path) -> anyhow::Result<Vec<Vec<ResourceId>>> {
    let mut sequences = Vec::new();
    for line in lines(path)?.lines() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        let items: Result<Vec<_>, _> = line.split_whitespace().map(|item| item.parse().map(ResourceId)).collect();
        sequences.push(items.with_context(|| format!("{}: {line:?} is no list of integers", path.display()))?);
    }
    Ok(sequences)
}

/// Share of the sequences whose end is predicted, in percent, over all folds.
fn accuracy<M: Model>(sequences: &[Vec<ResourceId>], set: &Set, mut model: impl FnMut() -> M) -> (f64, M) {
    let size = sequences.len() / FOLDS;
    let mut hits = 0;
    let mut last = model();
    for fold in 0..FOLDS {
        let test = fold * size..if fold == FOLDS - 1 { sequences.len() } else { (fold + 1) * size };
        last = model();
        for (place, sequence) in sequences.iter().enumerate() {
            if !test.contains(&place) {
                last.learn(sequence);
            }
        }
        for sequence in &sequences[test] {
            if sequence.len() > set.consequent {
                let (context, truth) = sequence.split_at(sequence.len() - set.consequent);
                let context = &context[context.len().saturating_sub(set.window)..];
                hits += usize::from(last.predict(context).is_some_and(|item| truth.contains(&item)));
            }
        }
    }
    (100.0 * f64::from(u32::try_from(hits).unwrap_or(u32::MAX)) / sequences.len().max(1) as f64, last)
}

/// The rows of one set.
#[must_use]
pub fn sequence_set(case: &str, sequences: &[Vec<ResourceId>], set: &Set) -> Vec<Row> {
    let items: usize = sequences.iter().map(Vec::len).sum();
    let before = crate::bench::nanos();
    let (ours, model) = accuracy(sequences, set, || Sequences::new(set.window, set.consequent, PAIRS));
    let spent = (crate::bench::nanos() - before) as f64 / 1000.0;
    let akom = accuracy(sequences, set, || Markov { order: 5, next: HashMap::new() }).0;
    let markov = accuracy(sequences, set, || Markov { order: 1, next: HashMap::new() }).0;
    let graph = accuracy(sequences, set, Graph::default).0;
    let mut rows: Vec<_> = [("prewarm", ours), ("akom", akom), ("markov-1", markov), ("dg", graph)]
        .map(|(subject, value)| Row::new(case, subject, "overall_accuracy", value, "percent"))
        .into();
    rows.push(Row::new(case, "prewarm", "us_per_event_mean", spent / (items.max(1) * FOLDS) as f64, "us"));
    rows.push(Row::new(case, "prewarm", "bytes", model.bytes() as f64, "bytes"));
    rows
}

/// Runs the protocol over sets.
///
/// # Errors
/// When a set can't be read.
pub fn run(sets: &[Set]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for set in sets {
        rows.extend(sequence_set(&case_of(&set.path), &read(&set.path)?, set));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_by_all_and_scored() {
        let sequences: Vec<Vec<ResourceId>> =
            (0..280).map(|n| [n % 5, n % 5 + 10, n % 5 + 20].map(ResourceId).into()).collect();
        let set = Set { path: "rule".into(), window: 3, consequent: 1 };
        for row in sequence_set("rule", &sequences, &set).iter().filter(|row| row.metric == "overall_accuracy") {
            assert!((row.value - 100.0).abs() < 1e-9, "{row:?}");
        }
    }
}
