//! What must be known of an interface before anything is attached to it.

use std::os::fd::AsRawFd as _;

use socket2::{Domain, Socket, Type};

use super::KernelError;

/// The index of an interface of the current network namespace.
pub(super) fn index(interface: &str) -> Result<u32, KernelError> {
    nix::net::if_::if_nametoindex(interface).map_err(|_| KernelError::NoInterface(interface.to_owned()))
}

/// Refuses an interface whose packets don't begin with an Ethernet header; loopback's do.
pub(super) fn expect_ethernet(interface: &str) -> Result<(), KernelError> {
    let link_type = link_type(interface)?;
    if link_type == libc::ARPHRD_ETHER || link_type == libc::ARPHRD_LOOPBACK {
        return Ok(());
    }
    Err(KernelError::NotEthernet { interface: interface.to_owned(), link_type })
}

#[expect(unsafe_code, reason = "the link type is only had by an ioctl on a raw descriptor")]
fn link_type(interface: &str) -> Result<u16, KernelError> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(KernelError::system("socket"))?;
    // SAFETY: the structure is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(KernelError::NoInterface(interface.to_owned()));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the request lives across the call, is of the type this ioctl takes, and its name ends with a zero.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    if result != 0 {
        return Err(KernelError::System { context: "SIOCGIFHWADDR", source: std::io::Error::last_os_error() });
    }
    // SAFETY: the ioctl has filled in this member of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    Ok(address.sa_family)
}
