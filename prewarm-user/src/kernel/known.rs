//! The table of names that user space knows, by which the kernel leaves them out of its records.

use std::fmt;

use aya::maps::{Array, MapData};
use prewarm_ebpf::abi::KNOWN_ENTRIES;

use super::KernelError;
use crate::model::ResourceId;

/// Writes the table. Direct-mapped: a name may push another out, which then only travels with its events again.
pub struct KnownNames {
    table: Array<MapData, u64>,
}

impl fmt::Debug for KnownNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownNames").field("slots", &KNOWN_ENTRIES).finish()
    }
}

impl KnownNames {
    pub(super) const fn new(table: Array<MapData, u64>) -> Self {
        Self { table }
    }

    /// From now on events of `resource` come without its name.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn insert(&mut self, resource: ResourceId) -> Result<(), KernelError> {
        let written = self.table.set(slot(resource), resource.0, 0);
        written.map_err(|error| KernelError::refused("write the table of known names")(error.into()))
    }

    /// From now on events of `resource` bring its name.
    ///
    /// # Errors
    /// When the kernel refuses a read or write.
    pub fn remove(&mut self, resource: ResourceId) -> Result<(), KernelError> {
        let refused = |error: aya::maps::MapError| KernelError::refused("write the table of known names")(error.into());
        // Another name may have taken the slot.
        if self.table.get(&slot(resource), 0).map_err(refused)? == resource.0 {
            self.table.set(slot(resource), 0, 0).map_err(refused)?;
        }
        Ok(())
    }
}

const fn slot(resource: ResourceId) -> u32 {
    // The mask is below 2³², so nothing is cut.
    (resource.0 & (KNOWN_ENTRIES as u64 - 1)) as u32
}
