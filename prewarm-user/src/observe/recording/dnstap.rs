//! dnstap frame streams, as DNS servers write them into files.

use std::{collections::VecDeque, io::Read as _, path::PathBuf};

use super::{LeftOut, Reader, Reason, RecordingError, Shows, input::Input, words::Observer};
use crate::{
    kernel::Key,
    model::{Name, Observation, Timestamp},
    observe::{
        dnstap::{Event, Frames, Item, Skipped},
        message::MessageError,
    },
};

/// Bytes read at once.
const PIECE: usize = 1 << 16;

/// A stream being read.
pub(super) struct Dnstap {
    path: PathBuf,
    input: Box<dyn std::io::BufRead + Send>,
    frames: Frames,
    piece: Vec<u8>,
    payloads: u64,
    ended: bool,
    /// Whether questions are written by themselves; otherwise the answers tell of them.
    questions: bool,
    observer: Observer,
    ready: VecDeque<Observation>,
    left_out: LeftOut,
}

impl Dnstap {
    pub(super) fn new(input: Input, key: Key) -> Self {
        Self {
            path: input.path.clone(),
            input: input.into_read(),
            frames: Frames::new(),
            piece: vec![0; PIECE],
            payloads: 0,
            ended: false,
            questions: false,
            observer: Observer::new(key),
            ready: VecDeque::new(),
            left_out: LeftOut::default(),
        }
    }

    fn broken(&self, what: String) -> RecordingError {
        RecordingError::Broken {
            path: self.path.clone(),
            place: format!("behind payload {}", self.payloads),
            what,
            hint: "the server may still be writing it, or it was cut; copy it once more when the server has closed it",
        }
    }

    /// Takes in what was read.
    fn take_in(&mut self) -> Result<(), RecordingError> {
        loop {
            match self.frames.next() {
                Err(error) => return Err(self.broken(error.to_string())),
                Ok(None) => return Ok(()),
                Ok(Some(Item::Payload(payload))) => {
                    self.payloads += 1;
                    let event = Event::read(payload);
                    if let Err(reason) = event.map_err(reason).and_then(|event| self.event(&event)) {
                        self.left_out.add(reason, self.payloads);
                    }
                }
                // Some writers keep the handshake in the file; nobody waits for what it asks for.
                Ok(Some(Item::Reply(_) | Item::End)) => {}
            }
        }
    }

    fn event(&mut self, event: &Event) -> Result<(), Reason> {
        let at = |since: std::time::Duration| Timestamp::from_origin(since);
        // Without a time it has no place in the order.
        let time = event.time().map(at).ok_or(Reason::Broken)?;
        let client = event.client.unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        let identify = |name: &Name| self.observer.id(name);
        if event.message.answer.is_none() {
            self.questions = true;
            self.ready.push_back(event.question(time, client, identify));
            return Ok(());
        }
        if !self.questions {
            let asked = event.asked.map_or(time, at);
            self.ready.push_back(event.question(asked.min(time), client, identify));
        }
        self.ready.extend(event.answer(time, client, identify));
        Ok(())
    }
}

const fn reason(skipped: Skipped) -> Reason {
    match skipped {
        Skipped::Upstream => Reason::Upstream,
        Skipped::Other => Reason::OtherMessage,
        Skipped::Message(MessageError::Class) => Reason::OtherClass,
        Skipped::Garbled | Skipped::Message(_) => Reason::Broken,
    }
}

impl Reader for Dnstap {
    fn next(&mut self) -> Result<Option<Observation>, RecordingError> {
        loop {
            if let Some(observation) = self.ready.pop_front() {
                return Ok(Some(observation));
            }
            if self.ended {
                return Ok(None);
            }
            let got = match self.input.read(&mut self.piece) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                got => got.map_err(|source| Input::failure(&self.path, source))?,
            };
            self.frames.feed(self.piece.get(..got).unwrap_or_default());
            self.take_in()?;
            if got == 0 {
                self.ended = true;
                if !self.frames.is_whole() {
                    // What came before the cut is good.
                    self.left_out.add(Reason::Cut, self.payloads + 1);
                }
            }
        }
    }

    fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    fn shows(&self) -> Shows {
        Shows { answers: true, ttls: true, connections: false }
    }
}
