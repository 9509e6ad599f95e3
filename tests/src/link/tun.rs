//! Opening a TUN device inside a namespace. The device is gone when the descriptor is closed.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;

/// `TUNSETIFF` of linux/if_tun.h: binds the descriptor to a device of a name, making it.
const SET_INTERFACE: libc::Ioctl = nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()) as libc::Ioctl;

/// Makes a TUN device (IP packets, no header before them) of this name in the namespace.
pub(super) fn open(namespace: &Namespace, name: &str) -> Result<OwnedFd> {
    ensure!(name.len() < libc::IFNAMSIZ, "interface name {name} is too long");
    namespace.enter(|| {
        let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("open /dev/net/tun")?;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short },
        };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        #[expect(unsafe_code, reason = "a TUN device is made by an ioctl")]
        // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), SET_INTERFACE, &mut request) };
        nix::errno::Errno::result(result).with_context(|| format!("make TUN device {name}"))?;
        Ok(device.into())
    })
}
