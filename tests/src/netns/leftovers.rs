//! Removing: a namespace at its end, and what runs left behind that were killed before they could.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::{NAMES, PREFIX, ip};
use crate::clock;

/// How long processes of a namespace may take to be gone after SIGKILL.
const GONE_WITHIN: Duration = Duration::from_secs(3);

/// Removes every namespace of ours whose owner is dead, with the processes still inside, and its temporary files.
///
/// # Errors
/// When `/run/netns` is there and can't be read.
pub fn sweep() -> Result<()> {
    for path in orphans(Path::new(NAMES))? {
        remove(&path);
    }
    for path in orphans(&std::env::temp_dir())? {
        // Anybody can write there: what another user named like ours is not touched, links are not followed.
        let Ok(file) = fs::symlink_metadata(&path) else { continue };
        if file.uid() == geteuid().as_raw() {
            let _removed = if file.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
    Ok(())
}

/// What carries our name in a folder while the process in that name is dead.
fn orphans(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("read {}", folder.display()))?,
    };
    let orphans = entries.flatten().filter(|entry| is_orphan(&entry.file_name().to_string_lossy()));
    Ok(orphans.map(|entry| entry.path()).collect())
}

/// Ends what runs in the namespace and removes its name. Called from drops, so what can't be done is left to the next
/// [`sweep`].
pub(super) fn remove(path: &Path) {
    let Ok(inode) = fs::metadata(path).map(|metadata| metadata.ino()) else { return };
    let _all_gone = clock::wait_for("processes of a namespace to end", GONE_WITHIN, || {
        let inside = inhabitants(inode);
        for &pid in &inside {
            // One that ended meanwhile is what we want.
            let _ended = kill(pid, Signal::SIGKILL);
        }
        Ok(inside.is_empty().then_some(()))
    });
    if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
        let _removed = ip(&["netns", "del", name]);
    }
}

/// Whether a name is ours and the process in it is dead.
pub fn is_orphan(name: &str) -> bool {
    owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// The PID in a name that is ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// The processes whose network namespace is this one. Zombies have none any more.
fn inhabitants(inode: u64) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|metadata| metadata.ino() == inode))
        .map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn only_our_names_have_an_owner() {
        assert_eq!(owner("pw-12-0-client"), Some(12));
        assert_eq!(owner("pw--0-client"), None);
        assert_eq!(owner("pw-x"), None);
        assert_eq!(owner("12-pw"), None);
    }
}
