//! The seccomp listener: notifications in, answers and descriptors out.
//!
//! Comes in: a slot on the board, an answer. Goes out: the kernel's word on it. Never here: a decision.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::board::Slot;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (Linux 6.6): wake the supervisor on the processor of the waiting program.
const SYNC_WAKE_UP: u64 = 1;

/// The listener of one filter.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

impl Listener {
    /// Takes over a listener.
    pub(super) fn new(fd: OwnedFd) -> Self {
        let listener = Self(fd);
        // The program sleeps until it is answered, so the supervisor may run in its place: two wake-ups across
        // processors less. Kernels before 6.6 refuse, and then it is just slower.
        #[expect(unsafe_code, reason = "no wrapper for seccomp's ioctls")]
        // SAFETY: this request takes its argument by value and touches no memory.
        let _slower_without =
            unsafe { libc::ioctl(listener.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
        listener
    }

    /// Takes the next notification, written by the kernel itself straight into a slot that other processes can read:
    /// there is no moment at which a notification was taken and nobody could know. Blocks when there is none.
    pub(super) fn receive(&self, slot: &Slot) -> io::Result<()> {
        #[expect(unsafe_code, reason = "no wrapper for seccomp's ioctls")]
        // SAFETY: a slot has the size and alignment of `seccomp_notif` and is made of atomics, which may be written
        // from elsewhere at any time; it is zeroed, as the kernel demands.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, slot.as_kernel_buffer()) };
        check(result).map(drop)
    }

    /// Lets the call go on as if nobody had looked.
    ///
    /// The program may change the address between our reading it and the kernel's: that is harmless, because nothing
    /// is permitted or forbidden here. Whatever the kernel reads is what the program could have connected to anyway.
    pub(super) fn go_on(&self, id: u64) -> io::Result<()> {
        self.answer(id, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    /// Makes the call return 0 without running it.
    pub(super) fn succeed(&self, id: u64) -> io::Result<()> {
        self.answer(id, 0)
    }

    /// Whether the call still waits for its answer, so that what was read from the process was read from the right one.
    pub(super) fn waits(&self, id: u64) -> bool {
        #[expect(unsafe_code, reason = "no wrapper for seccomp's ioctls")]
        // SAFETY: the kernel reads eight bytes at the pointer.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) };
        result == 0
    }

    /// Puts `source` in place of descriptor `target` in the process that waits.
    pub(super) fn replace(&self, id: u64, target: RawFd, source: BorrowedFd<'_>, cloexec: bool) -> io::Result<()> {
        let request = libc::seccomp_notif_addfd {
            id,
            flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
            srcfd: source.as_raw_fd() as u32,
            newfd: target as u32,
            newfd_flags: if cloexec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        #[expect(unsafe_code, reason = "no wrapper for seccomp's ioctls")]
        // SAFETY: the kernel reads one `seccomp_notif_addfd` at the pointer.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const request) };
        check(result).map(drop)
    }

    fn answer(&self, id: u64, flags: u32) -> io::Result<()> {
        let mut response = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
        #[expect(unsafe_code, reason = "no wrapper for seccomp's ioctls")]
        // SAFETY: the kernel reads one `seccomp_notif_resp` at the pointer.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
        check(result).map(drop)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
