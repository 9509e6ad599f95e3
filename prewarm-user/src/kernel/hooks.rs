//! The loaded programs and where they are attached.

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
};
use prewarm_ebpf::{
    HashKey, KEY_WORDS,
    abi::{COUNTERS, COUNTERS_LENGTH, KEY, KNOWN, OWN_MARK, RING, SLEEPING, TICKS, WINDOW},
};

use super::{
    Attachment, KernelCounters, KernelError, KnownNames, RingSource,
    attach::{self, Attached, Wanted},
    object, ticks,
};
use crate::config::CaptureSettings;

/// What the programs are loaded with.
#[derive(Clone, Debug)]
pub struct HooksOptions {
    /// The key of the resource IDs.
    pub key: HashKey,
    /// The mark of prewarm's own questions.
    pub own_mark: u32,
    /// Takes clsact even where there is tcx, as on kernels before 6.6.
    pub clsact_only: bool,
    /// Which hooks, and how.
    pub capture: CaptureSettings,
}

impl HooksOptions {
    /// The words of the hash key, drawn from an installation's key by SipHash-2-4 as a pseudo-random function.
    #[must_use]
    pub fn hash_key(installation: &[u8; 32]) -> HashKey {
        use std::hash::Hasher as _;
        let (one, two) = installation.split_at(16);
        let word = |half: &[u8], index: usize| {
            let mut key = [0; 16];
            key.copy_from_slice(half);
            let mut hasher = siphasher::sip::SipHasher24::new_with_key(&key);
            hasher.write(b"prewarm resource id");
            hasher.write_usize(index);
            hasher.finish()
        };
        let mut words = [0; KEY_WORDS];
        for (index, slot) in words.iter_mut().enumerate() {
            *slot = word(one, index) ^ word(two, index);
        }
        words
    }
}

/// The programs. When this is dropped, nothing of them is left.
pub struct Hooks {
    ebpf: Ebpf,
    attached: Vec<Attached>,
    counters: PerCpuArray<MapData, [u64; COUNTERS_LENGTH]>,
    known: KnownNames,
    options: HooksOptions,
}

impl Hooks {
    /// Loads the programs and gives the reader of their ring; nothing is attached yet. Takes about 1.6 MiB of kernel
    /// memory, mostly the ring.
    ///
    /// # Errors
    /// When this binary carries none, or the kernel refuses them.
    pub fn load(options: HooksOptions) -> Result<(Self, RingSource), KernelError> {
        let object = object().ok_or(KernelError::NoObject)?;
        object::check_version(object)?;
        let ticks = ticks::per_second();
        let window = u64::from(options.capture.fold_ms) * ticks / 1000;
        let mut ebpf = EbpfLoader::new()
            .override_global(KEY, &options.key, true)
            .override_global(OWN_MARK, &options.own_mark, true)
            .override_global(WINDOW, &window.max(1), true)
            .override_global(TICKS, &ticks, true)
            .load(object)
            .map_err(|error| KernelError::refused("load the kernel programs")(error.into()))?;
        attach::xdp(&mut ebpf)?.load().map_err(|error| KernelError::refused("load the XDP program")(error.into()))?;
        attach::classifier(&mut ebpf)?
            .load()
            .map_err(|error| KernelError::refused("load the egress program")(error.into()))?;
        let counters = map(&mut ebpf, COUNTERS, PerCpuArray::try_from)?;
        let known = KnownNames::new(map(&mut ebpf, KNOWN, Array::try_from)?);
        let sleeping = map(&mut ebpf, SLEEPING, Array::try_from)?;
        let source = RingSource::new(map(&mut ebpf, RING, RingBuf::try_from)?, sleeping)?;
        Ok((Self { ebpf, attached: Vec::new(), counters, known, options }, source))
    }

    /// Attaches to an interface of the current network namespace.
    ///
    /// # Errors
    /// When it is not there, is attached already, or the kernel refuses every way.
    pub fn attach(&mut self, interface: &str) -> Result<Attachment, KernelError> {
        if self.attached.iter().any(|attached| attached.view.interface == interface) {
            return Err(KernelError::State { interface: interface.to_owned(), state: "already" });
        }
        let capture = &self.options.capture;
        let wanted = Wanted {
            ingress: capture.ingress.then_some(capture.xdp),
            egress: capture.egress,
            clsact_only: self.options.clsact_only,
        };
        let attached = attach::attach(&mut self.ebpf, interface, wanted)?;
        let view = attached.view.clone();
        self.attached.push(attached);
        Ok(view)
    }

    /// Detaches from an interface.
    ///
    /// # Errors
    /// When it is not attached.
    pub fn detach(&mut self, interface: &str) -> Result<(), KernelError> {
        let not = || KernelError::State { interface: interface.to_owned(), state: "not" };
        let index = self.attached.iter().position(|a| a.view.interface == interface).ok_or_else(not)?;
        attach::detach(&mut self.ebpf, self.attached.remove(index));
        Ok(())
    }

    /// Detaches from everything.
    pub fn detach_all(&mut self) {
        for attached in self.attached.drain(..) {
            attach::detach(&mut self.ebpf, attached);
        }
    }

    /// Where the programs are attached.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        self.attached.iter().map(|attached| attached.view.clone()).collect()
    }

    /// The table of names that need not travel.
    pub const fn known(&mut self) -> &mut KnownNames {
        &mut self.known
    }

    /// What the programs counted.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn counters(&self) -> Result<KernelCounters, KernelError> {
        KernelCounters::read(&self.counters)
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").field("attached", &self.attached).finish_non_exhaustive()
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        // Links go with their descriptors, a clsact filter does not.
        self.detach_all();
    }
}

fn map<T, E: std::error::Error + Send + Sync + 'static>(
    ebpf: &mut Ebpf,
    name: &str,
    open: impl FnOnce(aya::maps::Map) -> Result<T, E>,
) -> Result<T, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Version { found: None })?;
    open(map).map_err(|error| KernelError::refused(format!("open the map {name}"))(error.into()))
}
