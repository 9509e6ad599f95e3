//! Frame Streams: how dnstap payloads follow each other in a file or on a socket (farsightsec/fstrm, "Frame Streams").
//!
//! Comes in: bytes in pieces of any size. Goes out: payloads, and what has to be said to the writer. Never here: a
//! file, a socket, or a frame that is larger than any event can be.

/// What the payloads are said to be.
pub const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
/// The longest payload: two DNS messages of 64 KiB and all that stands around them.
pub const LONGEST: usize = 1 << 18;
/// The longest control frame (fstrm's own limit).
const LONGEST_CONTROL: usize = 512;

const ACCEPT: u32 = 1;
const START: u32 = 2;
const STOP: u32 = 3;
const READY: u32 = 4;
const FINISH: u32 = 5;
const FIELD_CONTENT_TYPE: u32 = 1;

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It does not begin as one.
    #[error("not a stream of dnstap frames (it must begin with the control frame READY or START)")]
    NoStream,
    /// Its payloads are something else.
    #[error("the stream is not of type protobuf:dnstap.Dnstap")]
    OtherContent,
    /// A frame is longer than an event can be.
    #[error("a frame of {0} bytes, which is more than any DNS event has")]
    TooLong(usize),
    /// A control frame makes no sense, at all or where it stands.
    #[error("a control frame that makes no sense here")]
    Control,
}

/// What the next piece of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A payload.
    Payload(&'a [u8]),
    /// The writer waits for these bytes.
    Reply(&'a [u8]),
    /// The writer has ended the stream.
    End,
}

/// Where reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before everything.
    Fresh,
    /// READY was answered.
    Accepted,
    /// Payloads follow.
    Started,
    /// Nothing follows.
    Ended,
}

/// The reader's side of a stream, unidirectional (START first) or bidirectional (READY first).
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    /// What was given out already.
    read: usize,
    state: State,
    bidirectional: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames {
    /// A stream of which nothing was read.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), read: 0, state: State::Fresh, bidirectional: false }
    }

    /// Takes in what was read. Call [`next`](Self::next) until it gives nothing before more is taken in, so that no
    /// more is held than one frame and what was read at once.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
        // Room that one giant took is given back.
        if self.buffer.len() < LONGEST / 8 && self.buffer.capacity() > LONGEST {
            self.buffer.shrink_to(LONGEST / 4);
        }
    }

    /// The next piece that is there whole.
    ///
    /// # Errors
    /// When the stream is broken; nothing behind that can be read.
    #[expect(clippy::should_implement_trait, reason = "an iterator can't lend")]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, FrameError> {
        loop {
            if self.state == State::Ended {
                return Ok(None);
            }
            let Some(length) = self.number(0) else { return Ok(None) };
            if length > 0 {
                if self.state != State::Started {
                    return Err(FrameError::NoStream);
                }
                if length > LONGEST {
                    return Err(FrameError::TooLong(length));
                }
                let start = self.read + 4;
                if self.buffer.len() < start + length {
                    return Ok(None);
                }
                self.read = start + length;
                return Ok(self.buffer.get(start..start + length).map(Item::Payload));
            }
            let Some(length) = self.number(4) else { return Ok(None) };
            if !(4..=LONGEST_CONTROL).contains(&length) {
                return Err(if self.state == State::Fresh { FrameError::NoStream } else { FrameError::Control });
            }
            let start = self.read + 8;
            if self.buffer.len() < start + length {
                return Ok(None);
            }
            self.read = start + length;
            if let Some(said) = self.control(start, length)? {
                return Ok(Some(said));
            }
        }
    }

    /// Whether the stream ended as it should, or nothing of it is left unread: false when it was cut inside a frame.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.state, State::Ended) || (self.read == self.buffer.len() && matches!(self.state, State::Started))
    }

    fn control(&mut self, start: usize, length: usize) -> Result<Option<Item<'static>>, FrameError> {
        let body = self.buffer.get(start..start + length).unwrap_or_default();
        let kind = number(body, 0).ok_or(FrameError::Control)?;
        match (self.state, kind as u32) {
            (State::Fresh, READY) => {
                check_content(body, false)?;
                (self.state, self.bidirectional) = (State::Accepted, true);
                Ok(Some(Item::Reply(&ACCEPT_FRAME)))
            }
            (State::Fresh | State::Accepted, START) => {
                check_content(body, true)?;
                self.state = State::Started;
                Ok(None)
            }
            (State::Started, STOP) => {
                self.state = State::Ended;
                Ok(Some(if self.bidirectional { Item::Reply(&FINISH_FRAME) } else { Item::End }))
            }
            (State::Fresh, _) => Err(FrameError::NoStream),
            _ => Err(FrameError::Control),
        }
    }

    /// The 32-bit number so far behind what was given out.
    fn number(&self, at: usize) -> Option<usize> {
        number(&self.buffer, self.read + at)
    }
}

/// Whether one of the content types is ours; none at all stands for any.
fn check_content(body: &[u8], only: bool) -> Result<(), FrameError> {
    let mut at = 4;
    let (mut named, mut ours) = (0, false);
    while at < body.len() {
        let kind = number(body, at).ok_or(FrameError::Control)?;
        let length = number(body, at + 4).ok_or(FrameError::Control)?;
        let value = body.get(at + 8..).and_then(|rest| rest.get(..length)).ok_or(FrameError::Control)?;
        if kind as u32 != FIELD_CONTENT_TYPE {
            return Err(FrameError::Control);
        }
        named += 1;
        ours |= value == CONTENT_TYPE;
        at += 8 + length;
    }
    if only && named > 1 {
        return Err(FrameError::Control);
    }
    if named == 0 || ours { Ok(()) } else { Err(FrameError::OtherContent) }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*bytes)).ok()
}

/// ACCEPT of our content type.
const ACCEPT_FRAME: [u8; 20 + CONTENT_TYPE.len()] = {
    let mut frame = [0; 20 + CONTENT_TYPE.len()];
    let mut at = 0;
    while at < CONTENT_TYPE.len() {
        frame[20 + at] = CONTENT_TYPE[at];
        at += 1;
    }
    frame[7] = 12 + CONTENT_TYPE.len() as u8;
    frame[11] = ACCEPT as u8;
    frame[15] = FIELD_CONTENT_TYPE as u8;
    frame[19] = CONTENT_TYPE.len() as u8;
    frame
};
/// FINISH has no fields.
const FINISH_FRAME: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, FINISH as u8];

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::observe::dnstap) fn control(kind: u32, content: &[&[u8]]) -> Vec<u8> {
        let mut body = kind.to_be_bytes().to_vec();
        for content in content {
            body.extend(FIELD_CONTENT_TYPE.to_be_bytes());
            body.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
            body.extend_from_slice(content);
        }
        let mut frame = vec![0; 4];
        frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend(body);
        frame
    }

    pub(in crate::observe::dnstap) fn payload(bytes: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(bytes);
        frame
    }

    /// A unidirectional stream of these payloads.
    pub(in crate::observe::dnstap) fn stream(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = control(START, &[CONTENT_TYPE]);
        for bytes_of in payloads {
            bytes.extend(payload(bytes_of));
        }
        bytes.extend(control(STOP, &[]));
        bytes
    }

    type Pieces = Vec<Vec<u8>>;

    fn all(frames: &mut Frames, bytes: &[u8], piece: usize) -> Result<(Pieces, Pieces), FrameError> {
        let (mut payloads, mut replies) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            frames.feed(piece);
            while let Some(item) = frames.next()? {
                match item {
                    Item::Payload(bytes) => payloads.push(bytes.to_vec()),
                    Item::Reply(bytes) => replies.push(bytes.to_vec()),
                    Item::End => {}
                }
            }
        }
        Ok((payloads, replies))
    }

    #[test]
    fn both_kinds_of_stream_are_read_in_pieces_of_any_size() {
        let file = stream(&[b"one", b"two"]);
        let socket = [control(READY, &[b"other", CONTENT_TYPE]), file.clone()].concat();
        for piece in 1..file.len() {
            let mut frames = Frames::new();
            let (payloads, replies) = all(&mut frames, &file, piece).unwrap();
            assert_eq!((payloads, replies.len()), (vec![b"one".to_vec(), b"two".to_vec()], 0));
            assert!(frames.is_whole());
            let (payloads, replies) = all(&mut Frames::new(), &socket, piece).unwrap();
            assert_eq!(payloads.len(), 2);
            assert_eq!(replies, [control(ACCEPT, &[CONTENT_TYPE]), control(FINISH, &[])]);
        }
    }

    #[test]
    fn what_is_no_stream_is_refused_at_once() {
        let refused = |bytes: &[u8]| all(&mut Frames::new(), bytes, 7).unwrap_err();
        assert_eq!(refused(b"GET / HTTP/1.1\r\n"), FrameError::NoStream);
        assert_eq!(refused(&control(STOP, &[])), FrameError::NoStream);
        assert_eq!(refused(&control(START, &[b"protobuf:other"])), FrameError::OtherContent);
        assert_eq!(refused(&control(READY, &[b"protobuf:other"])), FrameError::OtherContent);
        let start = control(START, &[CONTENT_TYPE]);
        assert_eq!(refused(&[&start[..], &start].concat()), FrameError::Control);
        let giant = [&start[..], &0x1000_0000_u32.to_be_bytes()].concat();
        assert_eq!(refused(&giant), FrameError::TooLong(0x1000_0000));
    }

    #[test]
    fn a_cut_stream_is_not_whole() {
        let file = stream(&[b"one", b"two"]);
        let mut frames = Frames::new();
        let stop = control(STOP, &[]).len();
        assert_eq!(all(&mut frames, &file[..file.len() - stop], 5).unwrap().0.len(), 2);
        assert!(frames.is_whole(), "a writer that was killed between two frames lost none");
        let mut frames = Frames::new();
        assert_eq!(all(&mut frames, &file[..file.len() - stop - 1], 5).unwrap().0.len(), 1);
        assert!(!frames.is_whole());
    }

    #[test]
    fn no_more_is_held_than_a_frame_and_a_piece() {
        let mut frames = Frames::new();
        let big = vec![7; LONGEST];
        let mut bytes = stream(&[&big, &big, &big]);
        bytes.truncate(bytes.len() - 12);
        for piece in bytes.chunks(1 << 14) {
            frames.feed(piece);
            while frames.next().unwrap().is_some() {}
            assert!(frames.buffer.len() <= LONGEST + 4 + (1 << 14));
        }
        // Small ones follow: the room is given back.
        frames.feed(&payload(b"small"));
        while frames.next().unwrap().is_some() {}
        frames.feed(&payload(b"small"));
        assert!(frames.buffer.capacity() < LONGEST);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..2000),
            started in any::<bool>(),
            piece in 1..100_usize,
        ) {
            if started {
                bytes = [control(START, &[CONTENT_TYPE]), bytes].concat();
            }
            let _outcome = all(&mut Frames::new(), &bytes, piece);
        }
    }
}
