//! What kernel and user side of prewarm share: the records that cross the ring, the maps' names and limits, and the
//! parser itself, which runs the same in the kernel programs and on the host.
#![no_std]
