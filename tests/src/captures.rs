//! Captures to test with: few of our own, and those that lie beside the repository on some machines.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prewarm_user::observe::{Capture, ETHERNET};

/// The folder of our own captures.
#[must_use]
pub fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// The folder of captures of other projects, beside the repository or a folder above.
#[must_use]
pub fn shared() -> Option<PathBuf> {
    recorded().map(|folder| folder.join("pcaps")).filter(|folder| folder.join("expected").is_dir())
}

/// The folder of recorded data, `shared/data` beside the repository or in a folder above.
#[must_use]
pub fn recorded() -> Option<PathBuf> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.map(|folder| folder.join("shared/data")).find(|folder| folder.is_dir())
}

/// The Ethernet frames of all captures there are, with a name for messages.
#[must_use]
pub fn frames() -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = [Some(own()), shared()]
        .into_iter()
        .flatten()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_str().is_some_and(|path| path.contains(".pcap")))
        .collect();
    paths.sort();
    let mut frames = Vec::new();
    for path in paths {
        let Ok(mut capture) = Capture::open(&path) else { continue };
        while let Ok(Some(frame)) = capture.next_frame() {
            if frame.link_type == ETHERNET {
                frames.push((format!("{} frame {}", path.display(), frame.number), frame.bytes.to_vec()));
            }
        }
    }
    frames
}
