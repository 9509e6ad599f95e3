//! Proof that a connection is alive and silent.
//!
//! Comes in: a connection. Goes out: alive, or what it died of. Never here: a byte taken from it or sent over it.

use std::{
    io::ErrorKind,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::sys::socket::{MsgFlags, recv};

use super::{
    ledger::{Death, Heard},
    sockopt,
};

/// Keepalive probes without an answer after which a connection counts as dead.
const UNANSWERED: u8 = 2;

/// Proves that a connection is alive, and says whether anything stands in it. Bytes with a close behind them are for
/// nobody (Node writes a 408 before it closes an idle connection).
pub(crate) fn prove(socket: BorrowedFd<'_>) -> Result<Heard, Death> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let peeked = recv(socket.as_raw_fd(), &mut [0], flags).map_err(|error| std::io::Error::from(error).kind());
    let heard = match peeked {
        Err(ErrorKind::WouldBlock) => Heard::Silence,
        Ok(0) => return Err(Death::Closed),
        Ok(_) => Heard::Words,
        Err(_) => return Err(Death::Reset),
    };
    // After the bytes: a close that came in between is seen here.
    match sockopt::tcp_info(socket).map_err(|_no_tcp| Death::Reset)? {
        sockopt::TcpInfo { state, .. } if state != sockopt::TCP_ESTABLISHED => Err(Death::Closed),
        sockopt::TcpInfo { probes, .. } if probes >= UNANSWERED => Err(Death::Unanswered),
        _ => Ok(heard),
    }
}
