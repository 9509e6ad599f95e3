// What every target does: it reads to the end. Each observation needs some bytes, so their number tells an endless loop.

use std::{path::Path, sync::LazyLock};

use prewarm_user::{
    kernel::Key,
    observe::recording::{Format, Recording},
};

/// Made once, since that takes longer than most runs.
static KEY: LazyLock<Key> = LazyLock::new(|| Key::from_secret(&[7; 32]));

/// Reads bytes as a recording of this format.
pub fn exhaust(bytes: &[u8], format: Format) {
    let Ok(mut recording) = Recording::of_bytes(Path::new("fuzzed"), bytes.to_vec(), Some(format), &KEY) else {
        return;
    };
    // What is compressed may be a thousand times as long.
    let most = if bytes.starts_with(&[0x1f, 0x8b]) { 4096 } else { 4 } * bytes.len() + 16;
    let mut count = 0;
    while let Ok(Some(_)) = recording.next_observation() {
        count += 1;
        assert!(count <= most, "more observations than {} bytes have room for", bytes.len());
    }
}
