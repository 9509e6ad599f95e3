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
pub(super) fn driver(interface: &str) -> Option<String> {
    /// `ETHTOOL_GDRVINFO` of linux/ethtool.h.
    const DRIVER_INFO: u32 = 3;
    // `struct ethtool_drvinfo`: the command, then the driver's name in 32 bytes.
    let info: [u8; 196] = ethtool(interface, DRIVER_INFO)?;
    let name = info.get(4..36)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Whether an interface's hardware takes VLAN tags off what arrives (`ethtool -k`: rx-vlan-offload).
fn takes_tags_off(interface: &str) -> bool {
    /// `ETHTOOL_GFLAGS` of linux/ethtool.h.
    const FLAGS: u32 = 0x25;
    /// `ETH_FLAG_RXVLAN`.
    const RX_VLAN: u32 = 1 << 8;
    // `struct ethtool_value`: the command, then the flags.
    let value: Option<[u8; 8]> = ethtool(interface, FLAGS);
    value.and_then(|value| Some(u32::from_ne_bytes(*value.last_chunk()?))).is_some_and(|flags| flags & RX_VLAN != 0)
}

/// The VLANs of an interface whose tags XDP programs don't see: to them, a packet of such a VLAN looks like one of the
/// interface's own network, and what they send back would go there.
#[must_use]
pub fn unseen_vlans(interface: &str) -> Vec<String> {
    let Ok(table) = std::fs::read_to_string("/proc/self/net/vlan/config") else { return Vec::new() };
    let vlans = vlans(&table, interface);
    // On veth the tag stands beside the packet if the other end's kernel put it there, whatever this end says.
    let is_hidden = || takes_tags_off(interface) || driver(interface).as_deref() == Some("veth");
    if vlans.is_empty() || !is_hidden() { Vec::new() } else { vlans }
}

/// The VLANs over an interface, of the kernel's table: two lines of heading, then `NAME | ID | INTERFACE`.
fn vlans(table: &str, interface: &str) -> Vec<String> {
    let row = |line: &str| {
        let mut fields = line.split('|').map(str::trim);
        let name = fields.next()?;
        (fields.nth(1) == Some(interface)).then(|| name.to_owned())
    };
    table.lines().filter_map(row).collect()
}

/// Asks an interface's driver something whose answer begins with the command.
#[expect(unsafe_code, reason = "nix has no call for what ethtool asks")]
fn ethtool<const LENGTH: usize>(interface: &str, command: u32) -> Option<[u8; LENGTH]> {
    /// `SIOCETHTOOL` of linux/sockios.h.
    const ETHTOOL: libc::Ioctl = 0x8946;
    let mut buffer = [0_u8; LENGTH];
    *buffer.first_chunk_mut()? = command.to_ne_bytes();
    // SAFETY: the structure is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return None;
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    // SAFETY: the request names a buffer of the length that the kernel writes for this command, and both live until it
    // returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    (result == 0).then_some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_of_an_interface_are_found_in_the_kernels_table() {
        let table = "VLAN Dev name\t | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                     eth0.10        | 10  | eth0\nguests         | 20  | eth0\neth1.10        | 10  | eth1\n";
        assert_eq!(vlans(table, "eth0"), ["eth0.10", "guests"]);
        assert_eq!(vlans(table, "eth1"), ["eth1.10"]);
        assert!(vlans(table, "eth").is_empty());
        assert!(vlans("", "eth0").is_empty());
    }

    #[test]
    fn loopback_has_neither_vlans_nor_hardware() {
        assert!(!takes_tags_off("lo"));
        assert!(unseen_vlans("lo").is_empty());
        assert_eq!(driver("no-such-interface"), None);
    }
}
