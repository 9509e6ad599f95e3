//! Cgroups of the second version: what they are called in the kernel, and programs on them.
//!
//! Comes in: folders of the cgroup2 file system. Goes out: their numbers, and attachments that end with a descriptor.
//! Never here: which cgroup is meant, or a pin.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;
/// Asks for what runs at a cgroup, wherever above it was attached.
const EFFECTIVE: u32 = 1;
/// More programs of one kind than anybody attaches to a cgroup and those above it.
const MANY: usize = 256;

/// A folder of the cgroup2 file system, open.
#[derive(Debug)]
pub struct Cgroup {
    folder: File,
    path: PathBuf,
    id: u64,
}

impl Cgroup {
    /// Opens one.
    ///
    /// # Errors
    /// When it isn't there, or is no cgroup of the second version.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = File::open(path)?;
        if fstatfs(&folder)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a folder of the cgroup2 file system"));
        }
        let id = folder.metadata()?.ino();
        Ok(Self { folder, path: path.to_owned(), id })
    }

    /// The number by which the kernel knows it.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still what stands at its path; one that was removed and made again is another.
    #[must_use]
    pub fn is_current(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|now| now.ino() == self.id)
    }

    /// How many levels it lies below the root of all, if that root can be seen from here.
    #[must_use]
    pub fn level(&self) -> Option<u32> {
        // The root of all has the first inode; that of a container's view has another.
        const ROOT: u64 = 1;
        let path = self.path.canonicalize().ok()?;
        let above = path.ancestors().position(|folder| std::fs::metadata(folder).is_ok_and(|it| it.ino() == ROOT))?;
        let root = path.ancestors().nth(above)?;
        let is_ours = File::open(root).and_then(|root| Ok(fstatfs(&root)?.filesystem_type() == CGROUP2_SUPER_MAGIC));
        if is_ours.unwrap_or(false) { u32::try_from(above).ok() } else { None }
    }

    /// Attaches a program here; it is gone when the descriptor is closed, by whatever way that happens.
    pub(super) fn attach(&self, program: BorrowedFd<'_>, kind: u32) -> io::Result<OwnedFd> {
        #[repr(C)]
        struct LinkCreate {
            program: RawFd,
            target: RawFd,
            kind: u32,
            flags: u32,
        }
        let mut request = LinkCreate { program: program.as_raw_fd(), target: self.folder.as_raw_fd(), kind, flags: 0 };
        let link = bpf(BPF_LINK_CREATE, &mut request)?;
        let link = RawFd::try_from(link).map_err(|_| io::ErrorKind::InvalidData)?;
        #[expect(unsafe_code, reason = "the system call gives a number")]
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(link) })
    }

    /// The programs of a kind that run for whoever is in here.
    pub(super) fn effective(&self, kind: u32) -> io::Result<Vec<u32>> {
        #[repr(C)]
        struct Query {
            target: RawFd,
            kind: u32,
            query_flags: u32,
            attach_flags: u32,
            programs: u64,
            count: u32,
            padding: u32,
        }
        let mut found = [0_u32; MANY];
        let mut request = Query {
            target: self.folder.as_raw_fd(),
            kind,
            query_flags: EFFECTIVE,
            attach_flags: 0,
            programs: found.as_mut_ptr() as u64,
            count: MANY as u32,
            padding: 0,
        };
        bpf(BPF_PROG_QUERY, &mut request)?;
        Ok(found[..MANY.min(request.count as usize)].to_vec())
    }
}

/// The first cgroup2 mount, from the text of `/proc/self/mounts`.
#[must_use]
pub fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        // Spaces and the like are written as octal numbers there (fstab(5)); folders of cgroups have none.
        (fields.next() == Some("cgroup2") && !path.contains('\\')).then(|| PathBuf::from(path))
    })
}

fn bpf<T>(command: libc::c_long, request: &mut T) -> io::Result<libc::c_long> {
    #[expect(unsafe_code, reason = "aya has neither of these two commands for cgroups")]
    // SAFETY: the request is of the layout that the command takes, of the size given, and what it points at lives and
    // is writable for as many entries as it says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(request), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_in_a_hybrid_hierarchy_too() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_mount(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn other_folders_are_refused() {
        assert!(Cgroup::open(Path::new("/proc")).is_err());
        assert!(Cgroup::open(Path::new("/sys/fs/cgroup/no such cgroup")).is_err());
    }

    #[test]
    fn levels_count_from_the_root_of_all() {
        let Some(mount) = crate::kernel::cgroup_mount() else { return };
        let root = Cgroup::open(&mount).unwrap();
        if root.id() == 1 {
            assert_eq!(root.level(), Some(0));
            assert!(root.is_current());
        }
    }
}
