//! The names that need not be sent again.

use aya::maps::{Array, MapData};
use prewarm_ebpf::abi::{KNOWN, KNOWN_ENTRIES};

use super::KernelError;
use crate::model::ResourceId;

/// The writer of the kernel's table of known IDs. The table is direct-mapped: a later ID may push out an earlier one,
/// whose name is then sent along again.
pub struct Known(Array<MapData, u64>);

impl Known {
    pub(super) const fn new(map: Array<MapData, u64>) -> Self {
        Self(map)
    }

    /// Says that the name of `id` is known: records for it carry no name from now on.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn insert(&mut self, id: ResourceId) -> Result<(), KernelError> {
        self.0.set(slot(id), id.0, 0).map_err(error)
    }

    /// Says that the name of `id` is forgotten.
    ///
    /// # Errors
    /// When the map can't be read or written.
    pub fn remove(&mut self, id: ResourceId) -> Result<(), KernelError> {
        if self.0.get(&slot(id), 0).map_err(error)? == id.0 {
            self.0.set(slot(id), 0, 0).map_err(error)?;
        }
        Ok(())
    }
}

fn slot(id: ResourceId) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the table takes the lower bits")]
    let low = id.0 as u32;
    low & (KNOWN_ENTRIES - 1)
}

fn error(source: aya::maps::MapError) -> KernelError {
    KernelError::Map { map: KNOWN, source }
}
