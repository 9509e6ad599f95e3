//! The seccomp filter: which system calls of the program the supervisor is asked about.
//!
//! Comes in: nothing. Goes out: the listener, after the calling thread got the filter. Never here: what is answered.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;

/// Offsets in `struct seccomp_data`.
const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;
/// The low half of the third argument, the address's length.
const AT_LENGTH: u32 = 32;

/// Lengths under which an internet address is passed: `sockaddr_in`, `sockaddr_in6`, `sockaddr_storage`. A path or a
/// netlink address may share one of them; the supervisor sees that.
const LENGTHS: [u32; 3] = [16, 28, 128];

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn step(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// The program: `connect` of this architecture with a length of an internet address is notified, all else is allowed.
///
/// A call of another ABI (32 bit, x32) fails one of the first two comparisons and goes on untouched.
fn program() -> [libc::sock_filter; 10] {
    [
        step(LOAD, AT_ARCH, 0, 0),
        step(EQUAL, AUDIT_ARCH, 0, 6),
        step(LOAD, AT_NUMBER, 0, 0),
        step(EQUAL, libc::SYS_connect as u32, 0, 4),
        step(LOAD, AT_LENGTH, 0, 0),
        step(EQUAL, LENGTHS[0], 3, 0),
        step(EQUAL, LENGTHS[1], 2, 0),
        step(EQUAL, LENGTHS[2], 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
    ]
}

/// Puts the filter on the calling thread and everything it will start.
///
/// `WAIT_KILLABLE_RECV` (Linux 5.19) is not optional: without it a signal between the replacement of the socket and
/// the answer would restart `connect()` on a connected socket, which then fails with `EISCONN`.
///
/// # Errors
/// `EBUSY` when the thread is under another listener, `EACCES` without the right to install filters, `EINVAL` on a
/// kernel without the flag. Nothing was installed then.
pub(super) fn install() -> io::Result<OwnedFd> {
    let program = program();
    let length = u16::try_from(program.len()).unwrap_or(u16::MAX);
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    #[expect(unsafe_code, reason = "seccomp(2) has no wrapper that returns a listener")]
    // SAFETY: `program` points at the array above, which lives until after the call; the kernel copies it.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    #[expect(unsafe_code, reason = "a descriptor that the kernel has just returned")]
    // SAFETY: `fd` was just opened for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program over a `seccomp_data` as the kernel would.
    fn verdict(arch: u32, number: u32, length: u32) -> u32 {
        let program = program();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                LOAD => {
                    loaded = match step.k {
                        AT_ARCH => arch,
                        AT_NUMBER => number,
                        AT_LENGTH => length,
                        other => panic!("loads offset {other}"),
                    }
                }
                EQUAL => at += usize::from(if loaded == step.k { step.jt } else { step.jf }),
                RETURN => return step.k,
                other => panic!("code {other}"),
            }
        }
    }

    #[test]
    fn notifies_internet_connects_only() {
        let connect = libc::SYS_connect as u32;
        for length in LENGTHS {
            assert_eq!(verdict(AUDIT_ARCH, connect, length), libc::SECCOMP_RET_USER_NOTIF);
        }
        for length in [0, 2, 12, 15, 17, 29, 110] {
            assert_eq!(verdict(AUDIT_ARCH, connect, length), libc::SECCOMP_RET_ALLOW);
        }
        assert_eq!(verdict(AUDIT_ARCH, connect + 1, 16), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(AUDIT_ARCH, connect | 0x4000_0000, 16), libc::SECCOMP_RET_ALLOW, "x32");
        assert_eq!(verdict(0x4000_0003, connect, 16), libc::SECCOMP_RET_ALLOW, "i386");
    }
}
