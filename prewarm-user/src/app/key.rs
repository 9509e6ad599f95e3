//! The key of the resource IDs: made once an installation, read at every start.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, bail};

/// Bytes of the key file.
pub(super) const LENGTH: usize = 32;

/// Reads the key in `state`, or makes one where there is none.
///
/// # Errors
/// When the folder or file cannot be used; a file of another length is never overwritten.
pub(super) fn read_or_make(state: &Path) -> anyhow::Result<[u8; LENGTH]> {
    let path = state.join("key");
    let shown = path.display();
    match fs::read(&path) {
        Ok(bytes) => match bytes.try_into() {
            Ok(key) => return Ok(key),
            Err(bytes) => bail!(
                "{shown} holds {} bytes, not {LENGTH}\nhint: remove it, and a new one is made (what was learnt under \
                 the old one is of no use)",
                Vec::len(&bytes)
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("could not read {shown}")),
    }
    fs::create_dir_all(state).with_context(|| {
        format!("could not create {}\nhint: name a folder that can be written with --state", state.display())
    })?;
    let mut key = [0; LENGTH];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .context("could not read /dev/urandom")?;
    // Written whole under another name, so that a crash leaves no half key.
    let unborn = state.join(format!("key.{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unborn)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&unborn, &path)
    };
    write()
        .with_context(|| format!("could not write {shown}\nhint: name a folder that can be written with --state"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let first = read_or_make(&state).unwrap();
        assert_eq!(read_or_make(&state).unwrap(), first);
        assert_ne!(first, [0; LENGTH]);
        assert_eq!(fs::metadata(state.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("key"), b"short").unwrap();
        let error = read_or_make(folder.path()).unwrap_err().to_string();
        assert!(error.contains("5 bytes") && error.contains("hint"), "{error}");
        assert_eq!(fs::read(folder.path().join("key")).unwrap(), b"short");
    }
}
