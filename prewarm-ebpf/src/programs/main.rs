//! The kernel programs: one file each, on the parser of the library.
//!
//! Comes in: frames, and calls of `connect()`. Goes out: records in the ring, counters, and for a call that has claimed
//! a lease the daemon's address, and for a question whose answer user space has laid ready that answer. Never here: any
//! other verdict than "pass", a map entry that a packet alone could add without bound, or a wake-up for each record.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    unsafe_code,
    reason = "a kernel program reaches packets, maps and helpers by raw pointers; the verifier proves every access again"
)]

mod answer;
mod answer_write;
mod bench;
mod connect;
mod count;
mod egress;
mod emit;
mod frame;
mod getaddrinfo;
mod heartbeat;
mod ingress;
mod maps;
mod names;
mod pass;
mod sense;
mod sockops;
mod tproxy;
mod vouch;
mod wanted;

/// Programs never panic: a check that could is refused by the verifier as an endless loop.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence that the kernel's helpers ask for.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
