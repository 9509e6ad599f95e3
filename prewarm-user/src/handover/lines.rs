//! The daemon's end of the control socket: lines, and the descriptors that travel beside them.
//!
//! Comes in: a stream. Goes out: lines in, lines out, descriptors either way. Never here: what a line means.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use tokio::{io::Interest, net::UnixStream};

/// A line longer than this ends the connection: nobody who speaks the protocol sends one.
const LONGEST: usize = 64 * 1024;
/// Descriptors that may wait for the line that claims them; more are closed.
const MOST_FDS: usize = 16;

/// A stream of lines.
#[derive(Debug)]
pub struct Lines {
    stream: UnixStream,
    inbox: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Lines {
    /// Lines over a stream.
    #[must_use]
    pub const fn new(stream: UnixStream) -> Self {
        Self { stream, inbox: Vec::new(), fds: VecDeque::new() }
    }

    /// The stream, for its credentials.
    #[must_use]
    pub const fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The next line without its end, or `None` when there will be no more. Safe to drop while it waits.
    ///
    /// # Errors
    /// When the stream fails or a line is too long.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.inbox.iter().position(|&byte| byte == b'\n') {
                let rest = self.inbox.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.inbox, rest);
                line.pop();
                return Ok(Some(line));
            }
            if self.inbox.len() > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let (bytes, fds) = self.stream.async_io(Interest::READABLE, || receive(self.stream.as_raw_fd())).await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            self.inbox.extend(bytes);
            self.fds.extend(fds);
            self.fds.truncate(MOST_FDS);
        }
    }

    /// The oldest descriptor that no line has claimed.
    pub fn claim(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    /// Sends a line, and a descriptor beside its first byte.
    ///
    /// # Errors
    /// When the other end has gone; the descriptor may or may not have arrived then.
    pub async fn send(&self, line: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut line = line.to_vec();
        line.push(b'\n');
        let mut rest = &line[..];
        let mut fd = fd;
        while !rest.is_empty() {
            let sent = self.stream.async_io(Interest::WRITABLE, || send(self.stream.as_raw_fd(), rest, fd)).await?;
            rest = &rest[sent..];
            fd = None;
        }
        Ok(())
    }
}

fn receive(stream: RawFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 4096];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut rights = nix::cmsg_space!([RawFd; MOST_FDS]);
    let message = recvmsg::<UnixAddr>(stream, &mut parts, Some(&mut rights), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            fds.extend(received.into_iter().map(super::owned));
        }
    }
    let length = message.bytes;
    bytes.truncate(length);
    Ok((bytes, fds))
}

fn send(stream: RawFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[] } else { &rights[..] };
    Ok(sendmsg::<UnixAddr>(stream, &[IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)?)
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::AsFd};

    use super::*;

    #[tokio::test]
    async fn lines_and_descriptors_go_both_ways() {
        let (one, two) = UnixStream::pair().unwrap();
        let (one, mut two) = (Lines::new(one), Lines::new(two));
        let (mut read, write) = std::io::pipe().unwrap();
        one.send(b"plain", None).await.unwrap();
        one.send(b"with", Some(write.as_fd())).await.unwrap();
        one.send(b"after", None).await.unwrap();
        drop((one, write));
        assert_eq!(two.next().await.unwrap().unwrap(), b"plain");
        assert_eq!(two.next().await.unwrap().unwrap(), b"with");
        let mut pipe = std::fs::File::from(two.claim().unwrap());
        assert!(two.claim().is_none());
        assert_eq!(two.next().await.unwrap().unwrap(), b"after");
        assert_eq!(two.next().await.unwrap(), None);
        io::Write::write_all(&mut pipe, b"x").unwrap();
        drop(pipe);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[tokio::test]
    async fn endless_lines_end() {
        let (one, two) = UnixStream::pair().unwrap();
        let _fills = tokio::spawn(async move { Lines::new(one).send(&vec![b'x'; 2 * LONGEST], None).await });
        assert_eq!(Lines::new(two).next().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
