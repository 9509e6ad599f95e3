//! Giving a lease to a program.
//!
//! Comes in: a program that is about to connect. Goes out: a connection that is open already, in the place of the one
//! the program would have waited for. Never here: a decision about what to open, or a look into a
//! program's traffic.
//!
//! `exec` supervises a program that we start, and gets leases through the port in `source`; `client` is that port on the
//! daemon's control socket, `protocol` what is said there, `lines` how, `serve` the daemon's end of it and `peer` who is
//! at the other. The other ways out carry the program's bytes (`relay`): `redirect` and `tproxy` get connections that the
//! kernel programs sent here, with `heartbeat` so that those know that the daemon lives; `socks` and `connect` get their
//! clients connections by `reach`. `gate` lets clients in, `way` is what a way out counts, `reports` where all of that is
//! read, `witness` who hears of connections.

pub mod client;
pub(crate) mod clock;
pub mod connect;
pub mod exec;
pub(crate) mod fresh;
pub mod gate;
pub mod heartbeat;
pub mod lines;
mod nimble;
pub mod peer;
pub mod protocol;
pub mod reach;
pub mod redirect;
pub mod relay;
mod reports;
pub mod serve;
pub mod socks;
pub mod source;
pub mod tproxy;
mod way;
mod witness;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nimble::nimble;
pub use reports::{Reports, WAYS};
pub use way::{Way, WayCounters};
pub use witness::Witness;

/// Takes ownership of a descriptor that came out of a control message.
fn owned(fd: RawFd) -> OwnedFd {
    #[expect(unsafe_code, reason = "nix hands received descriptors out as numbers")]
    // SAFETY: the kernel has just installed it in this process and the message it came with is read once.
    unsafe {
        OwnedFd::from_raw_fd(fd)
    }
}
