//! The object with the kernel programs.

use prewarm_ebpf::abi::{ABI_MARK, ABI_VERSION};

use super::KernelError;

#[cfg(bpf_object)]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/prewarm.bpf.o"));

/// The kernel programs, if this binary was built with them (`cargo xtask build`).
#[must_use]
pub fn object() -> Option<&'static [u8]> {
    #[cfg(bpf_object)]
    return Some(OBJECT);
    #[cfg(not(bpf_object))]
    None
}

/// Sees that the object speaks our version of the contract.
pub(super) fn check_abi(object: &[u8]) -> Result<(), KernelError> {
    let found = object
        .windows(ABI_MARK.len() + 4)
        .find_map(|window| window.strip_prefix(&ABI_MARK)?.first_chunk().copied().map(u32::from_le_bytes));
    if found == Some(ABI_VERSION) { Ok(()) } else { Err(KernelError::Abi { found, wanted: ABI_VERSION }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused() {
        let mut object = b"\x7fELF prewarm-abi:".to_vec();
        object.extend(ABI_VERSION.to_le_bytes());
        assert!(check_abi(&object).is_ok());
        object[17] ^= 0xff;
        assert!(matches!(check_abi(&object), Err(KernelError::Abi { found: Some(_), .. })));
        assert!(matches!(check_abi(b"\x7fELF"), Err(KernelError::Abi { found: None, .. })));
    }

    #[test]
    fn the_embedded_object_is_ours() {
        if let Some(object) = object() {
            check_abi(object).unwrap();
        }
    }
}
