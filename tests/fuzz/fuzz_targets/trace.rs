#![no_main]

mod exhaust;

use libfuzzer_sys::fuzz_target;
use prewarm_user::observe::recording::Format;

fuzz_target!(|bytes: &[u8]| exhaust::exhaust(bytes, Format::Trace));
