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

/// The driver of an interface, as `ethtool -i` shows it; none where it has none to tell.
#[expect(unsafe_code, reason = "nix has no call for a driver's name")]
pub(super) fn driver(interface: &str) -> Option<String> {
    /// `ETHTOOL_GDRVINFO` of linux/ethtool.h.
    const DRIVER_INFO: u32 = 3;
    /// `SIOCETHTOOL` of linux/sockios.h.
    const ETHTOOL: libc::Ioctl = 0x8946;
    /// `struct ethtool_drvinfo`: the command, then the driver's name in 32 bytes.
    const LENGTH: usize = 196;
    let mut info = [0_u8; LENGTH];
    info[..4].copy_from_slice(&DRIVER_INFO.to_ne_bytes());
    // SAFETY: the structure is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return None;
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = info.as_mut_ptr().cast();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    // SAFETY: the request names a buffer of the length that the kernel writes, and both live until it returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    let name = info.get(4..36)?.split(|byte| *byte == 0).next()?;
    (result == 0).then(|| String::from_utf8_lossy(name).into_owned())
}
