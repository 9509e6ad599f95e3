//! Progress on standard error: a line a phase, and a running count where somebody watches.

use std::io::{IsTerminal as _, Write as _, stderr};

/// Says what goes on.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    watched: bool,
}

impl Progress {
    /// Counts only on a terminal.
    pub fn new() -> Self {
        Self { watched: stderr().is_terminal() }
    }

    /// A line of its own.
    pub fn say(self, line: &str) {
        let clear = if self.watched { "\r\x1b[K" } else { "" };
        // A closed standard error is no reason to stop measuring.
        let _written = writeln!(stderr(), "{clear}{line}");
    }

    /// How far a phase has come.
    pub fn count(self, phase: &str, done: usize, of: usize) {
        if self.watched {
            let _written = write!(stderr(), "\r\x1b[K{phase} {done}/{of}").and_then(|()| stderr().flush());
        }
    }

    /// The end of counting.
    pub fn done(self) {
        if self.watched {
            let _written = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
