//! Counting, in the entry that a program has on this CPU.

use prewarm_ebpf::{Counter, abi::COUNTERS_LENGTH};

use crate::maps::COUNTERS;

/// The counters of one program on this CPU.
#[derive(Clone, Copy)]
pub(crate) struct Counters(*mut [u64; COUNTERS_LENGTH]);

impl Counters {
    #[inline(always)]
    pub(crate) fn of(program: u32) -> Option<Self> {
        COUNTERS.get_ptr_mut(program).map(Self)
    }

    #[inline(always)]
    pub(crate) fn add(self, counter: Counter, amount: u64) {
        // Not by an index: where the compiler doesn't see that it is below the length, a panic is linked in, and the
        // verifier refuses the program.
        // SAFETY: the entry is this CPU's, and a program isn't preempted by itself.
        let cells = unsafe { &mut *self.0 };
        if let Some(cell) = cells.get_mut(counter as usize) {
            *cell = cell.wrapping_add(amount);
        }
    }

    #[inline(always)]
    pub(crate) fn one(self, counter: Counter) {
        self.add(counter, 1);
    }
}
