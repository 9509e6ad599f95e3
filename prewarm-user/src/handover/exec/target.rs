//! The program that waits in `connect()`, as its supervisor can see it: memory and descriptors.
//!
//! Comes in: a thread's number and what it passed. Goes out: the address, the socket, who else holds it. Never here:
//! a change to the program.

use std::{
    cell::OnceCell,
    collections::VecDeque,
    fs::File,
    io::{self, IoSliceMut, Read},
    net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    rc::Rc,
};

use nix::{
    fcntl::readlinkat,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::{Pid, Whence, lseek},
};

use super::tally::Tally;

/// `PIDFD_THREAD` (Linux 6.9): a handle on one thread, with the descriptors of that thread.
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;

/// Reads the address that was passed to `connect()`.
pub(super) fn read_address(thread: i32, at: u64, length: u64) -> Result<SocketAddr, Tally> {
    let mut bytes = [0; 28];
    let length = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
    let base = usize::try_from(at).map_err(|_beyond| Tally::Address)?;
    let read = process_vm_readv(
        Pid::from_raw(thread),
        &mut [IoSliceMut::new(&mut bytes[..length])],
        &[RemoteIoVec { base, len: length }],
    );
    match read {
        Ok(read) if read == length => parse_address(&bytes[..length]).ok_or(Tally::Address),
        _ => Err(Tally::Access),
    }
}

/// An address that a lease may stand for: a port, no flow label, no scope, not v4 in v6 clothes.
fn parse_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
    let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    let address = match family {
        libc::AF_INET => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            SocketAddr::V4(SocketAddrV4::new(ip.into(), port))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let plain = bytes.get(4..8)? == [0; 4] && bytes.get(24..28)? == [0; 4];
            let ip = Ipv6Addr::from(ip);
            (plain && ip.to_ipv4_mapped().is_none()).then_some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, 0)))?
        }
        _ => return None,
    };
    (port != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()).then_some(address)
}

/// Threads whose handles are kept, because they will connect again.
const KEPT: usize = 16;

/// The threads that connected last.
#[derive(Debug, Default)]
pub(super) struct Targets(VecDeque<Rc<Target>>);

impl Targets {
    /// A handle on this thread, and its socket. A handle that was kept stands for the thread it was opened for, never
    /// for another that got its number later.
    pub(super) fn find(&mut self, thread: i32, fd: RawFd) -> io::Result<(Rc<Target>, OwnedFd)> {
        if let Some(index) = self.0.iter().position(|target| target.thread == thread) {
            match self.0[index].socket(fd) {
                Ok(socket) => return Ok((Rc::clone(&self.0[index]), socket)),
                // The thread has ended, and this is another.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => drop(self.0.remove(index)),
                Err(error) => return Err(error),
            }
        }
        let target = Rc::new(Target::open(thread)?);
        let socket = target.socket(fd)?;
        self.0.truncate(KEPT - 1);
        self.0.push_front(Rc::clone(&target));
        Ok((target, socket))
    }
}

/// A handle on the waiting thread.
#[derive(Debug)]
pub(super) struct Target {
    thread: i32,
    handle: OwnedFd,
    /// Its folder of descriptors, once it was looked into.
    folder: OnceCell<OwnedFd>,
}

impl Target {
    /// Opens a handle.
    pub(super) fn open(thread: i32) -> io::Result<Self> {
        let handle = match pidfd_open(thread, PIDFD_THREAD) {
            // Before 6.9 only a process has a handle, and its number is that of its first thread.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => pidfd_open(process_of(thread)?, 0)?,
            other => other?,
        };
        Ok(Self { thread, handle, folder: OnceCell::new() })
    }

    /// The program's socket, under a second descriptor here.
    pub(super) fn socket(&self, fd: RawFd) -> io::Result<OwnedFd> {
        #[expect(unsafe_code, reason = "pidfd_getfd(2) has no wrapper")]
        // SAFETY: takes three numbers and touches no memory of ours.
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.handle.as_raw_fd(), fd, 0) };
        own(copy)
    }

    /// Whether the descriptor still leads to that socket.
    pub(super) fn still_has(&self, fd: RawFd, socket: BorrowedFd<'_>) -> bool {
        const KCMP_FILE: libc::c_int = 0;
        let own = std::process::id();
        #[expect(unsafe_code, reason = "kcmp(2) has no wrapper")]
        // SAFETY: takes numbers and touches no memory of ours.
        let compared = unsafe { libc::syscall(libc::SYS_kcmp, self.thread, own, KCMP_FILE, fd, socket.as_raw_fd()) };
        // A kernel may be built without it.
        if compared >= 0 {
            return compared == 0;
        }
        let inode = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).map(|status| (status.st_dev, status.st_ino)).ok();
        self.socket(fd).is_ok_and(|now| inode(now.as_fd()) == inode(socket))
    }

    /// Whether the program would close the descriptor on exec.
    pub(super) fn closes_on_exec(&self, fd: RawFd) -> io::Result<bool> {
        // The flags stand in the second line: one read is enough.
        let mut text = [0; 128];
        let length = File::open(format!("/proc/{}/fdinfo/{fd}", self.thread))?.read(&mut text)?;
        let text = str::from_utf8(&text[..length]).map_err(io::Error::other)?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).ok_or(io::ErrorKind::InvalidData)?;
        let flags = i32::from_str_radix(flags.trim(), 8).map_err(io::Error::other)?;
        Ok(flags & libc::O_CLOEXEC != 0)
    }

    /// Whether the descriptor is the only way by which the program knows the socket: a second descriptor or an epoll
    /// set would keep the old one, and the program would wait for it in vain.
    pub(super) fn knows_once(&self, fd: RawFd, socket: BorrowedFd<'_>) -> Result<(), Tally> {
        let inode = nix::sys::stat::fstat(socket).map_err(|_gone| Tally::Access)?.st_ino;
        let (link, watched) = (format!("socket:[{inode}]"), format!(" ino:{inode:x} "));
        let folder = self.folder().map_err(|_gone| Tally::Access)?;
        list(folder, |number| {
            if number == fd {
                return Ok(());
            }
            // One that another thread has closed in the meantime is no obstacle.
            let Ok(path) = readlinkat(folder, number.to_string().as_str()) else { return Ok(()) };
            self.is_other(number, path.as_encoded_bytes(), &link, &watched)
        })
    }

    /// Refuses a descriptor that leads to the socket in another way.
    fn is_other(&self, number: RawFd, path: &[u8], link: &str, watched: &str) -> Result<(), Tally> {
        if path == link.as_bytes() {
            return Err(Tally::Duplicate);
        }
        if path == b"anon_inode:[eventpoll]" {
            let set = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", self.thread));
            if set.map_err(|_gone| Tally::Access)?.contains(watched) {
                return Err(Tally::Epoll);
            }
        }
        Ok(())
    }

    fn folder(&self) -> io::Result<&OwnedFd> {
        if self.folder.get().is_none() {
            let folder = File::open(format!("/proc/{}/fd", self.thread))?;
            drop(self.folder.set(folder.into()));
        }
        self.folder.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Shows all descriptors in a folder of them. The folder stays open from one look to the next, which no reader of
/// folders in a library allows.
fn list(folder: &OwnedFd, mut show: impl FnMut(RawFd) -> Result<(), Tally>) -> Result<(), Tally> {
    // `struct linux_dirent64`: inode and offset of 8 bytes, length of 2, type of 1, name.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    lseek(folder, 0, Whence::SeekSet).map_err(|_gone| Tally::Access)?;
    let mut bytes = [0_u8; 4096];
    loop {
        #[expect(unsafe_code, reason = "getdents64(2) has no wrapper")]
        // SAFETY: the kernel writes at most as many bytes as the array has.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, folder.as_raw_fd(), bytes.as_mut_ptr(), bytes.len()) };
        let read = usize::try_from(read).map_err(|_gone| Tally::Access)?;
        if read == 0 {
            return Ok(());
        }
        let mut rest = &bytes[..read];
        while let (Some(&length), Some(entry)) = (rest.get(LENGTH..).and_then(<[u8]>::first_chunk), rest.get(NAME..)) {
            let name = entry.split(|&byte| byte == 0).next().unwrap_or_default();
            // The folder itself and its parent have no numbers.
            if let Some(number) = str::from_utf8(name).ok().and_then(|name| name.parse().ok()) {
                show(number)?;
            }
            rest = rest.get(usize::from(u16::from_ne_bytes(length))..).unwrap_or_default();
        }
    }
}

/// A handle on a process (or a thread), which becomes readable when it ends.
pub(super) fn pidfd_open(number: i32, flags: libc::c_uint) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "pidfd_open(2) has no wrapper")]
    // SAFETY: takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, number, flags) };
    own(fd)
}

fn own(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    #[expect(unsafe_code, reason = "a descriptor that the kernel has just returned")]
    // SAFETY: `fd` was just opened for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The process of a thread, if both have the same descriptors (they need not: `CLONE_FILES`).
fn process_of(thread: i32) -> io::Result<i32> {
    const KCMP_FILES: libc::c_int = 2;
    let text = std::fs::read_to_string(format!("/proc/{thread}/status"))?;
    let process = text.lines().find_map(|line| line.strip_prefix("Tgid:")).ok_or(io::ErrorKind::InvalidData)?;
    let process: i32 = process.trim().parse().map_err(io::Error::other)?;
    if process != thread {
        #[expect(unsafe_code, reason = "kcmp(2) has no wrapper")]
        // SAFETY: takes numbers and touches no memory of ours.
        let same = unsafe { libc::syscall(libc::SYS_kcmp, process, thread, KCMP_FILES, 0, 0) };
        if same != 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(ip: &str, port: u16, flow: u32, scope: u32) -> Vec<u8> {
        let ip: Ipv6Addr = ip.parse().unwrap();
        let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
        bytes.extend(port.to_be_bytes());
        bytes.extend(flow.to_be_bytes());
        bytes.extend(ip.octets());
        bytes.extend(scope.to_ne_bytes());
        bytes
    }

    #[test]
    fn addresses_that_leases_stand_for() {
        let mut v4 = (libc::AF_INET as u16).to_ne_bytes().to_vec();
        v4.extend([0x01, 0xbb, 192, 0, 2, 1]);
        v4.extend([0; 8]);
        assert_eq!(parse_address(&v4), Some("192.0.2.1:443".parse().unwrap()));
        assert_eq!(parse_address(&v6("2001:db8::1", 80, 0, 0)), Some("[2001:db8::1]:80".parse().unwrap()));
    }

    #[test]
    fn addresses_that_are_left_alone() {
        assert_eq!(parse_address(&v6("::ffff:192.0.2.1", 80, 0, 0)), None, "v4-mapped");
        assert_eq!(parse_address(&v6("fe80::1", 80, 0, 2)), None, "scope");
        assert_eq!(parse_address(&v6("2001:db8::1", 80, 7, 0)), None, "flow label");
        assert_eq!(parse_address(&v6("2001:db8::1", 0, 0, 0)), None, "no port");
        assert_eq!(parse_address(&v6("::", 80, 0, 0)), None, "unspecified");
        assert_eq!(parse_address(&v6("2001:db8::1", 80, 0, 0)[..16]), None, "short");
        assert_eq!(parse_address(&[1, 0, b'/', b'x']), None, "unix");
        assert_eq!(parse_address(&[]), None);
    }
}
