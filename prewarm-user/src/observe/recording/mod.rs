//! Recorded traffic, file by file, as the observations that live sources give.
//!
//! Comes in: files of several formats, compressed with gzip or not. Goes out: observations whose times count from 1970,
//! nearly in order, and what was left out and why. Never here: a whole file in memory (but a HAR, which is one JSON
//! value), or an end at a line that makes no sense: it is counted.

mod dnstap;
mod flows;
mod har;
mod input;
mod left_out;
mod lines;
mod merged;
mod packets;
mod trace;
mod words;
mod zeek;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

pub use left_out::{LeftOut, Reason};
pub use merged::Merged;
pub use words::url;

use self::{dnstap::Dnstap, har::Har, input::Input, lines::Lines, packets::Packets, trace::Trace, zeek::Zeek};
use crate::{kernel::Key, model::Observation};

/// The formats of recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Format {
    /// Lines of time, client and resource, separated by tabs.
    Trace,
    /// Zeek's dns.log or ssl.log, as columns or as JSON lines.
    Zeek,
    /// Packets, as pcap or pcapng.
    Pcap,
    /// HTTP archive 1.2, as browsers export it.
    Har,
    /// dnstap frame streams, as DNS servers write them.
    Dnstap,
}

/// What recordings of a kind show; what they don't is made up where it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shows {
    /// Answers follow questions.
    pub answers: bool,
    /// Answers have a TTL.
    pub ttls: bool,
    /// Connections are there, each by itself.
    pub connections: bool,
}

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file can't be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{}: the file is empty\nhint: name a recording with something in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is none of the formats.
    #[error(
        "{}: none of the formats that are read: {looks}\nhint: pcap, pcapng, Zeek's dns.log or ssl.log, HAR, dnstap \
         frame streams, or lines of time, client and name separated by tabs; --format names one where it isn't seen", path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        looks: &'static str,
    },
    /// It can't be read on.
    #[error("{}: {place}: {what}\nhint: {hint}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, frame or entry.
        place: String,
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
}

/// A reader of one format.
pub(super) trait Reader: Send {
    /// The next observation; `None` at the end.
    fn next(&mut self) -> Result<Option<Observation>, RecordingError>;

    /// What was left out so far.
    fn left_out(&self) -> &LeftOut;

    /// What the recording shows.
    fn shows(&self) -> Shows;
}

/// A recording being read.
pub struct Recording {
    path: PathBuf,
    format: Format,
    reader: Box<dyn Reader>,
}

impl Recording {
    /// Opens a recording; its format is seen by its beginning unless it is given. The bytes read from the file are added
    /// to `read`.
    ///
    /// # Errors
    /// When the file can't be read, is empty, or is of no known format.
    pub fn open(path: &Path, format: Option<Format>, key: &Key, read: &Arc<AtomicU64>) -> Result<Self, RecordingError> {
        Self::of(Input::open(path, Arc::clone(read))?, format, key)
    }

    /// The same of bytes in memory; messages name them by this path.
    ///
    /// # Errors
    /// When they are empty or of no known format.
    pub fn of_bytes(path: &Path, bytes: Vec<u8>, format: Option<Format>, key: &Key) -> Result<Self, RecordingError> {
        Self::of(Input::from_read(path, Box::new(io::Cursor::new(bytes)))?, format, key)
    }

    fn of(input: Input, format: Option<Format>, key: &Key) -> Result<Self, RecordingError> {
        let path = input.path.clone();
        let format = match format {
            Some(format) => format,
            None => input.format()?,
        };
        let reader: Box<dyn Reader> = match format {
            Format::Trace => Box::new(Trace::new(Lines::new(input), key.clone())),
            Format::Zeek => Box::new(Zeek::new(Lines::new(input), key.clone())?),
            Format::Pcap => Box::new(Packets::new(input, key.clone())?),
            Format::Dnstap => Box::new(Dnstap::new(input, key.clone())),
            Format::Har => Box::new(Har::read(input, key)?),
        };
        Ok(Self { path, format, reader })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// What it shows.
    #[must_use]
    pub fn shows(&self) -> Shows {
        self.reader.shows()
    }

    /// What was left out so far.
    #[must_use]
    pub fn left_out(&self) -> &LeftOut {
        self.reader.left_out()
    }

    /// The next observation, its time counted from 1970; `None` at the end.
    ///
    /// # Errors
    /// When the file can't be read on.
    pub fn next_observation(&mut self) -> Result<Option<Observation>, RecordingError> {
        self.reader.next()
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("path", &self.path).field("format", &self.format).finish_non_exhaustive()
    }
}
