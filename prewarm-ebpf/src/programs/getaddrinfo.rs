//! uprobe and uretprobe at a C library's `getaddrinfo`: the names that programs look up, and the addresses they get,
//! however the library comes by them.
//!
//! Comes in: calls and returns of that function. Goes out: a record for each that came back with its name. Never here:
//! a change to anything of the program, or a read that can fail it: memory that isn't there ends the look at it.

use aya_ebpf::{
    Global,
    bindings::bpf_pidns_info,
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user,
        generated::{bpf_get_ns_current_pid_tgid, bpf_probe_read_user_str},
    },
    macros::{map, uprobe, uretprobe},
    maps::{LruHashMap, PerCpuArray, RingBuf},
    programs::{ProbeContext, RetProbeContext},
};
use prewarm_ebpf::{
    abi::ADDRESSES,
    getaddrinfo::{
        Asked, LOOKUP_COUNTERS_LENGTH, LOOKUP_ENTRIES, LOOKUP_RING_BYTES, LookupCounter as Counter, LookupRecord,
        RESULTS,
    },
};

#[map]
static LOOKUP_RING: RingBuf = RingBuf::with_byte_size(LOOKUP_RING_BYTES, 0);
#[map]
static LOOKUPS: LruHashMap<u64, Asked> = LruHashMap::with_max_entries(LOOKUP_ENTRIES, 0);
#[map]
static LOOKUP_COUNTERS: PerCpuArray<[u64; LOOKUP_COUNTERS_LENGTH]> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static OWN_PROCESS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static OWN_PROCESSES_DEVICE: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static OWN_PROCESSES_INODE: Global<u64> = Global::new(0);

/// Always zero, but the verifier can't know.
static mut ZERO: u64 = 0;

/// `AI_NUMERICHOST`: the name is an address, and nothing is looked up.
const NUMERIC: i32 = 4;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// The second word of an IPv4 address in IPv6 form, without the address.
const MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];
const NAME: usize = 256;

/// `struct addrinfo` of glibc and musl on 64-bit machines, in words: flags and family, type and protocol, the length
/// of the address, the address, the canonical name, the next.
type Info = [u64; 6];
const INFO_ADDRESS: usize = 3;
const INFO_NEXT: usize = 5;

#[uprobe]
fn lookup_asked(ctx: ProbeContext) -> u32 {
    // What isn't there can't be looked at.
    let _looked = asked(&ctx);
    0
}

#[uretprobe]
fn lookup_answered(ctx: RetProbeContext) -> u32 {
    let _looked = answered(&ctx);
    0
}

#[inline(always)]
fn asked(ctx: &ProbeContext) -> Option<()> {
    let (node, hints, result): (u64, u64, u64) = (ctx.arg(0)?, ctx.arg(2)?, ctx.arg(3)?);
    if node == 0 {
        return None;
    }
    if hints != 0 {
        // SAFETY: the helper reads memory of the calling program, and fails where there is none.
        let flags = unsafe { bpf_probe_read_user(hints as *const i32) }.ok()?;
        if flags & NUMERIC != 0 {
            return None;
        }
    }
    // SAFETY: the helper takes nothing and only reads a clock.
    let time = unsafe { bpf_ktime_get_ns() };
    // A full table gives up its oldest entry; where even that fails, this look-up is not seen.
    LOOKUPS.insert(bpf_get_current_pid_tgid(), Asked { node, result, time }, 0).ok()
}

#[inline(always)]
fn answered(ctx: &RetProbeContext) -> Option<()> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: inside the map; the thread writes its own entry only, and it is here.
    let asked = LOOKUPS.get_ptr(thread).map(|entry| unsafe { *entry })?;
    let _gone = LOOKUPS.remove(thread);
    count(Counter::Seen);
    let process = process();
    if process != 0 && process == OWN_PROCESS.load() {
        count(Counter::Own);
        return None;
    }
    let Some(mut entry) = LOOKUP_RING.reserve::<LookupRecord>(0) else {
        count(Counter::RingLost);
        return None;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved with the size of the record.
    let name = unsafe { &raw mut (*record).name };
    // SAFETY: the helper writes at most so many bytes into the record, and reads memory of the calling program.
    let length = unsafe { bpf_probe_read_user_str(name.cast(), NAME as u32, asked.node as *const _) };
    // The length counts the terminating zero, and a name that fills the field was cut.
    if length < 2 || length >= NAME as i64 {
        count(Counter::Unreadable);
        entry.discard(0);
        return None;
    }
    let code: i32 = ctx.ret();
    let held = if code == 0 { addresses(asked.result, record) } else { 0 };
    // SAFETY: reserved with the size of the record, of which these six fields are the first 32 bytes.
    unsafe {
        record.cast::<[u64; 4]>().write([
            asked.time,
            bpf_ktime_get_ns(),
            u64::from(process) | (code as u32 as u64) << 32,
            (length as u64 - 1) & 0xffff | (held as u64) << 16,
        ]);
    }
    entry.submit(0);
    Some(())
}

/// Puts the addresses of a list of results into the record and gives how many, each once where equal ones follow each
/// other, as they do in glibc.
#[inline(always)]
fn addresses(result: u64, record: *mut LookupRecord) -> usize {
    // SAFETY: reserved with the size of the record.
    let field = unsafe { &raw mut (*record).addresses };
    let mut held = 0_usize;
    let mut before = [0_u64; 2];
    // SAFETY: the helper reads memory of the calling program, and fails where there is none.
    let Ok(mut next) = (unsafe { bpf_probe_read_user(result as *const u64) }) else { return 0 };
    for _ in 0..RESULTS {
        if next == 0 || held >= ADDRESSES {
            break;
        }
        // SAFETY: as above.
        let Ok(info) = (unsafe { bpf_probe_read_user(next as *const Info) }) else { break };
        next = info[INFO_NEXT];
        let Some(address) = address(info[INFO_ADDRESS]) else { continue };
        if address[0] == before[0] && address[1] == before[1] && held > 0 {
            continue;
        }
        before = address;
        // Not a number that the verifier knows: it would follow the loop once for each that there may be.
        held = blur(held);
        // SAFETY: the mask keeps the index below the length.
        let slot = unsafe { (&raw mut (*field)[held & (ADDRESSES - 1)]).cast::<[u64; 2]>() };
        // SAFETY: inside the record, whose addresses are aligned to 8 bytes.
        unsafe { slot.write(address) };
        held += 1;
    }
    held
}

/// The number, below 16, as one that the verifier knows nothing of.
#[inline(always)]
fn blur(number: usize) -> usize {
    // SAFETY: nobody writes it.
    let zero = unsafe { (&raw const ZERO).read_volatile() };
    number.wrapping_add(zero as usize) & 15
}

/// The address in a `struct sockaddr`, as two words in memory order.
#[inline(always)]
fn address(socket: u64) -> Option<[u64; 2]> {
    // SAFETY: the helper reads memory of the calling program, and fails where there is none.
    let head = unsafe { bpf_probe_read_user(socket as *const [u16; 4]) }.ok()?;
    match head[0] {
        AF_INET => {
            let [low, high] = [head[2].to_ne_bytes(), head[3].to_ne_bytes()];
            let [a, b, c, d] = MAPPED;
            Some([0, u64::from_ne_bytes([a, b, c, d, low[0], low[1], high[0], high[1]])])
        }
        // Family, port and flow stand before the address.
        // SAFETY: as above.
        AF_INET6 => unsafe { bpf_probe_read_user((socket + 8) as *const [u64; 2]) }.ok(),
        _ => None,
    }
}

/// The calling process in the daemon's PID namespace; 0 for one of another.
#[inline(always)]
fn process() -> u32 {
    let mut found = bpf_pidns_info { pid: 0, tgid: 0 };
    let size = size_of::<bpf_pidns_info>() as u32;
    let (device, inode) = (OWN_PROCESSES_DEVICE.load(), OWN_PROCESSES_INODE.load());
    // SAFETY: the helper writes no more than the structure has.
    let result = unsafe { bpf_get_ns_current_pid_tgid(device, inode, &raw mut found, size) };
    if result == 0 { found.tgid } else { 0 }
}

#[inline(always)]
fn count(counter: Counter) {
    let Some(cells) = LOOKUP_COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: the entry is this CPU's; a program that is interrupted by itself loses one count at worst.
    let cells = unsafe { &mut *cells };
    if let Some(cell) = cells.get_mut(counter as usize) {
        *cell = cell.wrapping_add(1);
    }
}
