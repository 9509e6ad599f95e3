//! The board: a page that guardian and supervisor share, so that whoever survives knows what the other was doing.
//!
//! Comes in: notifications the kernel writes, counts. Goes out: the same, to the other process. Never here: a
//! decision, or anything that a process killed at any instruction would leave unreadable.

use std::{
    io,
    num::NonZeroUsize,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use super::tally::{TALLIES, Tally};

/// Calls that may be in flight at once; more wait in the kernel for a few milliseconds.
pub(super) const SLOTS: usize = 128;

/// One call that was taken from the kernel and not answered yet: `struct seccomp_notif` as ten words.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Slot([AtomicU64; 10]);

const _: () = assert!(size_of::<Slot>() == size_of::<libc::seccomp_notif>());

impl Slot {
    /// Where the kernel writes.
    pub(super) const fn as_kernel_buffer(&self) -> *mut libc::seccomp_notif {
        (&raw const self.0).cast_mut().cast()
    }

    /// The notification's number; 0 in a slot that is free.
    pub(super) fn id(&self) -> u64 {
        self.0[0].load(Ordering::Acquire)
    }

    /// The thread that waits, as seen from here; 0 when it lives in a process namespace that we can't see.
    pub(super) fn thread(&self) -> i32 {
        (self.0[1].load(Ordering::Relaxed) & 0xffff_ffff) as i32
    }

    /// An argument of the call.
    pub(super) fn argument(&self, index: usize) -> u64 {
        self.0[4 + index].load(Ordering::Relaxed)
    }

    /// Frees the slot; the number goes last and comes back first.
    pub(super) fn clear(&self) {
        for word in self.0.iter().rev() {
            word.store(0, Ordering::Release);
        }
    }
}

/// What is shared.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Board {
    /// Calls in the supervisor's hands.
    pub(super) slots: [Slot; SLOTS],
    /// The call in the guardian's hands.
    pub(super) guardian: Slot,
    counts: [AtomicU64; TALLIES],
}

impl Board {
    /// A zeroed board that all processes forked from here on share, and that lives as long as they do.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn create() -> io::Result<&'static Self> {
        let size = NonZeroUsize::new(size_of::<Self>()).ok_or(io::ErrorKind::InvalidInput)?;
        #[expect(unsafe_code, reason = "memory shared across fork")]
        // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing.
        let page =
            unsafe { mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED) }?;
        #[expect(unsafe_code, reason = "memory shared across fork")]
        // SAFETY: the mapping is page-aligned, large enough, never unmapped, and zero is a valid value of every atomic.
        Ok(unsafe { page.cast::<Self>().as_ref() })
    }

    /// Counts.
    pub(super) fn count(&self, tally: Tally) {
        self.counts[tally as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was counted.
    pub(super) fn counted(&self, tally: Tally) -> u64 {
        self.counts[tally as usize].load(Ordering::Relaxed)
    }

    /// The calls that somebody took from the kernel and did not answer.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().chain([&self.guardian]).filter(|slot| slot.id() != 0)
    }
}
