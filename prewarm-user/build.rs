//! Embeds the kernel programs when `cargo xtask build` has built them.
//!
//! Comes in: `PREWARM_BPF_OBJECT`, the path of the object. Goes out: a copy in `OUT_DIR` and `cfg(bpf_object)`. Without
//! the variable the crate builds all the same, and `prewarm_user::kernel::object()` is `None`.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rustc-check-cfg=cfg(bpf_object)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PREWARM_BPF_OBJECT");
    let Some(object) = env::var_os("PREWARM_BPF_OBJECT").filter(|path| !path.is_empty()) else { return Ok(()) };
    let object = PathBuf::from(object);
    println!("cargo::rerun-if-changed={}", object.display());
    let copy = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("prewarm.bpf.o");
    fs::copy(&object, &copy).map_err(|error| format!("PREWARM_BPF_OBJECT={}: {error}", object.display()))?;
    println!("cargo::rustc-cfg=bpf_object");
    Ok(())
}
