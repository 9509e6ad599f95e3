//! The socket's file: who may connect, and what an earlier daemon left behind.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Group, chown};
use tokio::net::{UnixListener, UnixStream};

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("another process answers on {0}\nhint: stop it, or name another socket")]
    Busy(PathBuf),
    /// Something else stands there.
    #[error("{0} is there, and is no socket\nhint: move it away, or name another socket")]
    Other(PathBuf),
    /// The file system said no.
    #[error("could not {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Listens at `path`, mode 0660, owned by `group` where that group exists.
///
/// # Errors
/// When another daemon answers there, or the file cannot be made.
pub async fn bind(path: &Path, group: &str) -> Result<UnixListener, SocketError> {
    let failed = |action| move |source| SocketError::File { action, path: path.to_path_buf(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("create the folder of"))?;
    }
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(SocketError::Other(path.to_path_buf()));
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(SocketError::Busy(path.to_path_buf()));
        }
        // Nobody listens: left by a daemon that was killed.
        fs::remove_file(path).map_err(failed("remove the stale"))?;
    }
    // Bound under another name with nobody's rights and moved into place when it has the right ones, so that there is
    // no moment at which a stranger can connect.
    let unborn = path.with_extension(format!("{}.new", std::process::id()));
    let listener = UnixListener::bind(&unborn).map_err(failed("bind"))?;
    let settle = || -> io::Result<()> {
        if let Ok(Some(group)) = Group::from_name(group) {
            chown(&unborn, None, Some(Gid::from_raw(group.gid.as_raw())))?;
        }
        fs::set_permissions(&unborn, fs::Permissions::from_mode(0o660))?;
        fs::rename(&unborn, path)
    };
    settle().map_err(|source| {
        drop(fs::remove_file(&unborn));
        failed("set the rights of")(source)
    })?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/control.sock");
        let first = bind(&path, "no-such-group").await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(bind(&path, "no-such-group").await, Err(SocketError::Busy(_))));
        drop(first);
        bind(&path, "no-such-group").await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "dear diary").unwrap();
        assert!(matches!(bind(&path, "no-such-group").await, Err(SocketError::Other(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "dear diary");
    }
}
