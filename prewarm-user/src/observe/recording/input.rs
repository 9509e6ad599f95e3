//! The bytes of a file: counted as they are read, unpacked, with a look at the beginning.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;

use super::{Format, RecordingError};
use crate::observe::dnstap::CONTENT_TYPE;

/// Bytes looked at to tell the format.
const HEAD: usize = 4096;

/// A file's bytes.
pub(super) struct Input {
    pub(super) path: PathBuf,
    head: Vec<u8>,
    read: Box<dyn BufRead + Send>,
}

/// Counts what is read.
struct Counted {
    file: File,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        self.count.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

impl Input {
    /// Opens a file.
    pub(super) fn open(path: &Path, count: Arc<AtomicU64>) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Self::from_read(path, Box::new(BufReader::with_capacity(1 << 16, Counted { file, count })))
    }

    /// The same of bytes from anywhere.
    pub(super) fn from_read(path: &Path, mut read: Box<dyn BufRead + Send>) -> Result<Self, RecordingError> {
        let failed = |source| Self::failure(path, source);
        if read.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]) {
            read = Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(read)));
        }
        let mut head = vec![0; HEAD];
        let got = crate::observe::capture::fill(&mut read, &mut head).map_err(failed)?;
        head.truncate(got);
        if head.is_empty() {
            return Err(RecordingError::Empty { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), head, read })
    }

    /// What a failed reading means.
    pub(super) fn failure(path: &Path, source: io::Error) -> RecordingError {
        let path = path.to_owned();
        let packed = |what: &str| RecordingError::Broken {
            path: path.clone(),
            place: "compressed data".to_owned(),
            what: what.to_owned(),
            hint: "fetch the file again, or unpack what is good of it: zcat FILE > PART",
        };
        match source.kind() {
            io::ErrorKind::UnexpectedEof => packed("they end early"),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => packed(&source.to_string()),
            _ => RecordingError::Read { path, source },
        }
    }

    /// The format, by the beginning.
    pub(super) fn format(&self) -> Result<Format, RecordingError> {
        seen(&self.head).map_err(|looks| {
            let path = self.path.clone();
            if looks.is_empty() { RecordingError::Empty { path } } else { RecordingError::Format { path, looks } }
        })
    }

    /// All bytes, the beginning included.
    pub(super) fn into_read(self) -> Box<dyn BufRead + Send> {
        Box::new(io::Cursor::new(self.head).chain(self.read))
    }
}

/// The format of what begins so; else what it looks like, nothing for blank.
fn seen(head: &[u8]) -> Result<Format, &'static str> {
    const CAPTURES: [[u8; 4]; 3] = [[0xd4, 0xc3, 0xb2, 0xa1], [0x4d, 0x3c, 0xb2, 0xa1], [0x34, 0xcd, 0xb2, 0xa1]];
    if let Some(&magic) = head.first_chunk::<4>() {
        let mut turned = magic;
        turned.reverse();
        if magic == [0x0a, 0x0d, 0x0d, 0x0a] || CAPTURES.contains(&magic) || CAPTURES.contains(&turned) {
            return Ok(Format::Pcap);
        }
        // A control frame: an escape, its length, its type, and in it what the frames hold.
        if magic == [0; 4] && head.windows(CONTENT_TYPE.len()).any(|window| window == CONTENT_TYPE) {
            return Ok(Format::Dnstap);
        }
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    if head.is_empty() {
        return Err("");
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if head.starts_with(b"#separator") || head.starts_with(b"#fields") {
        return Ok(Format::Zeek);
    }
    if let Some(object) = head.strip_prefix(b"{") {
        // A HAR is one object with a log in it; Zeek writes an object a line, its time first.
        if object.trim_ascii_start().starts_with(b"\"log\"") {
            return Ok(Format::Har);
        }
        let has = |key: &[u8]| line.windows(key.len()).any(|window| window == key);
        if has(b"\"ts\"") && (has(b"\"query\"") || has(b"\"server_name\"") || has(b"\"id.orig_h\"")) {
            return Ok(Format::Zeek);
        }
        return Err("JSON that is neither HAR nor a log of Zeek's");
    }
    let mut fields = line.splitn(3, |byte| *byte == b'\t');
    let (time, client, resource) = (fields.next(), fields.next(), fields.next());
    if client.is_some_and(|client| !client.is_empty())
        && resource.is_some_and(|resource| !resource.is_empty())
        && time.and_then(super::words::time).is_some()
    {
        return Ok(Format::Trace);
    }
    let text = head.iter().all(|byte| *byte >= 0x20 || byte.is_ascii_whitespace());
    Err(if text { "text of another form" } else { "binary data" })
}
