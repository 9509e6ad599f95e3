//! Puts the kernel programs into the binary when `PREWARM_BPF_OBJECT` names their object file (`cargo xtask build`
//! sets it); without it everything else still builds.

use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=PREWARM_BPF_OBJECT");
    println!("cargo::rustc-check-cfg=cfg(prewarm_programs)");
    let Some(object) = env::var_os("PREWARM_BPF_OBJECT").filter(|object| !object.is_empty()) else { return Ok(()) };
    let object = PathBuf::from(object);
    println!("cargo::rerun-if-changed={}", object.display());
    let target = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("prewarm.bpf.o");
    fs::copy(&object, &target).map_err(|error| format!("{}: {error}", object.display()))?;
    println!("cargo::rustc-cfg=prewarm_programs");
    Ok(())
}
