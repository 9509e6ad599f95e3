//! What a relay asks of and does to a TCP socket beyond reading and writing.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use nix::sys::socket::{MsgFlags, recv};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::lease::sockopt;

/// Whoever vanished without a word is noticed after about this and four more probes.
const KEEPALIVE: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(15);

nix::ioctl_read_bad!(
    /// `SIOCOUTQ`: bytes that were sent and not acknowledged.
    outstanding,
    libc::TIOCOUTQ,
    libc::c_int
);

/// What `TCP_INFO` says about a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    state: u8,
    /// Bytes that the other side has acknowledged (`tcpi_bytes_acked`).
    pub(super) acked: u64,
    /// The smoothed round trip.
    pub(super) rtt: Duration,
}

impl Info {
    pub(super) fn read(stream: &TcpStream) -> io::Result<Self> {
        // Offsets of `struct tcp_info` (uapi/linux/tcp.h), which only ever grows at its end.
        const STATE: usize = 0;
        const RTT: usize = 68;
        const ACKED: usize = 120;
        let mut value = [0; 128];
        sockopt::read(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut value)?;
        let acked = value.last_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        const { assert!(ACKED + 8 == 128) };
        let rtt = [value[RTT], value[RTT + 1], value[RTT + 2], value[RTT + 3]];
        Ok(Self { state: value[STATE], acked, rtt: Duration::from_micros(u32::from_ne_bytes(rtt).into()) })
    }

    /// It was reset, or both sides have closed.
    pub(super) const fn is_over(self) -> bool {
        // TIME_WAIT, CLOSE.
        matches!(self.state, 6 | 7)
    }

    /// The other side has closed its direction.
    pub(super) const fn has_closed(self) -> bool {
        // TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING.
        matches!(self.state, 6..=9 | 11)
    }
}

/// Looks at the first byte that waits, without the runtime's opinion; zero at the end of the stream.
pub(super) fn peek(stream: &TcpStream) -> io::Result<usize> {
    Ok(recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?)
}

/// Options that a relayed connection has. Where one can't be set, the connection is over or does without.
pub(super) fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(PROBE).with_retries(4);
    if let Err(error) = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&probes)) {
        tracing::trace!(%error, "options of a relayed connection");
    }
}

/// Waits until everything that was sent has been acknowledged, or for so long.
pub(super) async fn delivered(stream: &TcpStream, at_most: Duration) {
    let until = Instant::now() + at_most;
    let mut pause = Duration::from_millis(1);
    loop {
        let mut left = 0;
        #[expect(unsafe_code, reason = "an ioctl writes through a pointer")]
        // SAFETY: the descriptor is a socket's and lives as long as `stream`; SIOCOUTQ writes one int.
        let asked = unsafe { outstanding(stream.as_raw_fd(), &raw mut left) };
        let over = Info::read(stream).map_or(true, Info::is_over);
        if asked.is_err() || left == 0 || over || Instant::now() >= until {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Closes a connection with a reset.
pub(super) fn reset(stream: TcpStream) {
    if let Err(error) = SockRef::from(&stream).set_linger(Some(Duration::ZERO)) {
        tracing::trace!(%error, "a connection is closed instead of reset");
    }
}
