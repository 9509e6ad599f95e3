//! A cgroup of a test's own: made below the root of the cgroup2 mount, gone when dropped.
//!
//! Comes in: commands. Goes out: the same, started inside. Never here: a process that was there before.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use prewarm_tests::{clock, netns::owned_name};
use prewarm_user::kernel::cgroup_mount;

/// How long processes that were killed may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// A cgroup that is removed, with every process in it, when this is dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one.
    ///
    /// # Errors
    /// Without root, or where cgroup2 is not mounted.
    pub(crate) fn create(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mount = cgroup_mount().context("cgroup2 is not mounted")?;
        let name = owned_name(&format!("{}-{role}", NEXT.fetch_add(1, Ordering::Relaxed)));
        Self::make(mount.join(name))
    }

    /// Makes one below.
    ///
    /// # Errors
    /// When it is there already.
    pub(crate) fn child(&self, name: &str) -> Result<Self> {
        Self::make(self.path.join(name))
    }

    fn make(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("make the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes it away and makes another in its place.
    ///
    /// # Errors
    /// While there are processes in it.
    pub(crate) fn make_anew(&self) -> Result<()> {
        clock::wait_for("the cgroup to be empty", LEAVE_WITHIN, || Ok(fs::remove_dir(&self.path).ok()))?;
        fs::create_dir(&self.path).with_context(|| format!("make the cgroup {}", self.path.display()))
    }

    /// Makes a command start inside.
    pub(crate) fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let procs = self.path.join("cgroup.procs");
        // SAFETY: between fork and exec only a file is opened and written, with memory that was taken before.
        #[expect(unsafe_code, reason = "the only way to run something between fork and exec")]
        unsafe {
            command.pre_exec(move || fs::write(&procs, "0"))
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Only who was started here is here.
        let _killed = fs::write(self.path.join("cgroup.kill"), "1");
        let removed = clock::wait_for("the cgroup to be empty", LEAVE_WITHIN, || Ok(fs::remove_dir(&self.path).ok()));
        if let Err(error) = removed
            && self.path.exists()
        {
            let _written = writeln!(std::io::stderr(), "{} is left behind: {error}", self.path.display());
        }
    }
}
