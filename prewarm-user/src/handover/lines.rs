//! Lines over a Unix socket, and the descriptors that travel beside them: for both ends, without waiting.
//!
//! Comes in: a stream. Goes out: lines in, lines out, descriptors either way. Never here: what a line means, or a wait:
//! a peer that does not read what it asked for is left, which whoever holds the lines sees as an error.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

/// A line longer than this is no line: nobody who speaks the protocol sends one.
const LONGEST: usize = 64 * 1024;
/// Descriptors that may wait for the line that claims them; more are closed.
const MOST_FDS: usize = 16;
/// What is read at once.
const BLOCK: usize = 4096;

/// A stream of lines.
#[derive(Debug)]
pub struct Lines {
    stream: UnixStream,
    inbox: Vec<u8>,
    /// How much of the inbox was looked at and has no end of a line.
    seen: usize,
    fds: VecDeque<OwnedFd>,
}

/// What reading found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Something, or nothing yet.
    Open,
    /// The other end will say no more.
    End,
}

impl Lines {
    /// Lines over a stream, which need not be non-blocking.
    #[must_use]
    pub const fn new(stream: UnixStream) -> Self {
        Self { stream, inbox: Vec::new(), seen: 0, fds: VecDeque::new() }
    }

    /// The stream and what was read from it but not taken as a line.
    #[must_use]
    pub fn into_parts(self) -> (UnixStream, Vec<u8>) {
        (self.stream, self.inbox)
    }

    /// Puts a line back that was taken last, for whoever gets the parts.
    pub fn put_back(&mut self, line: &[u8]) {
        let rest = std::mem::take(&mut self.inbox);
        self.inbox = [line, b"\n", &rest[..]].concat();
        self.seen = 0;
    }

    /// Reads what has come, once; what is left keeps the stream readable.
    ///
    /// # Errors
    /// When the stream fails, or a line is too long.
    pub fn receive(&mut self) -> io::Result<Received> {
        let mut bytes = [0; BLOCK];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut rights = nix::cmsg_space!([RawFd; MOST_FDS]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<UnixAddr>(self.stream.as_raw_fd(), &mut parts, Some(&mut rights), flags) {
            Ok(message) => message,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(Received::Open),
            Err(error) => return Err(error.into()),
        };
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                self.fds.extend(fds.into_iter().map(super::owned));
            }
        }
        self.fds.truncate(MOST_FDS);
        let length = message.bytes;
        if length == 0 {
            return Ok(Received::End);
        }
        self.inbox.extend_from_slice(&bytes[..length]);
        if self.inbox.len() > LONGEST { Err(io::ErrorKind::InvalidData.into()) } else { Ok(Received::Open) }
    }

    /// The next line without its end, if all of it has come.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        let Some(end) = self.inbox[self.seen..].iter().position(|&byte| byte == b'\n') else {
            self.seen = self.inbox.len();
            return None;
        };
        let rest = self.inbox.split_off(self.seen + end + 1);
        self.seen = 0;
        let mut line = std::mem::replace(&mut self.inbox, rest);
        line.pop();
        Some(line)
    }

    /// The oldest descriptor that no line has claimed.
    pub fn claim(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    /// Sends a line (its end is added), and a descriptor beside its first byte.
    ///
    /// # Errors
    /// When the other end has gone, or has not read for so long that there is no room: the lines are of no use then, and
    /// the descriptor may or may not have arrived.
    pub fn send(&self, mut line: Vec<u8>, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        line.push(b'\n');
        let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<UnixAddr>(self.stream.as_raw_fd(), &[IoSlice::new(&line)], rights, flags, None)?;
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn lines_and_descriptors_go_both_ways() {
        let (one, two) = UnixStream::pair().unwrap();
        let (one, mut two) = (Lines::new(one), Lines::new(two));
        assert_eq!((two.receive().unwrap(), two.next_line()), (Received::Open, None));
        let (mut read, write) = std::io::pipe().unwrap();
        one.send(b"plain".to_vec(), None).unwrap();
        one.send(b"with".to_vec(), Some(write.as_fd())).unwrap();
        one.send(b"after".to_vec(), None).unwrap();
        drop((one, write));
        while two.receive().unwrap() == Received::Open {}
        assert_eq!(two.next_line().unwrap(), b"plain");
        assert_eq!(two.next_line().unwrap(), b"with");
        let mut pipe = std::fs::File::from(two.claim().unwrap());
        assert!(two.claim().is_none());
        two.put_back(b"with");
        assert_eq!(two.next_line().unwrap(), b"with");
        assert_eq!(two.next_line().unwrap(), b"after");
        assert_eq!(two.next_line(), None);
        pipe.write_all(b"x").unwrap();
        drop(pipe);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn lines_come_in_pieces() {
        let (mut one, two) = UnixStream::pair().unwrap();
        let mut two = Lines::new(two);
        for (piece, line) in [("a", None), ("b", None), ("\nc", Some("ab")), ("\n", Some("c")), ("\n", Some(""))] {
            one.write_all(piece.as_bytes()).unwrap();
            two.receive().unwrap();
            assert_eq!(two.next_line().as_deref(), line.map(str::as_bytes), "after {piece:?}");
        }
    }

    #[test]
    fn endless_lines_end() {
        let (mut one, two) = UnixStream::pair().unwrap();
        one.write_all(&vec![b'x'; LONGEST + 1]).unwrap();
        let mut two = Lines::new(two);
        let error = std::iter::from_fn(|| two.receive().err().map_or(Some(None), |error| Some(Some(error))))
            .take(100)
            .flatten()
            .next();
        assert_eq!(error.unwrap().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn who_does_not_read_is_left() {
        let (one, _two) = UnixStream::pair().unwrap();
        let one = Lines::new(one);
        let refused = (0..10_000).find_map(|_| one.send(vec![b'x'; 1000], None).err());
        assert!(refused.is_some());
    }
}
