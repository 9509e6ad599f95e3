//! Socket options that no crate names, read and written as the bytes the kernel keeps.
//!
//! Comes in: a descriptor, a level, a name. Goes out: bytes or an integer. Never here: what an option means.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// `SO_NETNS_COOKIE` (Linux 5.14): the number of the network namespace a socket lives in.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Reads an option into `value` and says how many bytes the kernel wrote.
pub(crate) fn read(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(value.len()).unwrap_or(libc::socklen_t::MAX);
    #[expect(unsafe_code, reason = "getsockopt takes a raw buffer")]
    // SAFETY: `value` is writable for `length` bytes and the kernel writes no more than `length` says.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if result == 0 { Ok(length as usize) } else { Err(io::Error::last_os_error()) }
}

/// Writes an option.
pub(crate) fn write(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).unwrap_or(libc::socklen_t::MAX);
    #[expect(unsafe_code, reason = "setsockopt takes a raw buffer")]
    // SAFETY: `value` is readable for `length` bytes and the kernel copies it before it returns.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An integer option.
pub(crate) fn int(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<i32> {
    let mut value = [0; 4];
    read(fd, level, name, &mut value)?;
    Ok(i32::from_ne_bytes(value))
}

/// The network namespace of a socket, as the number two sockets of one namespace share.
///
/// # Errors
/// When the descriptor is no socket.
pub fn netns_cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut value = [0; 8];
    read(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut value)?;
    Ok(u64::from_ne_bytes(value))
}

/// The states of a TCP connection that matter here (`include/net/tcp_states.h`).
pub(crate) const TCP_ESTABLISHED: u8 = 1;
/// Waiting for the answer to the first segment.
pub(crate) const TCP_SYN_SENT: u8 = 2;
/// Neither connected nor listening.
pub(crate) const TCP_CLOSE: u8 = 7;

/// What `TCP_INFO` says about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpInfo {
    /// The state's number.
    pub(crate) state: u8,
    /// Keepalive or window probes that were not answered yet.
    pub(crate) probes: u8,
    /// The smoothed round trip in microseconds.
    pub(crate) rtt_us: u32,
}

/// Reads `TCP_INFO`.
pub(crate) fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    // Offsets of `struct tcp_info` (uapi/linux/tcp.h), which only ever grows at its end.
    const STATE: usize = 0;
    const PROBES: usize = 3;
    const RTT: usize = 68;
    let mut value = [0; 72];
    read(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut value)?;
    let rtt = [value[RTT], value[RTT + 1], value[RTT + 2], value[RTT + 3]];
    Ok(TcpInfo { state: value[STATE], probes: value[PROBES], rtt_us: u32::from_ne_bytes(rtt) })
}
