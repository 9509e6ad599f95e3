//! Maps and globals. All are bounded; none grows by what a packet says.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use prewarm_ebpf::{
    HashKey, KEY_WORDS,
    abi::{
        ABI_MARK, ABI_VERSION, AnswerRecord, COUNTERS_ENTRIES, COUNTERS_LENGTH, DIALLED_ENTRIES, KNOWN_ENTRIES,
        RECENT_ENTRIES, RING_BYTES, RecentSlot,
    },
    answers::{
        AnswerRules, AnswerSlot, AnswerUse, BUCKET, CLIENT_ENTRIES, COUNTERS_LENGTH as ANSWER_COUNTERS_LENGTH,
        ClientSlot, INDEX_ENTRIES, LIMIT_ENTRIES, LimitSlot, SERVER_ENTRIES, SIGHT_ENTRIES, SLOT_ENTRIES, ServerKey,
        SightSlot, WANTED_BYTES,
    },
    redirect::{
        Destination, LISTENER_ENTRIES, Listener, OFFER_ENTRIES, OfferKey, REDIRECT_COUNTERS_LENGTH, REDIRECTED_ENTRIES,
        Redirected, Rules, Slots, USER_ENTRIES,
    },
    tproxy::{FLOW_ENTRIES, Flow, Place, TPROXY_COUNTERS_LENGTH, TPROXY_OFFER_ENTRIES, Taken},
};

#[map]
pub(crate) static RING: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
/// Where records are made, by hook: one may be interrupted by the other.
#[map]
pub(crate) static SCRATCH: PerCpuArray<[u64; size_of::<AnswerRecord>() / 8]> = PerCpuArray::with_max_entries(2, 0);
#[map]
pub(crate) static KNOWN: Array<u64> = Array::with_max_entries(KNOWN_ENTRIES, 0);
#[map]
pub(crate) static RECENT: Array<RecentSlot> = Array::with_max_entries(RECENT_ENTRIES, 0);
#[map]
pub(crate) static COUNTERS: PerCpuArray<[u64; COUNTERS_LENGTH]> = PerCpuArray::with_max_entries(COUNTERS_ENTRIES, 0);
#[map]
pub(crate) static DIALLED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(DIALLED_ENTRIES, 0);
#[map]
pub(crate) static SLEEPING: Array<u64> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);
// Not allocated ahead: a lookup that a change overtakes then sees the old entry, never another one's.
#[map]
pub(crate) static OFFERS: HashMap<OfferKey, u32> = HashMap::with_max_entries(OFFER_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static DESTINATIONS: HashMap<Destination, Slots> =
    HashMap::with_max_entries(OFFER_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static REDIRECTED: LruHashMap<u64, Redirected> = LruHashMap::with_max_entries(REDIRECTED_ENTRIES, 0);
#[map]
pub(crate) static LISTENERS: HashMap<u64, Listener> = HashMap::with_max_entries(LISTENER_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static USERS: HashMap<u32, u32> = HashMap::with_max_entries(USER_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static RULES: Array<Rules> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static REDIRECT_COUNTERS: PerCpuArray<[u64; REDIRECT_COUNTERS_LENGTH]> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static TPROXY_OFFERS: HashMap<OfferKey, u32> =
    HashMap::with_max_entries(TPROXY_OFFER_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static TPROXY_DESTINATIONS: HashMap<Destination, Slots> =
    HashMap::with_max_entries(TPROXY_OFFER_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static FLOWS: LruHashMap<Flow, Taken> = LruHashMap::with_max_entries(FLOW_ENTRIES, 0);
#[map]
pub(crate) static PLACE: Array<Place> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static TPROXY_COUNTERS: PerCpuArray<[u64; TPROXY_COUNTERS_LENGTH]> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static ANSWER_INDEX: Array<[u64; BUCKET]> = Array::with_max_entries(INDEX_ENTRIES, 0);
#[map]
pub(crate) static ANSWER_SLOTS: Array<AnswerSlot> = Array::with_max_entries(SLOT_ENTRIES, 0);
#[map]
pub(crate) static ANSWER_USES: Array<AnswerUse> = Array::with_max_entries(SLOT_ENTRIES, 0);
#[map]
pub(crate) static ANSWER_SERVERS: HashMap<ServerKey, u32> = HashMap::with_max_entries(SERVER_ENTRIES, 0);
#[map]
pub(crate) static ANSWER_RULES: Array<AnswerRules> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static ANSWER_CLIENTS: Array<ClientSlot> = Array::with_max_entries(CLIENT_ENTRIES, 0);
#[map]
pub(crate) static ANSWER_LIMITS: Array<LimitSlot> = Array::with_max_entries(LIMIT_ENTRIES, 0);
#[map]
pub(crate) static ANSWER_SIGHTS: Array<SightSlot> = Array::with_max_entries(SIGHT_ENTRIES, 0);
#[map]
pub(crate) static ANSWER_WANTED: RingBuf = RingBuf::with_byte_size(WANTED_BYTES, 0);
#[map]
pub(crate) static ANSWER_COUNTERS: PerCpuArray<[u64; ANSWER_COUNTERS_LENGTH]> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
pub(crate) static ANSWERING: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KEY: Global<HashKey> = Global::new([0; KEY_WORDS]);
#[unsafe(no_mangle)]
pub(crate) static OWN_MARK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static WINDOW: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static TICKS: Global<u64> = Global::new(250);

/// Where user space finds the version.
#[repr(C)]
pub(crate) struct Mark([u8; 12], u32);
#[unsafe(no_mangle)]
#[used]
static ABI: Mark = Mark(ABI_MARK, ABI_VERSION);

/// The hash key as user space set it at load.
#[inline(always)]
pub(crate) fn key() -> &'static HashKey {
    let mut key = (&raw const KEY).cast::<HashKey>();
    // The compiler knows the static's zeros and would compute with them; user space overrides them before the load.
    // SAFETY: a move onto itself, which takes the pointer out of the compiler's sight.
    unsafe { core::arch::asm!("{key} = {key}", key = inout(reg) key, options(pure, nomem, nostack)) };
    // SAFETY: a `Global` is transparent over its value, which lives as long as the program.
    unsafe { &*key }
}
