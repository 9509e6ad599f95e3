//! Proof that a connection is alive and silent.
//!
//! Comes in: a connection. Goes out: alive, or what it died of. Never here: a byte taken from it or sent over it.

use std::{
    io::ErrorKind,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::sys::socket::{MsgFlags, recv};

use super::{ledger::Death, sockopt};

/// Keepalive probes without an answer after which a connection counts as dead.
const UNANSWERED: u8 = 2;

/// Proves that a connection can be handed out. Where the server speaks first, bytes are what a program expects; bytes
/// with a close behind them are never handed out (Node writes a 408 before it closes an idle connection).
pub(crate) fn prove(socket: BorrowedFd<'_>, speaks_first: bool) -> Result<(), Death> {
    let info = sockopt::tcp_info(socket).map_err(|_no_tcp| Death::Reset)?;
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let peeked = recv(socket.as_raw_fd(), &mut [0], flags).map_err(|error| std::io::Error::from(error).kind());
    match peeked {
        Err(ErrorKind::WouldBlock) => {}
        Ok(0) => return Err(Death::Closed),
        Ok(_) if info.state != sockopt::TCP_ESTABLISHED => return Err(Death::Closed),
        Ok(_) if speaks_first => {}
        Ok(_) => return Err(Death::Spoke),
        Err(_) => return Err(Death::Reset),
    }
    match info {
        sockopt::TcpInfo { state, .. } if state != sockopt::TCP_ESTABLISHED => Err(Death::Closed),
        sockopt::TcpInfo { probes, .. } if probes >= UNANSWERED => Err(Death::Unanswered),
        _ => Ok(()),
    }
}
