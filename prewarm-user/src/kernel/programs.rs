//! The loaded programs and their maps.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{Program, ProgramError, sock_ops::SockOpsLink},
};
use nix::time::{ClockId, clock_getres};
use prewarm_ebpf::abi::{
    AnswerRecord, COUNTERS, COUNTERS_ENTRIES, COUNTERS_LENGTH, DIALLED, DIALLED_ENTRIES, EGRESS, INGRESS, KEY, KNOWN,
    KNOWN_ENTRIES, OWN_MARK, RECENT_ENTRIES, RING, RING_BYTES, RecentSlot, SLEEPING, TICKS, WINDOW,
};
use prewarm_ebpf::{
    answers::{
        self, ANSWERING, CLIENT_ENTRIES, INDEX_ENTRIES, LIMIT_ENTRIES, SIGHT_ENTRIES, SLOT_ENTRIES, WANTED_BYTES,
    },
    getaddrinfo::{LOOKUP_ENTRIES, LOOKUPS, OWN_PROCESS, OWN_PROCESSES},
    redirect::{REDIRECTED, REDIRECTED_ENTRIES},
    tproxy::{FLOW_ENTRIES, FLOWS},
};

use super::{
    Attachment, Counters, Dialled, KernelError, Key, Known, LogPump, Ring, RingSource,
    attach::{self, Attached, Wanted},
    object::check_abi,
};
use crate::config::XdpMode;

/// The smallest ring.
const PAGE: u32 = 4096;

/// What is fixed when the programs are loaded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key of resource IDs.
    pub key: Key,
    /// The mark (`SO_MARK`) of the daemon's own sockets, whose packets `egress` leaves alone; 0 for none.
    pub own_mark: u32,
    /// How long questions for A, AAAA and HTTPS of one name by one client are one event. Resolvers ask for them within
    /// milliseconds, and again after a second or more when no answer came.
    pub window: Duration,
    /// The size of the ring in bytes; a power of two, at least a page.
    pub ring_bytes: u32,
    /// Whether `egress` may use tcx; off only to try clsact.
    pub tcx: bool,
    /// How `ingress` is attached; none to leave it out.
    pub ingress: Option<XdpMode>,
    /// Whether `egress` is attached.
    pub egress: bool,
    /// Whether the connect redirect will be loaded too; its largest map has its full size only then.
    pub redirect: bool,
    /// The same of the program that takes over forwarded connections.
    pub tproxy: bool,
    /// How many answers `ingress` may hold and give; 0 switches that off.
    pub answers: u32,
    /// The same of the programs that watch `getaddrinfo`.
    pub lookups: bool,
}

impl Settings {
    /// The usual settings with this key.
    #[must_use]
    pub const fn new(key: Key) -> Self {
        Self {
            key,
            own_mark: 0,
            window: Duration::from_secs(1),
            ring_bytes: RING_BYTES,
            tcx: true,
            ingress: Some(XdpMode::Auto),
            egress: true,
            redirect: false,
            tproxy: false,
            answers: 0,
            lookups: false,
        }
    }
}

/// The programs `ingress` and `egress`, loaded. Dropping it takes them off every interface.
#[derive(Debug)]
pub struct Programs {
    bpf: Ebpf,
    attached: BTreeMap<String, Attached>,
    sockops: Option<SockOpsLink>,
    ring_bytes: u32,
    redirect: bool,
    answers: u32,
    wanted: Wanted,
}

impl Programs {
    /// Loads the programs of an object (see [`object`](super::object())) into the kernel.
    ///
    /// # Errors
    /// When the object is of another version, or the kernel refuses it.
    pub fn load(object: &[u8], settings: &Settings) -> Result<Self, KernelError> {
        let mut bpf = open(object, settings)?;
        for program in [INGRESS, EGRESS] {
            verify(&mut bpf, program)?;
        }
        let wanted = Wanted {
            ingress: settings.ingress,
            egress: settings.egress,
            tcx: settings.tcx,
            answers: settings.answers > 0,
        };
        Ok(Self {
            bpf,
            attached: BTreeMap::new(),
            sockops: None,
            ring_bytes: settings.ring_bytes,
            redirect: settings.redirect,
            answers: settings.answers,
            wanted,
        })
    }

    /// Attaches both programs to an interface of the current network namespace.
    ///
    /// # Errors
    /// When the interface is unknown or has no Ethernet header, or the kernel refuses.
    pub fn attach(&mut self, interface: &str) -> Result<Attachment, KernelError> {
        if self.attached.contains_key(interface) {
            return Err(KernelError::AlreadyAttached(interface.to_owned()));
        }
        let attached = attach::attach(&mut self.bpf, interface, self.wanted)?;
        let attachment = attached.attachment.clone();
        self.attached.insert(interface.to_owned(), attached);
        Ok(attachment)
    }

    /// Takes both programs off an interface.
    ///
    /// # Errors
    /// When they are not there, or the kernel refuses.
    pub fn detach(&mut self, interface: &str) -> Result<(), KernelError> {
        self.attached.remove(interface).ok_or_else(|| KernelError::NotAttached(interface.to_owned()))?.detach()
    }

    /// Takes both programs off every interface; every one is tried, and the first error is given.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach_all(&mut self) -> Result<(), KernelError> {
        let mut result = Ok(());
        self.sockops = None;
        for attached in std::mem::take(&mut self.attached).into_values() {
            let detached = attached.detach();
            if result.is_ok() {
                result = detached;
            }
        }
        result
    }

    /// The object, for the parts that load more of its programs.
    pub(super) const fn bpf(&mut self) -> &mut Ebpf {
        &mut self.bpf
    }

    /// Where the programs are, by interface.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attached.values().map(|attached| &attached.attachment)
    }

    /// Watches the connections of the whole host from the root of the cgroups that is mounted at `cgroup`, until this is
    /// dropped; connections that are there already are not seen.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn watch_connections(&mut self, cgroup: &Path) -> Result<Dialled, KernelError> {
        let dialled = take_map(&mut self.bpf, DIALLED, HashMap::try_from)?;
        self.sockops = Some(super::sockops::attach(&mut self.bpf, cgroup)?);
        Ok(Dialled::new(dialled))
    }

    /// The ring as a source of observations, once. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn source(&mut self) -> Result<RingSource, KernelError> {
        let ring = self.ring()?;
        RingSource::new(ring, take(&mut self.bpf, SLEEPING)?)
    }

    /// The ring itself, once, instead of [`source`](Self::source).
    ///
    /// # Errors
    /// When it was taken before.
    pub fn ring(&mut self) -> Result<Ring, KernelError> {
        take_ring(&mut self.bpf)
    }

    /// The writer of known IDs, once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn known(&mut self) -> Result<Known, KernelError> {
        take_known(&mut self.bpf)
    }

    /// The reader of counters, once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn counters(&mut self) -> Result<Counters, KernelError> {
        take_counters(&mut self.bpf)
    }

    /// The pump of the programs' own log lines, once. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn log(&mut self) -> Result<LogPump, KernelError> {
        LogPump::new(&mut self.bpf)
    }

    /// The kernel memory of the maps, in bytes; it never grows, but for what the redirect needs for each lease on offer.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let processors = aya::util::nr_cpus().unwrap_or(1) as u64;
        let known = u64::from(KNOWN_ENTRIES) * 8;
        let recent = u64::from(RECENT_ENTRIES) * size_of::<RecentSlot>() as u64;
        let counters = u64::from(COUNTERS_ENTRIES) * 8 * COUNTERS_LENGTH as u64 * processors;
        // Where records are made, one a hook.
        let making = 2 * size_of::<AnswerRecord>() as u64 * processors;
        let dialled = u64::from(DIALLED_ENTRIES) * super::sockops::ENTRY_BYTES;
        let redirected = if self.redirect { super::redirect::BYTES } else { 0 };
        u64::from(self.ring_bytes)
            + known
            + recent
            + counters
            + making
            + dialled
            + redirected
            + super::log::BYTES
            + super::answers::bytes(self.answers)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        if let Err(error) = self.detach_all() {
            tracing::warn!(%error, "the kernel programs could not be taken off");
        }
    }
}

/// Prepares the maps and globals of an object; no program is loaded yet.
pub(super) fn open(object: &[u8], settings: &Settings) -> Result<Ebpf, KernelError> {
    check_abi(object)?;
    let ticks = ticks_per_second()?;
    // Without /proc nothing tells the daemon's own look-ups from others', of which there are hardly any.
    let (device, inode) = std::fs::metadata("/proc/self/ns/pid").map_or((0, 0), |space| (space.dev(), space.ino()));
    let window = u64::try_from(settings.window.as_millis()).unwrap_or(u64::MAX).saturating_mul(ticks) / 1000;
    let only_if_wanted = |entries| if settings.answers > 0 { entries } else { 1 };
    EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global(KEY, settings.key.words(), true)
        .override_global(OWN_MARK, &settings.own_mark, true)
        .override_global(WINDOW, &window, true)
        .override_global(TICKS, &ticks, true)
        .map_max_entries(RING, settings.ring_bytes)
        .map_max_entries(REDIRECTED, if settings.redirect { REDIRECTED_ENTRIES } else { 1 })
        .map_max_entries(FLOWS, if settings.tproxy { FLOW_ENTRIES } else { 1 })
        .override_global(ANSWERING, &u32::from(settings.answers > 0), true)
        .map_max_entries(answers::SLOTS, settings.answers.clamp(1, SLOT_ENTRIES))
        .map_max_entries(answers::USES, settings.answers.clamp(1, SLOT_ENTRIES))
        .map_max_entries(answers::INDEX, only_if_wanted(INDEX_ENTRIES))
        .map_max_entries(answers::CLIENTS, only_if_wanted(CLIENT_ENTRIES))
        .map_max_entries(answers::LIMITS, only_if_wanted(LIMIT_ENTRIES))
        .map_max_entries(answers::SIGHTS, only_if_wanted(SIGHT_ENTRIES))
        .map_max_entries(answers::WANTED, if settings.answers > 0 { WANTED_BYTES } else { PAGE })
        .map_max_entries(LOOKUPS, if settings.lookups { LOOKUP_ENTRIES } else { 1 })
        .override_global(OWN_PROCESS, &std::process::id(), true)
        .override_global(OWN_PROCESSES[0], &device, true)
        .override_global(OWN_PROCESSES[1], &inode, true)
        .load(object)
        .map_err(KernelError::Prepare)
}

/// Loads one program.
pub(super) fn verify(bpf: &mut Ebpf, name: &'static str) -> Result<(), KernelError> {
    let refused = |source| KernelError::Refused { program: name, source: Box::new(source) };
    match bpf.program_mut(name) {
        Some(Program::Xdp(program)) => program.load().map_err(refused),
        Some(Program::SchedClassifier(program)) => program.load().map_err(refused),
        Some(Program::CgroupSockAddr(program)) => program.load().map_err(refused),
        Some(Program::SockOps(program)) => program.load().map_err(refused),
        Some(Program::UProbe(program)) => program.load().map_err(refused),
        _ => Err(refused(ProgramError::UnexpectedProgramType)),
    }
}

/// The kernel's HZ: the resolution of its coarse clock is one jiffy.
fn ticks_per_second() -> Result<u64, KernelError> {
    let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_err(KernelError::errno("clock_getres"))?;
    let nanos = u64::try_from(jiffy.tv_nsec()).unwrap_or(0).max(1);
    Ok((1_000_000_000 / nanos).max(1))
}

pub(super) fn take_ring(bpf: &mut Ebpf) -> Result<Ring, KernelError> {
    take_map(bpf, RING, RingBuf::try_from).map(Ring::new)
}

pub(super) fn take_counters(bpf: &mut Ebpf) -> Result<Counters, KernelError> {
    take_map(bpf, COUNTERS, PerCpuArray::try_from).map(Counters::new)
}

pub(super) fn take_known(bpf: &mut Ebpf) -> Result<Known, KernelError> {
    take(bpf, KNOWN).map(Known::new)
}

fn take(bpf: &mut Ebpf, name: &'static str) -> Result<Array<MapData, u64>, KernelError> {
    take_map(bpf, name, Array::try_from)
}

pub(super) fn take_map<T>(
    bpf: &mut Ebpf,
    name: &'static str,
    typed: impl FnOnce(Map) -> Result<T, MapError>,
) -> Result<T, KernelError> {
    let map = bpf.take_map(name).ok_or(KernelError::NoMap(name))?;
    typed(map).map_err(|source| KernelError::Map { map: name, source })
}
