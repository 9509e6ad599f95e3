//! The lines of a file, none longer than a megabyte.

use std::{
    io::{BufRead, Read as _},
    path::{Path, PathBuf},
};

use super::{RecordingError, input::Input};

/// A longer line is no line of a log.
const LONGEST: usize = 1 << 20;

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Its text is in [`Lines::text`].
    Text,
    /// It was too long, and is gone.
    TooLong,
}

/// Reads lines.
pub(super) struct Lines {
    path: PathBuf,
    read: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    number: u64,
}

impl Lines {
    pub(super) fn new(input: Input) -> Self {
        Self { path: input.path.clone(), read: input.into_read(), buffer: Vec::new(), number: 0 }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the current line; the first is 1.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// The current line without its end.
    pub(super) fn text(&self) -> &[u8] {
        let text = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        text.strip_suffix(b"\r").unwrap_or(text)
    }

    /// Goes to the next line that is not blank.
    pub(super) fn next(&mut self) -> Result<Option<Line>, RecordingError> {
        loop {
            self.buffer.clear();
            let read = (&mut self.read).take(LONGEST as u64).read_until(b'\n', &mut self.buffer);
            if read.map_err(|source| Input::failure(&self.path, source))? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.buffer.len() == LONGEST && !self.buffer.ends_with(b"\n") {
                self.buffer.clear();
                self.skip()?;
                return Ok(Some(Line::TooLong));
            }
            if self.number == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.drain(..3);
            }
            if !self.text().trim_ascii().is_empty() {
                return Ok(Some(Line::Text));
            }
        }
    }

    /// Goes behind the end of the line.
    fn skip(&mut self) -> Result<(), RecordingError> {
        self.read.skip_until(b'\n').map(drop).map_err(|source| Input::failure(&self.path, source))
    }
}
