//! The program that watches the host's connections, on the root of the cgroups.
//!
//! Comes in: the folder where the cgroups are mounted, sockets that the daemon is about to connect. Goes out: a link that
//! a descriptor holds, so that it ends with the daemon. Never here: what the records say.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::Mutex,
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::{CgroupAttachMode, SockOps, sock_ops::SockOpsLink},
};
use prewarm_ebpf::abi::SOCKOPS;

use super::{KernelError, cgroup::cgroup2_mount, programs::verify};

/// What an entry of the map of dialled sockets takes in the kernel: a key, a value, and its places in two lists.
pub(super) const ENTRY_BYTES: u64 = 80;

/// Tells the kernel which sockets are the daemon's own, so that they are no program's accesses.
pub struct Dialled(Mutex<HashMap<MapData, u64, u64>>);

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialled(…)")
    }
}

impl Dialled {
    pub(super) const fn new(map: HashMap<MapData, u64, u64>) -> Self {
        Self(Mutex::new(map))
    }

    /// Says that the daemon is about to connect this socket. One that can't be told of is taken for a program's, which
    /// is wrong once and harms nobody.
    pub fn announce(&self, socket: BorrowedFd<'_>) {
        let told = cookie(socket).map_err(KernelError::system("SO_COOKIE")).and_then(|cookie| {
            let mut map = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            map.insert(cookie, 1, 0).map_err(|source| KernelError::Map { map: prewarm_ebpf::abi::DIALLED, source })
        });
        if let Err(error) = told {
            tracing::debug!(%error, "a dial of our own was not announced");
        }
    }
}

/// The number of a socket, the same that the programs see.
///
/// # Errors
/// When it is no socket.
#[expect(unsafe_code, reason = "getsockopt takes a raw buffer")]
pub fn cookie(socket: BorrowedFd<'_>) -> std::io::Result<u64> {
    let mut value = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(8);
    // SAFETY: the value is writable for `length` bytes and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(value) } else { Err(std::io::Error::last_os_error()) }
}

/// Where cgroup v2 is mounted, also beside v1 (the hybrid hierarchy).
#[must_use]
pub fn cgroup_mount() -> Option<PathBuf> {
    cgroup2_mount(&std::fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

/// Loads the program and attaches it. Links stand beside whatever others attached.
pub(super) fn attach(bpf: &mut Ebpf, cgroup: &Path) -> Result<SockOpsLink, KernelError> {
    let folder = File::open(cgroup).map_err(KernelError::system("open the root of the cgroups"))?;
    verify(bpf, SOCKOPS)?;
    let error = |source| KernelError::Attach {
        program: SOCKOPS,
        interface: cgroup.display().to_string(),
        source: Box::new(source),
    };
    let program: &mut SockOps =
        bpf.program_mut(SOCKOPS).ok_or(KernelError::NoMap(SOCKOPS))?.try_into().map_err(error)?;
    // A link allows others of itself, and before 6.13 refuses the flag that says so.
    let id = program.attach(folder.as_fd(), CgroupAttachMode::Single).map_err(error)?;
    program.take_link(id).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_numbers_of_their_own() {
        let [one, other] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        assert_ne!(cookie(one.as_fd()).unwrap(), cookie(other.as_fd()).unwrap());
        assert_eq!(cookie(one.as_fd()).unwrap(), cookie(one.try_clone().unwrap().as_fd()).unwrap());
        assert!(cookie(File::open("/dev/null").unwrap().as_fd()).is_err());
    }
}
