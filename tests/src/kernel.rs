//! What a test of the kernel programs needs, or why it can't run.

use prewarm_user::kernel::object;

/// Why the kernel programs can't be tested here; `None` when they can.
#[must_use]
pub fn missing() -> Option<&'static str> {
    if object().is_none() {
        return Some("built without the kernel programs (cargo xtask test builds them)");
    }
    (!nix::unistd::geteuid().is_root()).then_some("not root")
}
