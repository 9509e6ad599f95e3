//! Direct access to a frame: the kernel's reader behind the parser's port.

use core::arch::asm;

use prewarm_ebpf::{LIMIT, Packet};

/// Always zero, but the verifier can't know.
#[unsafe(no_mangle)]
static mut ZERO: u64 = 0;

/// A frame in memory that the program may read directly.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    data: usize,
    end: usize,
}

impl Frame {
    /// From `data` to `end`, as the context of the program gives them.
    #[inline(always)]
    pub(crate) const fn new(data: usize, end: usize) -> Self {
        Self { data, end }
    }

    /// The `N` bytes from `at`, to be written, if the frame has them.
    #[inline(always)]
    pub(crate) fn place<const N: usize>(&self, at: usize) -> Option<*mut [u8; N]> {
        let mut start = self.data;
        // SAFETY: an addition, hidden from the compiler as in `window`.
        unsafe { asm!("{start} += {at}", start = inout(reg) start, at = in(reg) at, options(pure, nomem, nostack)) };
        if start + N > self.end { None } else { Some(start as *mut [u8; N]) }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn window<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        let mut start = self.data;
        // SAFETY: an addition. The compiler must not see through it: it has to compare and load through one register,
        // or the verifier doesn't connect the two.
        unsafe { asm!("{start} += {at}", start = inout(reg) start, at = in(reg) at, options(pure, nomem, nostack)) };
        if start + N > self.end {
            return None;
        }
        // SAFETY: packets don't lie at address zero; said so that `None` needs no second comparison.
        unsafe { core::hint::assert_unchecked(start != 0) };
        // SAFETY: the bytes lie before the frame's end, which the verifier proves again.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn rest(&self, at: usize) -> u64 {
        // Fresh copies: what the comparisons say about them must not tell states of the callers' loops apart.
        let length = self.blur(self.length());
        let at = self.blur(at);
        if length < 8 || at >= length || at + 8 <= length {
            return 0;
        }
        let from = self.blur(length - 8);
        match self.window::<8>(from) {
            Some(window) => u64::from_le_bytes(*window) >> (((at - from) * 8) & 63),
            None => 0,
        }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        let length = self.end - self.data;
        if length > LIMIT { LIMIT } else { length }
    }

    #[inline(always)]
    fn beyond(&self, at: usize, end: usize) -> bool {
        let mut room = end;
        // SAFETY: a subtraction, which the compiler would otherwise turn back into a comparison.
        unsafe { asm!("{room} -= {at}", room = inout(reg) room, at = in(reg) at, options(pure, nomem, nostack)) };
        (room as isize) < 0
    }

    #[inline(always)]
    fn blur(&self, value: usize) -> usize {
        self.blur_word(value as u64) as usize & LIMIT
    }

    #[inline(always)]
    fn blur_word(&self, word: u64) -> u64 {
        // SAFETY: nobody writes it.
        let zero = unsafe { (&raw const ZERO).read_volatile() };
        word.wrapping_add(zero)
    }

    #[inline(always)]
    fn blur_flag(&self, flag: bool) -> bool {
        self.blur_word(flag as u64) != 0
    }
}
