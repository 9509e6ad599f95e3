// What every target does: it reads to the end. Each observation needs some bytes, so their number tells an endless loop.

use std::path::Path;

use prewarm_user::{
    kernel::Key,
    observe::recording::{Format, Recording},
};

/// Reads bytes as a recording of this format.
pub fn exhaust(bytes: &[u8], format: Format) {
    let key = Key::from_secret(&[7; 32]);
    let Ok(mut recording) = Recording::of_bytes(Path::new("fuzzed"), bytes.to_vec(), Some(format), &key) else {
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
