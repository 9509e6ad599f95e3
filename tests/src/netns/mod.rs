//! Network namespaces with an owner.
//!
//! In: a role (`client`, `gateway`, …); out: a namespace named `pw-PID-N-ROLE` in which commands and closures run.
//! Dropping it ends every process still inside and removes the name. What an earlier, killed run left behind is found
//! by the PID in its name and removed before the first namespace is made.
//!
//! Commands enter by `setns` between fork and exec instead of `ip netns exec`, which remounts /sys and so hides the
//! cgroup mounts that prewarm needs. A namespace with a resolver of its own gives its commands a private mount
//! namespace in which that `resolv.conf` lies over the host's.

mod leftovers;
mod wiring;

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

pub use leftovers::{is_orphan, sweep};
pub use wiring::{Addresses, VethEnd, ip, veth};

/// Where iproute2 keeps the names.
const NAMES: &str = "/run/netns";

/// What all our names start with; the PID of the owner follows.
const PREFIX: &str = "pw-";

/// A name for something on the host (a namespace, a temporary file or folder) by which [`sweep`] finds it when this
/// process is killed.
pub fn owned_name(what: &str) -> String {
    format!("{PREFIX}{}-{what}", std::process::id())
}

/// A network namespace that is removed, with everything in it, when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
    resolver: Option<NamedTempFile>,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up.
    ///
    /// # Errors
    /// Without root, or when `ip` refuses.
    pub fn create(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep()?;
        let name = owned_name(&format!("{}-{role}", NEXT.fetch_add(1, Ordering::Relaxed)));
        ip(&["netns", "add", &name])?;
        let file = File::open(Path::new(NAMES).join(&name)).with_context(|| format!("open namespace {name}"))?;
        let namespace = Self { name, file, resolver: None };
        namespace.ip(&["link", "set", "lo", "up"])?;
        // A remembered round-trip time or window of an earlier connection would make a later one start ahead.
        namespace.sysctl("net/ipv4/tcp_no_metrics_save", "1")?;
        Ok(namespace)
    }

    /// The name under `/run/netns`, for `ip -n NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes commands of this namespace see a `resolv.conf` with this one name server.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn set_resolver(&mut self, server: IpAddr) -> Result<()> {
        let file = NamedTempFile::with_prefix(format!("{}-resolv-", self.name))?;
        fs::write(file.path(), format!("nameserver {server}\noptions timeout:2 attempts:2\n"))?;
        // Daemons that drop their privileges read it too.
        fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        self.resolver = Some(file);
        Ok(())
    }

    /// Runs `ip` on this namespace.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments);
        ip(&all)
    }

    /// Sets a network sysctl (a path below `/proc/sys`) of this namespace.
    ///
    /// # Errors
    /// When the kernel has no such setting or refuses the value.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let file = Path::new("/proc/sys").join(path);
        self.enter(|| fs::write(&file, value).with_context(|| format!("write {value} to {}", file.display())))
    }

    /// Runs a closure on a thread that lives in this namespace, and waits for it.
    ///
    /// Sockets and TUN devices it opens belong to this namespace for good. Don't start processes here: they are told to
    /// die with the thread that started them ([`Self::command`]).
    ///
    /// # Errors
    /// When the namespace can't be entered, when the closure fails or panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", self.name))?;
                    work()
                })
                .join()
                .map_err(|_| anyhow!("a closure panicked in namespace {}", self.name))?
        })
    }

    /// A command that will run in this namespace, die with the thread that starts it, and read this namespace's
    /// `resolv.conf`.
    ///
    /// # Panics
    /// When the path of a temporary file has a zero byte.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let namespace = self.file.try_clone().expect("duplicate a namespace descriptor");
        let resolver = self
            .resolver
            .as_ref()
            .map(|file| CString::new(file.path().as_os_str().as_bytes()).expect("a temporary path has no zero byte"));
        let mut command = Command::new(program);
        let enter = move || -> io::Result<()> {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            if let Some(resolver) = &resolver {
                unshare(CloneFlags::CLONE_NEWNS)?;
                let none = None::<&std::ffi::CStr>;
                mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
                mount(Some(resolver.as_c_str()), c"/etc/resolv.conf", none, MsFlags::MS_BIND, none)?;
            }
            Ok(())
        };
        #[expect(unsafe_code, reason = "the only way to run something between fork and exec")]
        // SAFETY: the closure makes system calls on descriptors and strings made before the fork; it takes no lock and
        // allocates nothing, so the state of other threads at the fork doesn't matter.
        unsafe {
            command.pre_exec(enter)
        };
        command
    }

    fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        leftovers::remove(&self.path());
    }
}
