//! The first moments of a lease in use: is the origin still there?
//!
//! Comes in: both connections. Goes out: whether the origin lives, and what the client has said so far. Never here: a
//! byte of the origin consumed, or a second try that the origin could take for a second request.
//!
//! A close that was under way when the lease was handed out could not be seen. An origin that has closed for good answers
//! what it is sent with a reset and acknowledges none of it, so it has read none of it; only then is the lease called
//! dead. A close from an origin that still listens is followed by an acknowledgement: that is what it has to say, and
//! the client shall hear it.

use std::{io, time::Duration};

use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep},
};

use super::socket::{self, Info};

/// How many bytes of the client are kept for a second try. More are waited with until the first are acknowledged, which
/// takes one round trip; the congestion window would let no more through in that time anyway.
const KEPT: usize = 64 << 10;
/// How often an acknowledgement is looked for, where nothing tells that it came.
const LOOK: Duration = Duration::from_millis(1);
/// How long bytes that nothing asked for wait for the close that follows them, where a server gives up a connection
/// (Node writes a 408 and closes).
const FAREWELL: Duration = Duration::from_millis(5);
/// How long after a close an acknowledgement or a reset may take, beside some round trips.
const VERDICT: Duration = Duration::from_millis(300);

/// What is known of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It has acknowledged or said something; or it will never be known, and what it does is passed on as it is.
    Alive,
    /// It has read nothing of what the client said and never will.
    Dead,
    /// It acknowledged something and reset the connection.
    Reset,
    /// The client reset its connection.
    ClientReset,
}

/// What the client has said before the origin proved alive.
#[derive(Debug, Default)]
pub(super) struct Early {
    kept: Vec<u8>,
    sent: usize,
    closed: bool,
    passed: bool,
}

/// What of that is still to be sent.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) bytes: Vec<u8>,
    /// The client has closed; `passed` when the origin was told.
    pub(super) closed: bool,
    pub(super) passed: bool,
}

impl Early {
    /// A client that has said so much already.
    pub(super) fn new(said: Vec<u8>) -> Self {
        Self { kept: said, ..Self::default() }
    }

    /// All is to be sent once more.
    pub(super) const fn again(&mut self) {
        (self.sent, self.passed) = (0, false);
    }

    pub(super) const fn sent(&self) -> usize {
        self.sent
    }

    pub(super) fn rest(mut self) -> Rest {
        self.kept.drain(..self.sent);
        Rest { bytes: self.kept, closed: self.closed, passed: self.passed }
    }

    const fn is_unsaid(&self) -> bool {
        self.sent == 0 && !self.passed
    }

    /// Takes in what the client says next, if there is room.
    fn hear(&mut self, client: &TcpStream) -> io::Result<()> {
        let held = self.kept.len();
        // Grown by what is there, not by what might be.
        self.kept.reserve(KEPT.saturating_sub(held).min(4 << 10));
        match client.try_read_buf(&mut self.kept) {
            Ok(0) => self.closed = true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Says to the origin what it takes now.
    fn say(&mut self, upstream: &TcpStream) -> io::Result<()> {
        while self.sent < self.kept.len() {
            match upstream.try_write(&self.kept[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if self.closed && !self.passed {
            socket2::SockRef::from(upstream).shutdown(std::net::Shutdown::Write)?;
            self.passed = true;
        }
        Ok(())
    }
}

/// What the origin's connection looks like.
enum Sign {
    /// Nothing.
    Silence,
    /// Time will tell, at the latest in so long.
    Doubt(Duration),
    /// That.
    Clear(Proof),
}

/// Passes on what the client says until the origin has acknowledged any of it or answered, or is known to be dead.
pub(super) async fn prove(
    client: &TcpStream,
    upstream: &TcpStream,
    acked: u64,
    spoke: bool,
    early: &mut Early,
) -> Proof {
    let mut doubt: Option<Instant> = None;
    loop {
        let doubtful = match look(upstream, acked, spoke, early) {
            Sign::Clear(proof) => return proof,
            Sign::Silence => {
                doubt = None;
                false
            }
            Sign::Doubt(at_most) => {
                if doubt.get_or_insert_with(Instant::now).elapsed() >= at_most {
                    return Proof::Alive;
                }
                true
            }
        };
        let full = early.kept.len() >= KEPT;
        let unsaid = early.sent < early.kept.len();
        tokio::select! {
            // What waits there would make it ready at once, again and again.
            _ = upstream.readable(), if !doubtful => {}
            _ = client.readable(), if !doubtful && !full && !early.closed => {
                if early.hear(client).is_err() {
                    return Proof::ClientReset;
                }
                if early.say(upstream).is_err() {
                    return refused(upstream, acked);
                }
            }
            _ = upstream.writable(), if !doubtful && unsaid => {
                if early.say(upstream).is_err() {
                    return refused(upstream, acked);
                }
            }
            _ = client.ready(Interest::ERROR), if early.closed => return Proof::ClientReset,
            () = sleep(LOOK), if doubtful || full => {}
        }
    }
}

/// What the origin's connection says of it. Bytes are looked at first: whatever acknowledged comes with them is then
/// in the numbers.
fn look(upstream: &TcpStream, acked: u64, spoke: bool, early: &Early) -> Sign {
    let peeked = upstream.try_io(Interest::READABLE, || socket::peek(upstream));
    let Ok(info) = Info::read(upstream) else { return Sign::Clear(Proof::Reset) };
    let failed = matches!(&peeked, Err(error) if error.kind() != io::ErrorKind::WouldBlock);
    if info.acked > acked {
        // The error was told only once.
        return Sign::Clear(if failed { Proof::Reset } else { Proof::Alive });
    }
    // A reset behind a close or behind bytes shows in the state alone.
    if failed || info.is_over() {
        return Sign::Clear(Proof::Dead);
    }
    match peeked {
        Err(_) => Sign::Silence,
        Ok(1..) if spoke => Sign::Clear(Proof::Alive),
        Ok(_) if info.has_closed() && early.is_unsaid() => Sign::Clear(Proof::Dead),
        Ok(1..) if early.is_unsaid() => Sign::Doubt(FAREWELL),
        Ok(_) => Sign::Doubt(info.rtt * 3 + VERDICT),
    }
}

/// The connection takes no more bytes.
fn refused(upstream: &TcpStream, acked: u64) -> Proof {
    match Info::read(upstream) {
        Ok(info) if info.acked == acked => Proof::Dead,
        _ => Proof::Reset,
    }
}
