//! The kernel's counters, summed over processors.

use std::collections::BTreeMap;

use aya::maps::{MapData, PerCpuArray};
use prewarm_ebpf::abi::{COUNTERS_EGRESS, COUNTERS_INGRESS, COUNTERS_LENGTH, Counter};

use super::KernelError;

/// What the programs counted since they were loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCounters {
    ingress: [u64; COUNTERS_LENGTH],
    egress: [u64; COUNTERS_LENGTH],
}

impl Default for KernelCounters {
    fn default() -> Self {
        Self { ingress: [0; COUNTERS_LENGTH], egress: [0; COUNTERS_LENGTH] }
    }
}

impl KernelCounters {
    pub(super) fn read(map: &PerCpuArray<MapData, [u64; COUNTERS_LENGTH]>) -> Result<Self, KernelError> {
        let sum = |entry: u32| {
            let refused = |error: aya::maps::MapError| KernelError::refused("read the counters")(error.into());
            let processors = map.get(&entry, 0).map_err(refused)?;
            let mut sum = [0_u64; COUNTERS_LENGTH];
            for counters in processors.iter() {
                for (total, count) in sum.iter_mut().zip(counters) {
                    *total += count;
                }
            }
            Ok::<_, KernelError>(sum)
        };
        Ok(Self { ingress: sum(COUNTERS_INGRESS)?, egress: sum(COUNTERS_EGRESS)? })
    }

    /// Of what arrived.
    #[must_use]
    pub const fn ingress(&self, counter: Counter) -> u64 {
        self.ingress[counter as usize]
    }

    /// Of what left.
    #[must_use]
    pub const fn egress(&self, counter: Counter) -> u64 {
        self.egress[counter as usize]
    }

    /// Of both.
    #[must_use]
    pub const fn both(&self, counter: Counter) -> u64 {
        self.ingress(counter) + self.egress(counter)
    }

    /// What was left alone or lost, by reason.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        let lost = |counter: &Counter| counter.is_reason() || *counter == Counter::RingLost;
        Counter::ALL
            .iter()
            .filter(|counter| lost(counter))
            .map(|&counter| (counter.name().to_owned(), self.both(counter)))
            .collect()
    }
}
