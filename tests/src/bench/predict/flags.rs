//! What the bench of the predictor is run on, from the command line.
//!
//! Comes in: flags. Goes out: rows. Without flags, all of the shared folder is taken, or, where there is none, accesses
//! made up.

use std::path::PathBuf;

use super::{Row, generated, sequences};
use crate::captures;

/// Flags of `cargo xtask bench predict`.
#[derive(Clone, Debug, clap::Args)]
pub struct Flags {
    /// A trace: time, client and resource separated by tabs; several may be given (predict)
    #[arg(long, value_name = "FILE", num_args = 1..)]
    trace: Vec<PathBuf>,
    /// Sequences: integers separated by blanks, one sequence a line (predict)
    #[arg(long, value_name = "FILE")]
    sequences: Option<PathBuf>,
    /// Items that a prediction in sequences is made from (predict)
    #[arg(long, default_value_t = 5)]
    window: usize,
    /// Last items of a sequence of which the prediction must be one (predict)
    #[arg(long, default_value_t = 1)]
    consequent: usize,
    /// Instead of the baselines: copies made at once beside copies made just in time (predict)
    #[arg(long, conflicts_with = "sequences")]
    timing: bool,
}

impl Flags {
    /// Runs what was asked for.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn run(&self) -> anyhow::Result<Vec<Row>> {
        let rows_of = if self.timing { super::timing::trace } else { super::trace };
        let (window, consequent) = (self.window, self.consequent);
        let mut traces = self.trace.clone();
        let mut sets: Vec<_> =
            self.sequences.iter().map(|path| sequences::Set { path: path.clone(), window, consequent }).collect();
        if traces.is_empty() && sets.is_empty() {
            let Some(folder) = captures::recorded() else { return Ok(rows_of("generated", &generated::events())) };
            traces = super::traces(&folder);
            sets = sequences::sets(&folder.join("ipredict"));
        }
        let mut rows = super::run(&traces, &rows_of)?;
        if !self.timing {
            rows.extend(sequences::run(&sets)?);
        }
        Ok(rows)
    }
}
