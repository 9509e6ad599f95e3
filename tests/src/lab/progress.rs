//! Progress on standard error: a line a step, and one running line of counts where somebody watches.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::{Mutex, PoisonError};

/// Says what goes on; scenarios that are played at the same time share it.
#[derive(Debug)]
pub struct Progress {
    watched: bool,
    /// By phase: visits done, and of how many.
    counts: Mutex<BTreeMap<String, (usize, usize)>>,
}

impl Progress {
    /// Counts only on a terminal.
    pub fn new() -> Self {
        Self { watched: stderr().is_terminal(), counts: Mutex::default() }
    }

    /// A line of its own.
    pub fn say(&self, line: &str) {
        self.update(Some(line), |_| ());
    }

    /// How far a phase has come.
    pub fn count(&self, phase: &str, done: usize, of: usize) {
        self.update(None, |counts| {
            counts.insert(phase.to_owned(), (done, of));
        });
    }

    /// The end of counting a phase.
    pub fn done(&self, phase: &str) {
        self.update(None, |counts| {
            counts.remove(phase);
        });
    }

    fn update(&self, line: Option<&str>, change: impl FnOnce(&mut BTreeMap<String, (usize, usize)>)) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counts);
        let mut text = String::new();
        if self.watched {
            text.push_str("\r\x1b[K");
        }
        if let Some(line) = line {
            text.push_str(line);
            text.push('\n');
        }
        if self.watched {
            for (phase, (done, of)) in &*counts {
                // Writing to a string can't fail.
                let _written = write!(text, "{phase} {done}/{of}  ");
            }
        }
        // A closed standard error is no reason to stop measuring.
        let _written = stderr().write_all(text.as_bytes());
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
