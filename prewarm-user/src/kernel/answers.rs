//! Answers in the kernel: the writer of its slots, and the reader of what is wanted and counted.
//!
//! Comes in: slots and buckets as `resolve::answers` decides them. Goes out: the same in the kernel's maps. Never here:
//! which answer is held, for how long, and where.

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf},
};
use bytemuck::Zeroable as _;
use prewarm_ebpf::answers::{
    AnswerCounter, AnswerRules, AnswerSlot, AnswerUse, BUCKET, CLIENT_ENTRIES, COUNTERS, COUNTERS_LENGTH, ClientSlot,
    INDEX, LIMIT_ENTRIES, LimitSlot, RULES, SERVERS, SIGHT_ENTRIES, SLOTS, ServerKey, SightSlot, USES, WANTED,
    WANTED_BYTES, WantedRecord,
};

use super::{KernelError, Programs, programs};

type SlotWords = [u64; size_of::<AnswerSlot>() / 8];
type UseWords = [u64; 2];
type RulesWords = [u64; size_of::<AnswerRules>() / 8];
type ServerWords = [u64; size_of::<ServerKey>() / 8];

/// The kernel's maps of answers.
pub struct AnswerMaps {
    index: Array<MapData, [u64; BUCKET]>,
    slots: Array<MapData, SlotWords>,
    uses: Array<MapData, UseWords>,
    servers: HashMap<MapData, ServerWords, u32>,
    rules: Array<MapData, RulesWords>,
}

/// The reader of the questions that had no answer.
pub struct WantedRing(RingBuf<MapData>);

/// The reader of what is counted.
pub struct AnswerCounters(PerCpuArray<MapData, [u64; COUNTERS_LENGTH]>);

/// What the kernel counted, by [`AnswerCounter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerCounts([u64; COUNTERS_LENGTH]);

impl Default for AnswerCounts {
    fn default() -> Self {
        Self([0; COUNTERS_LENGTH])
    }
}

impl AnswerCounts {
    /// One of them.
    #[must_use]
    pub const fn get(&self, counter: AnswerCounter) -> u64 {
        self.0[counter as usize]
    }
}

/// All there is, once.
pub struct AnswerParts {
    /// What answers are written to.
    pub maps: AnswerMaps,
    /// What is wanted.
    pub wanted: WantedRing,
    /// What is counted.
    pub counters: AnswerCounters,
}

impl Programs {
    /// The maps of answers, once; [`Settings::answers`](super::Settings::answers) says how many there may be.
    ///
    /// # Errors
    /// When they were taken before.
    pub fn answers(&mut self) -> Result<AnswerParts, KernelError> {
        parts(self.bpf())
    }
}

pub(super) fn parts(bpf: &mut Ebpf) -> Result<AnswerParts, KernelError> {
    Ok(AnswerParts {
        maps: AnswerMaps {
            index: programs::take_map(bpf, INDEX, Array::try_from)?,
            slots: programs::take_map(bpf, SLOTS, Array::try_from)?,
            uses: programs::take_map(bpf, USES, Array::try_from)?,
            servers: programs::take_map(bpf, SERVERS, HashMap::try_from)?,
            rules: programs::take_map(bpf, RULES, Array::try_from)?,
        },
        wanted: WantedRing(programs::take_map(bpf, WANTED, RingBuf::try_from)?),
        counters: AnswerCounters(programs::take_map(bpf, COUNTERS, PerCpuArray::try_from)?),
    })
}

/// The bytes that the maps take for so many answers.
pub(super) fn bytes(entries: u32) -> u64 {
    if entries == 0 {
        return 0;
    }
    let each = |count: u32, size: usize| u64::from(count) * size as u64;
    each(entries, size_of::<AnswerSlot>() + size_of::<AnswerUse>())
        + each(prewarm_ebpf::answers::INDEX_ENTRIES, 8 * BUCKET)
        + each(CLIENT_ENTRIES, size_of::<ClientSlot>())
        + each(LIMIT_ENTRIES, size_of::<LimitSlot>())
        + each(SIGHT_ENTRIES, size_of::<SightSlot>())
        + u64::from(WANTED_BYTES)
}

fn refused(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, source }
}

impl AnswerMaps {
    /// How many slots there are.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.slots.len()
    }

    /// Writes a slot. Nobody may be reading it: see [`prewarm_ebpf::answers::REST`].
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn write(&mut self, slot: u32, answer: &AnswerSlot) -> Result<(), KernelError> {
        self.slots.set(slot, bytemuck::cast::<_, SlotWords>(*answer), 0).map_err(refused(SLOTS))
    }

    /// Says which slots a bucket names.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn name(&mut self, bucket: u32, slots: [u64; BUCKET]) -> Result<(), KernelError> {
        self.index.set(bucket, slots, 0).map_err(refused(INDEX))
    }

    /// Says how often a slot was used, and which of its records comes first.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn set_use(&mut self, slot: u32, uses: AnswerUse) -> Result<(), KernelError> {
        self.uses.set(slot, [uses.hits, uses.first], 0).map_err(refused(USES))
    }

    /// How a slot is used.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn uses(&self, slot: u32) -> Result<AnswerUse, KernelError> {
        let [hits, first] = self.uses.get(&slot, 0).map_err(refused(USES))?;
        Ok(AnswerUse { hits, first })
    }

    /// Adds a server whose answers may be given.
    ///
    /// # Errors
    /// When there is no room for more.
    pub fn serve(&mut self, server: ServerKey) -> Result<(), KernelError> {
        self.servers.insert(bytemuck::cast::<_, ServerWords>(server), 1, 0).map_err(refused(SERVERS))
    }

    /// Takes a server off; its answers are still held.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn dismiss(&mut self, server: ServerKey) -> Result<(), KernelError> {
        match self.servers.remove(&bytemuck::cast::<_, ServerWords>(server)) {
            Err(source) if !super::redirect::is_absent(&source) => Err(refused(SERVERS)(source)),
            _ => Ok(()),
        }
    }

    /// Sets what holds for every answer.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn rule(&mut self, rules: &AnswerRules) -> Result<(), KernelError> {
        self.rules.set(0, bytemuck::cast::<_, RulesWords>(*rules), 0).map_err(refused(RULES))
    }
}

impl WantedRing {
    /// Takes what is there, at most `limit`.
    pub fn drain(&mut self, limit: usize, mut each: impl FnMut(&WantedRecord)) {
        for _ in 0..limit {
            let Some(item) = self.0.next() else { return };
            let mut record = WantedRecord::zeroed();
            let bytes = bytemuck::bytes_of_mut(&mut record);
            if let Some(read) = item.get(..bytes.len()) {
                bytes.copy_from_slice(read);
                each(&record);
            }
        }
    }
}

impl AnswerCounters {
    /// The sums over all processors.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn read(&self) -> Result<AnswerCounts, KernelError> {
        let values = self.0.get(&0, 0).map_err(refused(COUNTERS))?;
        let mut sums = AnswerCounts::default();
        for (index, sum) in sums.0.iter_mut().enumerate() {
            *sum = values.iter().map(|processor| processor[index]).fold(0, u64::wrapping_add);
        }
        Ok(sums)
    }
}
