//! Traces: time, client and resource, separated by tabs, an access a line.

use super::{
    LeftOut, Reader, Reason, RecordingError, Shows,
    lines::{Line, Lines},
    words::{self, Observer},
};
use crate::{kernel::Key, model::Observation};

/// A trace being read.
pub(super) struct Trace {
    lines: Lines,
    observer: Observer,
    left_out: LeftOut,
}

impl Trace {
    pub(super) fn new(lines: Lines, key: Key) -> Self {
        Self { lines, observer: Observer::new(key), left_out: LeftOut::default() }
    }

    /// The access of a line.
    fn access(&mut self) -> Result<Observation, Reason> {
        let mut fields = self.lines.text().splitn(3, |byte| *byte == b'\t');
        let (Some(at), Some(client), Some(resource)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(Reason::Broken);
        };
        let at = words::time(at).ok_or(Reason::Broken)?;
        if client.is_empty() {
            return Err(Reason::Broken);
        }
        let name = words::resource(resource).ok_or(Reason::NoName)?;
        Ok(self.observer.question(at, words::client(client), None, &name, words::A))
    }
}

impl Reader for Trace {
    fn next(&mut self) -> Result<Option<Observation>, RecordingError> {
        while let Some(line) = self.lines.next()? {
            let access = match line {
                // A line that says what the columns are.
                Line::Text if self.lines.text().starts_with(b"#") => continue,
                Line::Text => self.access(),
                Line::TooLong => Err(Reason::LongLine),
            };
            match access {
                Ok(access) => return Ok(Some(access)),
                Err(reason) => self.left_out.add(reason, self.lines.number()),
            }
        }
        Ok(None)
    }

    fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    fn shows(&self) -> Shows {
        Shows { answers: false, ttls: false, connections: false }
    }
}
