//! Builds the kernel programs.
//!
//! Comes in: the workspace and the name of a rustup toolchain that has the library's source. Goes out: the object for
//! `PREWARM_BPF_OBJECT`. Never here: installing what is missing; that is `setup`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// The target of the programs; every machine we run on is little-endian.
const TARGET: &str = "bpfel-unknown-none";

/// Builds the kernel programs with `toolchain` and gives the path of the object,
/// `target/bpf/prewarm.bpf.o`, which is only touched when it changes.
///
/// # Errors
/// When the build fails, or the object can't be written.
pub fn build_bpf(root: &Path, toolchain: &str) -> anyhow::Result<PathBuf> {
    let target_dir = root.join("target/bpf");
    let mut command = Command::new("rustup");
    command
        .args(["run", toolchain, "cargo", "build", "--package", "prewarm-ebpf", "--bin", "prewarm-ebpf"])
        .args(["--features", "bpf", "--target", TARGET, "-Z", "build-std=core", "--profile", "bpf"])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(root);
    // An outer cargo leaves its own tools and flags behind; this build has others.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO") && name != "CARGO_HOME" || name.starts_with("RUSTC") || name == "RUSTFLAGS" {
            command.env_remove(&*name);
        }
    }
    command.env_remove("RUSTUP_TOOLCHAIN");
    // `-Z` on a compiler that isn't a nightly.
    command.env("RUSTC_BOOTSTRAP", "1");
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        "-Clinker=bpf-linker".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Packets are not aligned; without this every number in them is loaded byte by byte.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
    ];
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let status = command.status().context("can't run rustup (hint: cargo xtask setup)")?;
    if !status.success() {
        bail!("the kernel programs don't build with toolchain {toolchain} (hint: cargo xtask setup)");
    }
    let built = target_dir.join(TARGET).join("bpf/prewarm-ebpf");
    let bytes = fs::read(&built).with_context(|| format!("the build left no {}", built.display()))?;
    let object = target_dir.join("prewarm.bpf.o");
    // A new time stamp alone would make cargo build the daemon again.
    if fs::read(&object).ok().as_deref() != Some(&bytes) {
        fs::write(&object, &bytes).with_context(|| format!("can't write {}", object.display()))?;
    }
    Ok(object)
}
