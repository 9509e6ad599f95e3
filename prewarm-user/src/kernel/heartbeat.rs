//! The beat by which programs that change anything know that the daemon is alive.

use aya::maps::{Array, MapData};
use nix::time::{ClockId, clock_gettime};
use prewarm_ebpf::redirect::HEARTBEAT;

use super::KernelError;

/// The writer of the beat. Programs take one that is older than 2 s for the daemon's death.
pub struct Heartbeat(Array<MapData, u64>);

impl Heartbeat {
    pub(super) const fn new(map: Array<MapData, u64>) -> Self {
        Self(map)
    }

    /// Says that the daemon is alive now.
    ///
    /// # Errors
    /// When the clock or the map can't be used.
    pub fn beat(&mut self) -> Result<(), KernelError> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(KernelError::errno("clock_gettime"))?;
        let nanos = u64::try_from(std::time::Duration::from(now).as_nanos()).unwrap_or(u64::MAX);
        self.write(nanos)
    }

    /// Says that the daemon ends: the programs stop changing anything at once.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn end(&mut self) -> Result<(), KernelError> {
        self.write(0)
    }

    fn write(&mut self, nanos: u64) -> Result<(), KernelError> {
        self.0.set(0, nanos, 0).map_err(|source| KernelError::Map { map: HEARTBEAT, source })
    }
}
