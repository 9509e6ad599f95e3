//! The object file with the kernel programs, as it was put into this binary at build time.

use prewarm_ebpf::abi::{ABI_MARK, ABI_VERSION};

use super::KernelError;

/// The object, if this binary carries one.
#[must_use]
pub fn object() -> Option<&'static [u8]> {
    #[cfg(prewarm_programs)]
    {
        Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/prewarm.bpf.o")))
    }
    #[cfg(not(prewarm_programs))]
    {
        None
    }
}

/// Refuses an object that was built from another contract.
pub(super) fn check_version(object: &[u8]) -> Result<(), KernelError> {
    let mark = object.windows(ABI_MARK.len() + 4).find(|window| window.starts_with(&ABI_MARK));
    let found = mark.and_then(|window| window[ABI_MARK.len()..].try_into().ok()).map(u32::from_le_bytes);
    if found == Some(ABI_VERSION) { Ok(()) } else { Err(KernelError::Version { found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused() {
        let object = |version: u32| [b"ELF...", &ABI_MARK[..], &version.to_le_bytes(), b"..."].concat();
        assert!(check_version(&object(ABI_VERSION)).is_ok());
        let refused = check_version(&object(ABI_VERSION + 1));
        assert!(matches!(refused, Err(KernelError::Version { found: Some(found) }) if found == ABI_VERSION + 1));
        assert!(matches!(check_version(b"no mark here"), Err(KernelError::Version { found: None })));
    }
}
