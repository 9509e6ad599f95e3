#![no_main]

use libfuzzer_sys::fuzz_target;
use prewarm_tests::against;

fuzz_target!(|bytes: &[u8]| {
    against::answer(bytes);
});
