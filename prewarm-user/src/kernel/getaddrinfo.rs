//! The programs at `getaddrinfo` in the C libraries of this host, from user space.
//!
//! Comes in: libraries, or none to have them found. Goes out: look-ups as programs made them. Never here: a library's
//! file changed (the kernel puts its breakpoints into memory), or a link that outlives the daemon.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::Read as _,
    net::IpAddr,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::{
        UProbe,
        uprobe::{UProbeLink, UProbeScope},
    },
};
use bytemuck::pod_read_unaligned;
use prewarm_ebpf::getaddrinfo::{
    GETADDRINFO, LOOKUP_ANSWERED, LOOKUP_ASKED, LOOKUP_COUNTERS, LOOKUP_COUNTERS_LENGTH, LOOKUP_RING, LookupCounter,
    LookupRecord,
};
use tokio::io::unix::AsyncFd;

use super::{
    KernelError, Programs, Settings,
    programs::{self, verify},
    record::address,
    ring::readable,
};
use crate::model::Timestamp;

/// The programs, each at both ends of the function.
const PROGRAMS: [&str; 2] = [LOOKUP_ASKED, LOOKUP_ANSWERED];
/// Records taken at once at most.
const BATCH: usize = 256;

/// A look-up that came back to its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// When it was asked.
    pub asked: Timestamp,
    /// When it came back.
    pub answered: Timestamp,
    /// The process, as this one would number it; none for one of another PID namespace.
    pub process: Option<u32>,
    /// 0, or one of the library's error numbers.
    pub code: i32,
    /// The name as the program wrote it.
    pub name: Vec<u8>,
    /// The addresses, each once, in the list's order.
    pub addresses: Vec<IpAddr>,
}

/// What the programs counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupCounts {
    /// Look-ups that came back.
    pub seen: u64,
    /// Records that the ring had no room for.
    pub lost: u64,
    /// Names that could not be read.
    pub unreadable: u64,
    /// Look-ups of the daemon itself.
    pub own: u64,
}

/// The programs in the libraries, for as long as this lives.
pub struct Lookups {
    ring: AsyncFd<LookupRing>,
    counters: PerCpuArray<MapData, [u64; LOOKUP_COUNTERS_LENGTH]>,
    libraries: Vec<PathBuf>,
    _links: Vec<UProbeLink>,
}

struct LookupRing(RingBuf<MapData>);

impl AsRawFd for LookupRing {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Programs {
    /// Watches `getaddrinfo` in these libraries, or where none is named in those that are found, until what comes back
    /// is dropped. Must be called inside a tokio runtime, once.
    ///
    /// # Errors
    /// When the kernel refuses, a named library can't be watched, or none is found that can.
    pub fn watch_lookups(&mut self, libraries: &[PathBuf]) -> Result<Lookups, KernelError> {
        let (libraries, links) = attach(self.bpf(), libraries)?;
        let ring = programs::take_map(self.bpf(), LOOKUP_RING, RingBuf::try_from)?;
        let counters = programs::take_map(self.bpf(), LOOKUP_COUNTERS, PerCpuArray::try_from)?;
        Ok(Lookups { ring: readable(LookupRing(ring))?, counters, libraries, _links: links })
    }
}

impl Lookups {
    /// The libraries that are watched.
    #[must_use]
    pub fn libraries(&self) -> &[PathBuf] {
        &self.libraries
    }

    /// Waits for look-ups and appends those that are there, oldest first. Cancelling the future loses nothing.
    ///
    /// # Errors
    /// When the ring can't be waited for.
    pub async fn fill(&mut self, batch: &mut Vec<Lookup>) -> Result<(), KernelError> {
        loop {
            let mut ready = self.ring.readable_mut().await.map_err(KernelError::system("epoll"))?;
            let before = batch.len();
            while batch.len() - before < BATCH {
                let Some(item) = ready.get_inner_mut().0.next() else {
                    ready.clear_ready();
                    break;
                };
                batch.extend(lookup(&item));
            }
            if batch.len() > before {
                return Ok(());
            }
        }
    }

    /// What the programs counted since they were loaded, on all processors.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn counts(&self) -> Result<LookupCounts, KernelError> {
        let values = self.counters.get(&0, 0).map_err(|source| KernelError::Map { map: LOOKUP_COUNTERS, source })?;
        let sum = |counter: LookupCounter| values.iter().filter_map(|cpu| cpu.get(counter as usize)).sum();
        Ok(LookupCounts {
            seen: sum(LookupCounter::Seen),
            lost: sum(LookupCounter::RingLost),
            unreadable: sum(LookupCounter::Unreadable),
            own: sum(LookupCounter::Own),
        })
    }
}

impl std::fmt::Debug for Lookups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookups").field("libraries", &self.libraries).finish_non_exhaustive()
    }
}

/// Tries whether the programs can be put into this host's libraries, and takes them out again.
///
/// # Errors
/// When they can't.
pub fn probe_lookups(object: &[u8]) -> Result<Vec<PathBuf>, KernelError> {
    let settings = Settings::new(super::Key::from_secret(&[0; 32]));
    let mut bpf = programs::open(object, &settings)?;
    attach(&mut bpf, &[]).map(|(libraries, _links)| libraries)
}

fn attach(bpf: &mut Ebpf, libraries: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<UProbeLink>), KernelError> {
    for program in PROGRAMS {
        verify(bpf, program)?;
    }
    let named = !libraries.is_empty();
    let candidates = if named { libraries.to_vec() } else { installed() };
    let (mut watched, mut links, mut refused) = (Vec::new(), Vec::new(), None);
    for library in candidates {
        match enter(bpf, &library) {
            Ok(both) => {
                links.extend(both);
                watched.push(library);
            }
            Err(error) if named => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "a library is not watched");
                refused = Some(error);
            }
        }
    }
    if watched.is_empty() {
        return Err(refused.unwrap_or(KernelError::NoLibrary));
    }
    Ok((watched, links))
}

/// Puts both programs into one library.
fn enter(bpf: &mut Ebpf, library: &Path) -> Result<Vec<UProbeLink>, KernelError> {
    let link = |program: &'static str| {
        let error = |source| KernelError::Attach {
            program,
            interface: library.display().to_string(),
            source: Box::new(source),
        };
        let probe: &mut UProbe =
            bpf.program_mut(program).ok_or(KernelError::NoMap(program))?.try_into().map_err(error)?;
        let id = probe.attach(GETADDRINFO, library, UProbeScope::AllProcesses).map_err(error)?;
        probe.take_link(id).map_err(error)
    };
    PROGRAMS.map(link).into_iter().collect()
}

/// The C libraries that are installed, each once, of the kind of machine that the daemon runs on.
fn installed() -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    for folder in ["/lib", "/usr/lib", "/lib64", "/usr/lib64"].map(Path::new) {
        candidates.push(folder.join("libc.so.6"));
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with("ld-musl-") && name.ends_with(".so.1") {
                candidates.push(entry.path());
            } else if name.ends_with("-linux-gnu") {
                candidates.push(entry.path().join("libc.so.6"));
            } else if name.ends_with("-linux-musl") {
                candidates.push(entry.path().join("libc.so"));
            }
        }
    }
    let ours = kind(Path::new("/proc/self/exe"));
    let mut seen = HashSet::new();
    candidates.retain(|path| {
        let file = fs::metadata(path).map(|file| (file.dev(), file.ino()));
        file.is_ok_and(|file| kind(path) == ours && seen.insert(file))
    });
    candidates
}

/// What kind of machine an ELF file is for: its class, byte order and number.
fn kind(path: &Path) -> Option<[u8; 4]> {
    let mut head = [0; 20];
    File::open(path).ok()?.read_exact(&mut head).ok()?;
    (head[..4] == *b"\x7fELF").then_some([head[4], head[5], head[18], head[19]])
}

fn lookup(bytes: &[u8]) -> Option<Lookup> {
    let record: LookupRecord = (bytes.len() == size_of::<LookupRecord>()).then(|| pod_read_unaligned(bytes))?;
    let held = record.addresses.get(..usize::from(record.addresses_held))?;
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(held.len());
    for &bytes in held {
        let address = address(bytes);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Some(Lookup {
        asked: Timestamp::from_nanos(record.asked),
        answered: Timestamp::from_nanos(record.answered),
        process: Some(record.process).filter(|&process| process != 0),
        code: record.code,
        name: record.name.get(..usize::from(record.name_length))?.to_vec(),
        addresses,
    })
}

#[cfg(test)]
mod tests {
    use bytemuck::bytes_of;

    use super::*;

    #[test]
    fn this_programs_own_library_is_found() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let own = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc.so"));
        let Some(own) = own else { return };
        let file = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        let found = installed();
        assert!(found.iter().any(|path| file(path) == file(Path::new(own))), "{own} is not in {found:?}");
    }

    #[test]
    fn records_become_lookups() {
        let mut record: LookupRecord = bytemuck::Zeroable::zeroed();
        (record.asked, record.answered, record.name_length, record.addresses_held) = (5, 9, 4, 3);
        record.name[..5].copy_from_slice(b"a.b.\0");
        let one = "192.0.2.1".parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped().octets();
        record.addresses[..3].copy_from_slice(&[one, [1; 16], one]);
        let read = lookup(bytes_of(&record)).unwrap();
        assert_eq!((read.name.as_slice(), read.process, read.addresses.len()), (&b"a.b."[..], None, 2));
        assert_eq!(read.addresses[0], "192.0.2.1".parse::<IpAddr>().unwrap());
        record.addresses_held = 9;
        assert_eq!(lookup(bytes_of(&record)), None);
        assert_eq!(lookup(&[0; 8]), None);
    }
}
