#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prewarm_tests::against;
use prewarm_user::kernel::Key;

/// Made once, since that takes longer than most runs.
static KEY: LazyLock<Key> = LazyLock::new(against::key);

fuzz_target!(|bytes: &[u8]| against::parser(bytes, KEY.words()));
