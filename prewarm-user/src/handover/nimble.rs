//! Being scheduled soon: for threads that programs wait for, and that only ever run for microseconds.

/// The shortest slice that the kernel knows, in nanoseconds.
const SLICE: u64 = 100_000;

/// Tells the scheduler that this thread runs for a short time whenever it runs, so that it comes to run soon (EEVDF,
/// Linux 6.12). It takes no more time than its share and needs no privilege. Elsewhere it changes nothing; nor for a
/// thread that has a real-time class already.
pub(super) fn nimble() {
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    #[expect(unsafe_code, reason = "a C structure of integers")]
    // SAFETY: zero is a valid value of each field.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    #[expect(unsafe_code, reason = "sched_getattr(2) has no wrapper")]
    // SAFETY: the kernel writes at most `size` bytes at the pointer, and 0 is the calling thread.
    let known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if known != 0 || attributes.sched_policy != libc::SCHED_OTHER.cast_unsigned() {
        return;
    }
    attributes.size = size;
    attributes.sched_runtime = SLICE;
    #[expect(unsafe_code, reason = "sched_setattr(2) has no wrapper")]
    // SAFETY: the kernel reads `size` bytes at the pointer, and 0 is the calling thread.
    let _slower_without = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_class_stays_as_it_was() {
        let policy = || {
            #[expect(unsafe_code, reason = "sched_getscheduler(2) has no wrapper")]
            // SAFETY: takes a number; 0 is the calling thread.
            unsafe {
                libc::sched_getscheduler(0)
            }
        };
        let before = policy();
        super::nimble();
        assert_eq!(policy(), before);
    }
}
