//! A page that says where there may be leases, so that whoever has none to expect need not ask.
//!
//! Comes in: destinations that leases and dials lead to. Goes out: one count per bucket of destinations, and what a lease
//! there saves, in memory that supervisors of programs read and can't write. Never here: a name, an address, or a "no" that is wrong: a bucket may
//! promise what another destination has, but an empty one has nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, ProtFlags, mmap, munmap},
        stat::fstat,
    },
    unistd::ftruncate,
};

/// Buckets; a power of two. With 256 leases one destination in sixteen shares a bucket with a lease of another.
const BUCKETS: usize = 4096;
const SIZE: usize = size_of::<Buckets>();

/// What is on the page.
#[repr(C)]
#[derive(Debug)]
struct Buckets {
    /// How many leases and dials lead there.
    counts: [AtomicU32; BUCKETS],
    /// What the last lease there saves, in microseconds.
    saves: [AtomicU32; BUCKETS],
}

/// A mapping of the page.
#[derive(Debug)]
struct Page(NonNull<Buckets>);

#[expect(unsafe_code, reason = "a pointer to shared atomics")]
// SAFETY: what is pointed at are atomics, which any thread may use, and the mapping ends only with its only owner.
unsafe impl Send for Page {}
#[expect(unsafe_code, reason = "a pointer to shared atomics")]
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn map(fd: BorrowedFd<'_>, protection: ProtFlags) -> io::Result<Self> {
        let size = NonZeroUsize::new(SIZE).ok_or(io::ErrorKind::InvalidInput)?;
        #[expect(unsafe_code, reason = "mmap")]
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let page = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self(page.cast()))
    }

    fn buckets(&self) -> &Buckets {
        #[expect(unsafe_code, reason = "a pointer to shared atomics")]
        // SAFETY: mapped with this size, page-aligned, and never unmapped before `self` is dropped; the file can't
        // shrink, which `Hints::new` sealed and `HintsView::new` checked.
        unsafe {
            self.0.as_ref()
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "munmap")]
        // SAFETY: this mapping is ours and nobody holds a reference into it any more.
        let _was_mapped = unsafe { munmap(self.0.cast(), SIZE) };
    }
}

/// The writing end, in the daemon.
#[derive(Debug)]
pub struct Hints {
    page: Page,
    file: OwnedFd,
}

impl Hints {
    /// An empty page.
    ///
    /// # Errors
    /// When there is no memory or no descriptor.
    pub(crate) fn new() -> io::Result<Self> {
        let file = memfd_create("prewarm-hints", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        ftruncate(&file, SIZE as i64)?;
        let page = Page::map(file.as_fd(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        // After our own mapping nobody may write, and nobody may pull the page away from under a reader.
        let seals =
            SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self { page, file })
    }

    /// One more, or one less, leads to there.
    pub(crate) fn change(&self, destination: SocketAddr, more: bool) {
        let bucket = &self.page.buckets().counts[bucket(destination)];
        if more {
            bucket.fetch_add(1, Ordering::Release);
        } else {
            bucket.fetch_sub(1, Ordering::Release);
        }
    }

    /// A lease to there saves this much.
    pub(crate) fn saves(&self, destination: SocketAddr, rtt: Duration) {
        let micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        self.page.buckets().saves[bucket(destination)].store(micros, Ordering::Relaxed);
    }

    /// The file behind it, for readers.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The reading end, with whoever asks for leases.
#[derive(Debug)]
pub struct HintsView(Page);

impl HintsView {
    /// Maps a page that came over the control socket.
    ///
    /// # Errors
    /// When it is not such a page, or could still shrink.
    pub fn new(file: BorrowedFd<'_>) -> io::Result<Self> {
        let seals = SealFlag::from_bits_retain(fcntl(file, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || fstat(file)?.st_size < SIZE as i64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self(Page::map(file, ProtFlags::PROT_READ)?))
    }

    /// Whether a lease to there may exist, or be on its way.
    #[must_use]
    pub fn may_have(&self, destination: SocketAddr) -> bool {
        self.0.buckets().counts[bucket(destination)].load(Ordering::Acquire) != 0
    }

    /// What a lease to there would save, as far as is known: how long an answer is worth waiting for.
    #[must_use]
    pub fn saves(&self, destination: SocketAddr) -> Duration {
        Duration::from_micros(self.0.buckets().saves[bucket(destination)].load(Ordering::Relaxed).into())
    }
}

/// FNV-1a over address and port. Both ends compute it, so it has no key; a stranger who finds collisions makes programs
/// ask that need not.
fn bucket(destination: SocketAddr) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    match destination.ip() {
        IpAddr::V4(ip) => mix(&ip.octets()),
        IpAddr::V6(ip) => mix(&ip.octets()),
    }
    mix(&destination.port().to_be_bytes());
    // The high bits are the better mixed ones.
    (hash >> 40) as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_there_is_and_can_not_write() {
        let hints = Hints::new().unwrap();
        let view = HintsView::new(hints.file()).unwrap();
        let (here, there): (SocketAddr, SocketAddr) =
            ("192.0.2.1:443".parse().unwrap(), "[2001:db8::1]:80".parse().unwrap());
        assert!(!view.may_have(here) && !view.may_have(there));
        hints.change(here, true);
        hints.change(here, true);
        assert!(view.may_have(here) && !view.may_have(there));
        hints.saves(here, Duration::from_millis(40));
        assert_eq!((view.saves(here), view.saves(there)), (Duration::from_millis(40), Duration::ZERO));
        hints.change(here, false);
        assert!(view.may_have(here));
        hints.change(here, false);
        assert!(!view.may_have(here));
        assert!(Page::map(hints.file(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).is_err(), "sealed");
        assert!(ftruncate(hints.file(), 0).is_err(), "sealed");
    }

    #[test]
    fn other_files_are_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE as u64).unwrap();
        assert!(HintsView::new(file.as_fd()).is_err());
        let loose = memfd_create("loose", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&loose, SIZE as i64).unwrap();
        assert!(HintsView::new(loose.as_fd()).is_err());
    }

    #[test]
    fn destinations_spread() {
        let used: std::collections::HashSet<_> =
            (0..=255).map(|last| bucket(SocketAddr::new(IpAddr::from([192, 0, 2, last]), 443))).collect();
        assert!(used.len() > 220, "{}", used.len());
    }
}
