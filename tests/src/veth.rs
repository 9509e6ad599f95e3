//! A network of one's own for a test: a namespace with veth pairs, gone with the thread that made it.
//!
//! Comes in: what to do inside. Goes out: its result. Never here: anything that a killed test could leave behind; a
//! namespace without name ends with its last thread, and takes its links along.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
    thread,
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _, sendto, setsockopt,
        socket, sockopt,
    },
};

/// Runs something in a network namespace of its own, on a thread of its own.
///
/// # Errors
/// When the namespace can't be made, or what runs there fails or panics.
pub fn inside<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of its own")?;
            ip("link set lo up")?;
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Makes a pair of veth interfaces in the current namespace and brings both up.
///
/// Neither gets a link-local address of the kernel's own: its multicast reports and router solicitations would be
/// frames that the test didn't send, at a time of their own.
///
/// # Errors
/// When `ip` can't.
pub fn pair(one: &str, other: &str) -> anyhow::Result<()> {
    ip(&format!("link add {one} type veth peer name {other}"))?;
    for end in [one, other] {
        ip(&format!("link set {end} addrgenmode none"))?;
        ip(&format!("link set {end} up"))?;
    }
    Ok(())
}

/// Runs `ip` in the current namespace.
///
/// # Errors
/// When it fails.
pub fn ip(arguments: &str) -> anyhow::Result<()> {
    output("ip", arguments).map(drop)
}

/// Runs a program in the current namespace and gives its output.
///
/// # Errors
/// When it fails.
pub fn output(program: &str, arguments: &str) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .with_context(|| format!("can't run {program}"))?;
    if !output.status.success() {
        bail!("{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Sends frames out of one interface.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    address: LinkAddr,
}

impl Sender {
    /// A sender on an interface of the current namespace.
    ///
    /// # Errors
    /// When there is none, or without privilege.
    pub fn new(interface: &str) -> anyhow::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>)?;
        Ok(Self { socket, address: link_address(index)? })
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// When it isn't taken.
    pub fn send(&self, frame: &[u8]) -> anyhow::Result<()> {
        let sent = sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty())?;
        ensure!(sent == frame.len(), "only {sent} bytes were sent");
        Ok(())
    }

    /// Marks what is sent from now on (`SO_MARK`).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mark(&self, mark: u32) -> anyhow::Result<()> {
        Ok(setsockopt(&self.socket, sockopt::Mark, &mark)?)
    }
}

#[expect(unsafe_code, reason = "nix makes addresses of links from raw ones only")]
fn link_address(index: u32) -> anyhow::Result<LinkAddr> {
    // SAFETY: the structure is plain data, for which zeros are a value.
    let mut raw: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    raw.sll_family = libc::AF_PACKET as u16;
    raw.sll_ifindex = i32::try_from(index)?;
    raw.sll_halen = 6;
    let length = u32::try_from(size_of_val(&raw))?;
    // SAFETY: it is a whole `sockaddr_ll` with its family set, and it is copied.
    unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(length)) }.context("an address of a link")
}
