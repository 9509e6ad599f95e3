//! Capture files, frame by frame: pcap in all its variants and pcapng, compressed with gzip or not.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::read::MultiGzDecoder;

use super::blocks::{self, Blocks};

/// The link type of Ethernet (`LINKTYPE_ETHERNET`).
pub const ETHERNET: u16 = 1;

/// A longer frame is a sign of a broken file; jumbo and offloaded frames stay below.
const LONGEST: u32 = 1 << 20;

/// What is wrong where it is the compression that breaks off.
pub(super) const COMPRESSED: &str = "the compressed data end early";

/// A frame of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its number; the first is 1.
    pub number: u64,
    /// What its first header is (`LINKTYPE_…`).
    pub link_type: u16,
    /// When it was captured, since 1970; zero when the file doesn't say.
    pub time: Duration,
    /// The bytes that were captured.
    pub bytes: &'a [u8],
    /// How many it had on the wire.
    pub length: u32,
}

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file can't be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no capture.
    #[error("{}: neither pcap nor pcapng (hint: `file` tells what it is; editcap and mergecap write pcap)", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The file ends inside a frame, or goes on with something that is none.
    #[error("{}: broken behind frame {frames}: {what}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The frames before that.
        frames: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// A capture being read.
pub struct Capture {
    path: PathBuf,
    input: Box<dyn Read + Send>,
    format: Format,
    buffer: Vec<u8>,
    frames: u64,
}

enum Format {
    Pcap { big_endian: bool, nanoseconds: bool, modified: bool, link_type: u16 },
    Pcapng(Blocks),
}

/// How far reading came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The file ends where it may.
    End,
    /// The file ends where it may not.
    Short,
    /// What was read makes no sense.
    Nonsense(&'static str),
}

/// The parts of a frame, its bytes being in the buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) link_type: u16,
    pub(super) time: Duration,
    pub(super) length: u32,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Capture {
    /// Opens a capture.
    ///
    /// # Errors
    /// When the file can't be read or is no capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Read { path: path.to_owned(), source };
        let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?);
        let mut magic = [0; 4];
        let got = fill(&mut file, &mut magic).map_err(failed)?;
        let mut input: Box<dyn Read + Send> = Box::new(io::Cursor::new(magic[..got].to_vec()).chain(file));
        if magic[..2] == [0x1f, 0x8b] {
            input = Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(input)));
        }
        Self::read(path, input)
    }

    pub(super) fn read(path: &Path, mut input: Box<dyn Read + Send>) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Read { path: path.to_owned(), source };
        let none = || CaptureError::Format { path: path.to_owned() };
        let mut magic = [0; 4];
        if fill(&mut input, &mut magic).map_err(failed)? < 4 {
            return Err(none());
        }
        let format = if magic == blocks::SECTION {
            Format::Pcapng(Blocks::default())
        } else {
            let (big_endian, value) = match u32::from_le_bytes(magic) {
                value @ (0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34) => (false, value),
                _ => (true, u32::from_be_bytes(magic)),
            };
            if !matches!(value, 0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34) {
                return Err(none());
            }
            let mut rest = [0; 20];
            if fill(&mut input, &mut rest).map_err(failed)? < 20 {
                return Err(none());
            }
            Format::Pcap {
                big_endian,
                nanoseconds: value == 0xa1b2_3c4d,
                modified: value == 0xa1b2_cd34,
                // The upper half tells about check sums behind the frame.
                link_type: (number(&rest, 16, big_endian) & 0xffff) as u16,
            }
        };
        Ok(Self { path: path.to_owned(), input, format, buffer: Vec::new(), frames: 0 })
    }

    /// The next frame; `None` after the last.
    ///
    /// # Errors
    /// When the file can't be read, or is broken from here on; what came before is good.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        let parts = match &mut self.format {
            Format::Pcap { big_endian, nanoseconds, modified, link_type } => {
                pcap_frame(&mut self.input, &mut self.buffer, *big_endian, *modified).map(|read| {
                    read.map(|(seconds, fraction, length)| Parts {
                        link_type: *link_type,
                        time: Duration::from_secs(seconds.into())
                            + if *nanoseconds {
                                Duration::from_nanos(fraction.into())
                            } else {
                                Duration::from_micros(fraction.into())
                            },
                        length,
                        start: 0,
                        end: self.buffer.len(),
                    })
                })
            }
            Format::Pcapng(blocks) => blocks.next(&mut self.input, &mut self.buffer),
        };
        let broken = |what| CaptureError::Broken { path: self.path.clone(), frames: self.frames, what };
        match parts {
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => Err(broken(COMPRESSED)),
            Err(source) => Err(CaptureError::Read { path: self.path.clone(), source }),
            Ok(Err(Stop::End)) => Ok(None),
            Ok(Err(Stop::Short)) => Err(broken("the file ends inside a frame")),
            Ok(Err(Stop::Nonsense(what))) => Err(broken(what)),
            Ok(Ok(Parts { link_type, time, length, start, end })) => {
                self.frames += 1;
                let bytes = self.buffer.get(start..end).unwrap_or_default();
                Ok(Some(Frame { number: self.frames, link_type, time, bytes, length }))
            }
        }
    }
}

/// Reads a record of a pcap file: seconds, their fraction, the length on the wire; the bytes go into the buffer.
fn pcap_frame(
    input: &mut dyn Read,
    buffer: &mut Vec<u8>,
    big_endian: bool,
    modified: bool,
) -> io::Result<Result<(u32, u32, u32), Stop>> {
    let mut header = [0; 24];
    let header = if modified { &mut header[..24] } else { &mut header[..16] };
    match fill(input, header)? {
        0 => return Ok(Err(Stop::End)),
        got if got < header.len() => return Ok(Err(Stop::Short)),
        _ => {}
    }
    let captured = number(header, 8, big_endian);
    if captured > LONGEST {
        return Ok(Err(Stop::Nonsense("a frame of more than a megabyte")));
    }
    if !fill_buffer(input, buffer, captured as usize)? {
        return Ok(Err(Stop::Short));
    }
    Ok(Ok((number(header, 0, big_endian), number(header, 4, big_endian), number(header, 12, big_endian))))
}

/// Reads until the target is full or the input ends, and gives how much that was.
pub(super) fn fill(input: &mut dyn Read, target: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < target.len() {
        match input.read(&mut target[got..]) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Reads exactly `length` bytes into the buffer; false when the input ends before.
pub(super) fn fill_buffer(input: &mut dyn Read, buffer: &mut Vec<u8>, length: usize) -> io::Result<bool> {
    buffer.clear();
    buffer.resize(length, 0);
    Ok(fill(input, buffer)? == length)
}

/// The 32-bit number at `at`, zero behind the end.
pub(super) fn number(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let Some(&chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else { return 0 };
    if big_endian { u32::from_be_bytes(chunk) } else { u32::from_le_bytes(chunk) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    type Kept = (u64, u16, Duration, Vec<u8>);

    fn frames(bytes: &[u8]) -> (Vec<Kept>, Option<CaptureError>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut frames = Vec::new();
        let mut capture = match Capture::open(file.path()) {
            Ok(capture) => capture,
            Err(error) => return (frames, Some(error)),
        };
        loop {
            match capture.next_frame() {
                Ok(Some(frame)) => frames.push((frame.number, frame.link_type, frame.time, frame.bytes.to_vec())),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    fn pcap(magic: u32, big_endian: bool, extra: usize) -> Vec<u8> {
        let n = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut bytes = Vec::new();
        for value in [magic, 0, 0, 0, 65535, 1, 10, 500, 3, 60] {
            bytes.extend(n(value));
        }
        bytes.extend(vec![0; extra]);
        bytes.extend(b"abc");
        bytes
    }

    #[test]
    fn every_variant_of_pcap() {
        let micro = Duration::from_secs(10) + Duration::from_micros(500);
        let nano = Duration::from_secs(10) + Duration::from_nanos(500);
        for (magic, extra, time) in [(0xa1b2_c3d4, 0, micro), (0xa1b2_3c4d, 0, nano), (0xa1b2_cd34, 8, micro)] {
            for big_endian in [false, true] {
                let (frames, error) = frames(&pcap(magic, big_endian, extra));
                assert_eq!(frames, [(1, ETHERNET, time, b"abc".to_vec())]);
                assert!(error.is_none());
            }
        }
    }

    #[test]
    fn gzip_is_seen_by_its_magic() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&pcap(0xa1b2_c3d4, false, 0)).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(frames(&gzip).0.len(), 1);
        assert!(matches!(frames(&gzip[..gzip.len() - 12]).1, Some(CaptureError::Broken { .. })));
    }

    #[test]
    fn what_was_there_before_a_break_is_given() {
        let mut bytes = pcap(0xa1b2_c3d4, false, 0);
        bytes.extend(&pcap(0xa1b2_c3d4, false, 0)[24..40]);
        let (frames, error) = frames(&bytes);
        assert_eq!(frames.len(), 1);
        assert!(matches!(error, Some(CaptureError::Broken { frames: 1, .. })));
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [&b""[..], b"ab", b"not a capture", b"\xd4\xc3\xb2\xa1"] {
            assert!(matches!(frames(bytes).1, Some(CaptureError::Format { .. })), "{bytes:?}");
        }
    }
}
