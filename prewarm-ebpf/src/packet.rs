//! The port between the parser and the bytes of a frame.

/// The highest offset the parser looks at. Offsets are kept below it so that the verifier can see that they are.
pub const LIMIT: usize = 0x7fff;

/// One frame, beginning with its Ethernet header.
pub trait Packet: Copy {
    /// The `N` bytes from `at`, if the frame has them.
    fn window<const N: usize>(&self, at: usize) -> Option<&[u8; N]>;

    /// The bytes from `at` to the frame's end, at most 7 of them, little-endian, zeros behind them; zero when `at`
    /// is no such place.
    fn rest(&self, at: usize) -> u64;

    /// How many bytes the frame has, at most [`LIMIT`].
    fn length(&self) -> usize;

    /// Whether the offset `at` lies behind the offset `end`. Not by a comparison in the kernel: that tells the verifier
    /// something about both, which differs for every pass of a loop and keeps it from seeing that they are alike.
    #[must_use]
    fn beyond(&self, at: usize, end: usize) -> bool {
        at > end
    }

    /// `value`, which must not exceed [`LIMIT`], unchanged. The kernel's reader hides from the verifier where it came
    /// from, so that it follows the code behind once, and not once for every way that leads there.
    #[must_use]
    fn blur(&self, value: usize) -> usize {
        value
    }

    /// `word` unchanged, hidden in the same way.
    #[must_use]
    fn blur_word(&self, word: u64) -> u64 {
        word
    }

    /// `flag` unchanged, hidden in the same way.
    #[must_use]
    fn blur_flag(&self, flag: bool) -> bool {
        flag
    }
}

impl Packet for &[u8] {
    fn window<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        self.get(at..)?.first_chunk()
    }

    fn rest(&self, at: usize) -> u64 {
        let bytes = self.get(at..).unwrap_or_default();
        if bytes.len() > 7 {
            return 0;
        }
        bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
    }

    fn length(&self) -> usize {
        self.len().min(LIMIT)
    }
}

/// The 16-bit number in network order at `at`, which must lie in the window.
#[inline(always)]
#[must_use]
pub fn be16<const N: usize>(window: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([window[at], window[at + 1]])
}

/// The 32-bit number in network order at `at`, which must lie in the window.
#[inline(always)]
#[must_use]
pub fn be32<const N: usize>(window: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([window[at], window[at + 1], window[at + 2], window[at + 3]])
}

/// Eight bytes as a little-endian number.
#[inline(always)]
#[must_use]
pub fn le64(window: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*window)
}
