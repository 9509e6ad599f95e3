//! Files of dnstap frames, as servers and `fstrm_capture` write them, compressed with gzip or not.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::{Event, FrameError, Frames, Item, Skipped};

/// Bytes read at once.
const PIECE: usize = 1 << 16;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum DnstapError {
    /// It can't be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no stream of frames, or breaks off being one.
    #[error("{}: broken behind payload {payloads}: {source}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The payloads before that.
        payloads: u64,
        /// What is wrong.
        source: FrameError,
    },
    /// It ends inside a frame.
    #[error("{}: ends inside the frame behind payload {payloads}", path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// The payloads before that.
        payloads: u64,
    },
}

/// A file being read.
pub struct DnstapFile {
    path: PathBuf,
    input: Box<dyn Read + Send>,
    frames: Frames,
    buffer: Vec<u8>,
    payloads: u64,
    skipped: u64,
    ended: bool,
}

impl DnstapFile {
    /// Opens a file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open(path: &Path) -> Result<Self, DnstapError> {
        let failed = |source| DnstapError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = Vec::with_capacity(2);
        (&mut file).take(2).read_to_end(&mut magic).map_err(failed)?;
        let packed = magic == [0x1f, 0x8b];
        let input = BufReader::new(io::Cursor::new(magic).chain(file));
        let input: Box<dyn Read + Send> = if packed { Box::new(MultiGzDecoder::new(input)) } else { Box::new(input) };
        Ok(Self {
            path: path.to_owned(),
            input,
            frames: Frames::new(),
            buffer: vec![0; PIECE],
            payloads: 0,
            skipped: 0,
            ended: false,
        })
    }

    /// The next event; `None` after the last. Payloads that are no events are passed over and counted.
    ///
    /// # Errors
    /// When the file can't be read, or is broken from here on; what came before is good.
    pub fn next_event(&mut self) -> Result<Option<Event>, DnstapError> {
        while !self.ended {
            while let Some(event) = self.held()? {
                match event {
                    Ok(event) => return Ok(Some(event)),
                    Err(_skipped) => self.skipped += 1,
                }
            }
            let got = match self.input.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                got => got.map_err(|source| DnstapError::Read { path: self.path.clone(), source })?,
            };
            self.ended = got == 0;
            self.frames.feed(self.buffer.get(..got).unwrap_or_default());
        }
        if self.frames.is_whole() {
            return Ok(None);
        }
        Err(DnstapError::Cut { path: self.path.clone(), payloads: self.payloads })
    }

    /// Payloads that were no events: a server's own questions, other types, messages that can't be read.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next event of what was read.
    fn held(&mut self) -> Result<Option<Result<Event, Skipped>>, DnstapError> {
        loop {
            let item = self.frames.next().map_err(|source| {
                let payloads = self.payloads;
                DnstapError::Broken { path: self.path.clone(), payloads, source }
            })?;
            match item {
                None => return Ok(None),
                Some(Item::Payload(payload)) => {
                    self.payloads += 1;
                    return Ok(Some(Event::read(payload)));
                }
                // Some writers keep the handshake in the file; nobody waits for what it asks for.
                Some(Item::Reply(_) | Item::End) => {}
            }
        }
    }
}

impl std::fmt::Debug for DnstapFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnstapFile").field("path", &self.path).field("payloads", &self.payloads).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::{super::frames::tests::stream, *};

    fn events(bytes: &[u8]) -> (usize, u64, Option<DnstapError>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut reader = DnstapFile::open(file.path()).unwrap();
        let mut count = 0;
        loop {
            match reader.next_event() {
                Ok(Some(_)) => count += 1,
                Ok(None) => return (count, reader.skipped(), None),
                Err(error) => return (count, reader.skipped(), Some(error)),
            }
        }
    }

    #[test]
    fn files_end_as_they_may_and_may_not() {
        let file = stream(&[b"no event", b"none either"]);
        assert!(matches!(events(&file), (0, 2, None)));
        assert!(matches!(events(&file[..file.len() - 13]), (0, 1, Some(DnstapError::Cut { payloads: 1, .. }))));
        assert!(matches!(events(b""), (0, 0, Some(DnstapError::Cut { payloads: 0, .. }))));
        let broken = events(b"#separator \\x09\n").2.unwrap();
        assert!(broken.to_string().contains("not a stream of dnstap frames"), "{broken}");
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&file).unwrap();
        assert!(matches!(events(&packed.finish().unwrap()), (0, 2, None)));
    }
}
