//! The `prewarm` binary.
fn main() {}
