//! `build`: the kernel programs, and the binaries that carry them.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context as _;

use crate::{
    clock::timed,
    setup::{self, BpfToolchain},
    shell,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Builds the daemon optimised.
    #[arg(long)]
    release: bool,
}

/// How user space is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As `cargo test` builds it, so that nothing is compiled twice.
    Test,
    /// Optimised.
    Release,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let binary = daemon(if arguments.release { Profile::Release } else { Profile::Test })?;
    shell::say(&format!("build: {}", binary.display()));
    Ok(ExitCode::SUCCESS)
}

/// Builds both sides and gives the path of the `prewarm` binary, kernel programs inside.
///
/// # Errors
/// When the toolchain cannot be had or the build fails.
pub(crate) fn daemon(profile: Profile) -> anyhow::Result<PathBuf> {
    programs(&setup::ensure()?)?;
    binary(profile, "prewarm-user", "prewarm")
}

/// Builds a binary of the test harness, optimised.
///
/// # Errors
/// When the build fails.
pub(crate) fn harness(name: &str) -> anyhow::Result<PathBuf> {
    binary(Profile::Release, "prewarm-tests", name)
}

/// Builds the kernel programs and the suite that tries them, which carries them.
///
/// # Errors
/// When the toolchain cannot be had or the build fails.
pub(crate) fn kernel_suite() -> anyhow::Result<PathBuf> {
    programs(&setup::ensure()?)?;
    binary(Profile::Test, "prewarm-tests", "kernel-suite")
}

/// Makes what `command` builds carry the kernel programs, which must have been built.
///
/// # Errors
/// When the workspace's folder cannot be found.
pub(crate) fn carry_programs(command: &mut Command) -> anyhow::Result<()> {
    command.env("PREWARM_BPF_OBJECT", object(&shell::root()?));
    Ok(())
}

/// The triple of the machine we are on.
///
/// # Errors
/// When rustc does not answer.
pub(crate) fn host_triple() -> anyhow::Result<String> {
    let version = shell::output(Command::new("rustc").arg("-vV")).context("rustc does not run")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(host.to_owned())
}

fn object(root: &Path) -> PathBuf {
    root.join("target/bpf/prewarm.bpf.o")
}

fn binary(profile: Profile, package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = shell::cargo()?;
    cargo.args(["build", "--package", package, "--bin", name]);
    let folder = match profile {
        Profile::Test => "debug",
        Profile::Release => {
            cargo.arg("--release");
            "release"
        }
    };
    carry_programs(&mut cargo)?;
    let (done, took) = timed(|| shell::check(&mut cargo));
    done?;
    if took.as_secs() > 5 {
        shell::say(&format!("build: {name} in {} s", took.as_secs()));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| shell::root().map(|root| root.join("target")), |folder| Ok(PathBuf::from(folder)))?;
    Ok(target.join(folder).join(name))
}

/// Builds the kernel programs into one object file and gives its path.
///
/// # Errors
/// When the build fails.
fn programs(toolchain: &BpfToolchain) -> anyhow::Result<PathBuf> {
    let root = shell::root()?;
    let folder = root.join("target/bpf");
    let mut cargo = match &toolchain.toolchain {
        Some(name) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", name, "cargo"]);
            rustup
        }
        None => {
            let mut cargo = Command::new("/usr/bin/cargo");
            cargo.env("RUSTC", "/usr/bin/rustc");
            cargo
        }
    };
    shell::forget_outer_cargo(&mut cargo);
    cargo.current_dir(&root).args(["build", "--quiet", "--package", "prewarm-ebpf", "--bin", "prewarm-ebpf"]);
    cargo.args(["--features", "bpf", "--target", "bpfel-unknown-none", "-Z", "build-std=core", "--profile", "bpf"]);
    cargo.arg("--target-dir").arg(&folder);
    // `-Z` on a released compiler; a nightly does not mind.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    // Whoever switches this off for the rest gets programs here that end without an exit.
    cargo.env("CARGO_INCREMENTAL", "1");
    let arch = std::env::consts::ARCH;
    let flags = [
        &*format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // Packets are not aligned; without this every number in them is loaded byte by byte.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    ]
    .join("\x1f");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
    let mut path = toolchain.linker_folder.clone().into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    cargo.env("PATH", path);
    let (done, took) = timed(|| shell::check(&mut cargo));
    done.context("the kernel programs")?;
    if took.as_secs() > 5 {
        shell::say(&format!("build: kernel programs in {} s", took.as_secs()));
    }
    let built = folder.join("bpfel-unknown-none/bpf/prewarm-ebpf");
    let object = object(&root);
    let bytes = std::fs::read(&built).with_context(|| format!("{} was not built", built.display()))?;
    // Left alone when nothing changed, so that nothing that carries it is built again.
    if std::fs::read(&object).ok().as_deref() != Some(&bytes[..]) {
        std::fs::write(&object, bytes).with_context(|| format!("could not write {}", object.display()))?;
    }
    Ok(object)
}
