//! A cgroup with an owner: a folder of the cgroup2 file system in which commands are started.
//!
//! In: a role; out: a cgroup `pw-PID-N-ROLE`, whose commands the daemon may be told to redirect. Dropping it ends what
//! still runs inside and removes it; what a killed run left is found by the PID in its name and removed before the next
//! one is made.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{self, Pid};

use crate::clock;
use crate::netns::{is_orphan, owned_name};

/// How long processes of a cgroup may take to be gone after SIGKILL.
const GONE_WITHIN: Duration = Duration::from_secs(3);

/// A cgroup that is removed, with everything in it, when this is dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup at the root of the cgroup2 file system.
    ///
    /// # Errors
    /// Without root, or where no cgroup2 is mounted.
    pub fn create(role: &str) -> Result<Self> {
        let root = root()?;
        sweep(&root);
        Self::at(root, role)
    }

    /// Makes a cgroup inside this one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn inner(&self, role: &str) -> Result<Self> {
        Self::at(self.path.clone(), role)
    }

    fn at(parent: PathBuf, role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = parent.join(owned_name(&format!("{}-{role}", NEXT.fetch_add(1, Ordering::Relaxed))));
        fs::create_dir(&path).with_context(|| format!("make the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a command run here, with all its children.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn adopt(&self, command: &mut Command) -> Result<()> {
        let members: File = OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?;
        let join = move || {
            // 0 is whoever writes.
            unistd::write(&members, b"0")?;
            Ok(())
        };
        #[expect(unsafe_code, reason = "the only way to run something between fork and exec")]
        // SAFETY: the closure makes one system call on a descriptor that was opened before the fork.
        unsafe {
            command.pre_exec(join)
        };
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Where cgroup2 is mounted: at `/sys/fs/cgroup`, or beside the older hierarchies.
///
/// # Errors
/// Where it isn't mounted.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let place = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    place.context("no cgroup2 is mounted here")
}

/// Removes what killed runs left.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten().filter(|entry| is_orphan(&entry.file_name().to_string_lossy())) {
        remove(&entry.path());
    }
}

/// Ends what runs in a cgroup and in those inside it, and removes them. Called from drops, so what can't be done is
/// left to the next [`sweep`].
fn remove(path: &Path) {
    for inner in fs::read_dir(path).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove(&inner.path());
    }
    let _gone = clock::wait_for("processes of a cgroup to end", GONE_WITHIN, || {
        let members = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|line| line.parse().ok()) {
            // One that ended meanwhile is what we want.
            let _ended = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        Ok((members.is_empty() && fs::remove_dir(path).is_ok()).then_some(()))
    });
}
