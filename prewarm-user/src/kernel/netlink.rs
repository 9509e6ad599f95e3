//! The two things about clsact that aya has no call for: seeing whether it is empty, and deleting it.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

use super::KernelError;

/// The clsact qdisc's place, and the places of filters in it.
const CLSACT: u32 = 0xffff_fff1;
const INGRESS_FILTERS: u32 = 0xffff_fff2;
const EGRESS_FILTERS: u32 = 0xffff_fff3;
/// The clsact qdisc's handle, `ffff:`.
const HANDLE: u32 = 0xffff_0000;
const TCA_KIND: u16 = 1;
const HEADER: usize = 16;

/// Deletes the clsact qdisc of an interface unless somebody has filters there.
pub(super) fn delete_empty_clsact(index: u32) -> Result<(), KernelError> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
        .map_err(KernelError::errno("netlink socket"))?;
    if has_filters(&socket, index, INGRESS_FILTERS)? || has_filters(&socket, index, EGRESS_FILTERS)? {
        return Ok(());
    }
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    send(&socket, &message(libc::RTM_DELQDISC, flags, index, HANDLE, CLSACT, b"clsact\0"))?;
    replies(&socket, |_| {})
}

fn has_filters(socket: &OwnedFd, index: u32, parent: u32) -> Result<bool, KernelError> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    send(socket, &message(libc::RTM_GETTFILTER, flags, index, 0, parent, b""))?;
    let mut found = false;
    replies(socket, |kind| found |= kind == libc::RTM_NEWTFILTER)?;
    Ok(found)
}

/// A request of `linux/rtnetlink.h`: `nlmsghdr`, `tcmsg`, and the kind as attribute.
fn message(kind: u16, flags: libc::c_int, index: u32, handle: u32, parent: u32, qdisc: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    // Sequence number and port; then family and padding.
    bytes.extend([0; 8]);
    bytes.extend([0; 4]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend(handle.to_ne_bytes());
    bytes.extend(parent.to_ne_bytes());
    bytes.extend([0; 4]);
    if !qdisc.is_empty() {
        bytes.extend(u16::try_from(4 + qdisc.len()).unwrap_or_default().to_ne_bytes());
        bytes.extend(TCA_KIND.to_ne_bytes());
        bytes.extend(qdisc);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(bytes.len()).unwrap_or_default();
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<(), KernelError> {
    sendto(socket.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())
        .map(|_| ())
        .map_err(KernelError::errno("netlink request"))
}

/// Reads to the acknowledgement or the end of the dump, and tells `each` the kinds of messages before it.
fn replies(socket: &OwnedFd, mut each: impl FnMut(u16)) -> Result<(), KernelError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length =
            recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(KernelError::errno("netlink reply"))?;
        let mut rest = &buffer[..length];
        while let Some(header) = rest.first_chunk::<HEADER>() {
            let [a, b, c, d, e, f, ..] = *header;
            let (length, kind) = (u32::from_ne_bytes([a, b, c, d]) as usize, u16::from_ne_bytes([e, f]));
            let body = rest.get(HEADER..length).unwrap_or_default();
            match libc::c_int::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(0, |&code| i32::from_ne_bytes(code));
                    if code == 0 {
                        return Ok(());
                    }
                    let source = std::io::Error::from_raw_os_error(-code);
                    return Err(KernelError::System { context: "netlink", source });
                }
                _ => each(kind),
            }
            rest = rest.get(length.next_multiple_of(4).max(HEADER)..).unwrap_or_default();
        }
    }
}
