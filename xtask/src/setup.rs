//! `setup`: a toolchain that emits BPF, and a linker that reads what it emits.
//!
//! The kernel programs need `core` built for `bpfel-unknown-none`, so a rustc whose library source is at hand, and a
//! `bpf-linker` linked with the LLVM major that this rustc emits bitcode of. Two ways, in this order: rustup's nightly
//! with `rust-src`, and a distribution's rustc with its source package (linked into rustup as `prewarm-bpf`).

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{clock::timed, packages, shell};

/// The linker's version, pinned: it must know the LLVM it is built with.
const LINKER_VERSION: &str = "0.13.0";
/// The LLVM majors that this linker knows.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// The oldest compiler whose `core` our kernel side builds with.
const OLDEST_MINOR: u32 = 85;

/// Insists on one of the two ways: `nightly` or `distribution`.
const CHOICE: &str = "PREWARM_BPF_TOOLCHAIN";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Says what is there and what would be installed, and changes nothing.
    #[arg(long)]
    check: bool,
}

/// A compiler and a linker that fit each other.
#[derive(Clone, Debug)]
pub(crate) struct BpfToolchain {
    /// The rustup toolchain's name; none where rustc lies in `/usr/bin` and there is no rustup.
    pub(crate) toolchain: Option<String>,
    /// The folder that holds `bpf-linker`.
    pub(crate) linker_folder: PathBuf,
}

struct Rustc {
    toolchain: Option<&'static str>,
    version: String,
    llvm: u32,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.check {
        return check();
    }
    let found = ensure()?;
    let toolchain = found.toolchain.as_deref().unwrap_or("/usr/bin/rustc");
    shell::say(&format!("setup: ready (kernel side: {toolchain}, {})", found.linker_folder.display()));
    Ok(ExitCode::SUCCESS)
}

/// Finds or installs the BPF toolchain; quick when it is there.
///
/// # Errors
/// When it can be had in no way; the message says for each way why not, and what to do by hand.
pub(crate) fn ensure() -> anyhow::Result<BpfToolchain> {
    let mut refusals = Vec::new();
    let ways: &[fn() -> anyhow::Result<Rustc>] = match std::env::var(CHOICE).as_deref() {
        Ok("nightly") => &[nightly],
        Ok("distribution") => &[distribution],
        Ok(other) => bail!("{CHOICE}={other:?} is none of: nightly, distribution"),
        Err(_) => &[nightly, distribution],
    };
    for way in ways {
        match way().and_then(|rustc| Ok((linker(&rustc)?, rustc))) {
            Ok((linker_folder, rustc)) => {
                return Ok(BpfToolchain { toolchain: rustc.toolchain.map(str::to_owned), linker_folder });
            }
            Err(error) => refusals.push(format!("  - {error:#}")),
        }
    }
    bail!(
        "no toolchain here builds the kernel programs:\n{}\nhint: either `rustup toolchain install nightly --component \
         rust-src` and the LLVM development package of the major that `rustc +nightly -vV` prints,\n      or on Debian \
         `apt-get install rustc-web cargo-web rust-web-src llvm-22-dev libclang-22-dev libzstd-dev zlib1g-dev \
         libxml2-dev`; then run this again",
        refusals.join("\n")
    )
}

fn check() -> anyhow::Result<ExitCode> {
    let mut ready = false;
    for (way, toolchain) in [("rustup's nightly", "nightly"), ("the distribution's rustc", "prewarm-bpf")] {
        let line = match inspect(Some(toolchain)) {
            Ok(rustc) => {
                let linker = linker_folder(rustc.llvm)?.join("bpf-linker");
                ready |= linker.exists();
                let linker = if linker.exists() { "there" } else { "to be built" };
                format!("{way}: {} (LLVM {}), linker {linker}", rustc.version, rustc.llvm)
            }
            Err(error) => format!("{way}: {error:#}"),
        };
        shell::say(&line);
    }
    shell::say(&format!(
        "packages of the tests and the lab: missing {:?}",
        packages::missing(&packages::of_the_tests())
    ));
    Ok(ExitCode::from(u8::from(!ready)))
}

/// rustup's nightly, fetched with its library source where it can be.
fn nightly() -> anyhow::Result<Rustc> {
    if !has("rustup") {
        bail!("rustup's nightly: there is no rustup");
    }
    if let Ok(found) = inspect(Some("nightly")) {
        return Ok(found);
    }
    let mut get = Command::new("rustup");
    get.args([
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "rust-src",
        "--no-self-update",
    ]);
    let mut get = if shell::output(Command::new("rustup").args(["run", "nightly", "rustc", "-V"])).is_some() {
        let mut add = Command::new("rustup");
        add.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
        add
    } else {
        get
    };
    shell::say("setup: asking rustup for nightly's library source");
    if shell::output(&mut get).is_none() {
        bail!("rustup's nightly: its library source (rust-src) could not be fetched");
    }
    inspect(Some("nightly"))
}

/// The distribution's compiler with its source package, as a toolchain of rustup's where there is a rustup.
fn distribution() -> anyhow::Result<Rustc> {
    let toolchain = has("rustup").then_some("prewarm-bpf");
    if let Ok(found) = inspect(toolchain) {
        return Ok(found);
    }
    packages::install("the kernel side", &["cargo-web", "rust-web-src", "rustc-web"])
        .context("the distribution's rustc")?;
    if let Some(name) = toolchain {
        shell::check(Command::new("rustup").args(["toolchain", "link", name, "/usr"]).stdout(Stdio::null()))?;
    }
    inspect(toolchain)
}

/// What `toolchain` is, if it can build `core`.
fn inspect(toolchain: Option<&'static str>) -> anyhow::Result<Rustc> {
    let name = toolchain.unwrap_or("/usr/bin/rustc");
    let version = shell::output(rustc(toolchain).arg("-vV")).with_context(|| format!("{name} is not installed"))?;
    let field = |key: &str| version.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let release = field("release:").context("rustc names no release")?;
    let minor: u32 =
        release.split('.').nth(1).and_then(|minor| minor.parse().ok()).context("rustc's release is odd")?;
    if minor < OLDEST_MINOR {
        bail!("{name} is {release}, older than 1.{OLDEST_MINOR}");
    }
    let llvm = field("LLVM version:")
        .and_then(|llvm| llvm.split('.').next()?.parse().ok())
        .context("rustc names no LLVM version")?;
    let sysroot = shell::output(rustc(toolchain).args(["--print", "sysroot"])).context("rustc has no sysroot")?;
    let source = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if !source.exists() {
        bail!("{name} {release} has no library source ({})", source.display());
    }
    Ok(Rustc { toolchain, version: release.to_owned(), llvm })
}

/// The linker for `rustc`'s bitcode, built where it is not there.
fn linker(rustc: &Rustc) -> anyhow::Result<PathBuf> {
    let folder = linker_folder(rustc.llvm)?;
    if folder.join("bpf-linker").exists() {
        return Ok(folder);
    }
    let llvm = rustc.llvm;
    if !LINKER_LLVM.contains(&llvm) {
        bail!("rustc {} emits bitcode of LLVM {llvm}, which bpf-linker {LINKER_VERSION} does not know", rustc.version);
    }
    let (development, clang) = (format!("llvm-{llvm}-dev"), format!("libclang-{llvm}-dev"));
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if packages::has_apt() {
        let wanted = [&development[..], &clang, "libxml2-dev", "libzstd-dev", "zlib1g-dev", "g++"];
        packages::install("the BPF linker", &wanted)?;
    } else if !prefix.exists() && std::env::var_os("LLVM_PREFIX").is_none() {
        bail!("LLVM {llvm}'s development files are not in {}: install them, or set LLVM_PREFIX", prefix.display());
    }
    shell::say(&format!("setup: building bpf-linker {LINKER_VERSION} for LLVM {llvm} (about a minute)"));
    let root = folder.parent().context("the linker's folder has a parent")?;
    let mut install = shell::cargo()?;
    install.args(["install", "bpf-linker", "--quiet", "--version", LINKER_VERSION, "--no-default-features"]);
    install.args(["--features", &format!("llvm-{llvm}"), "--root"]).arg(root);
    if std::env::var_os("LLVM_PREFIX").is_none() {
        install.env("LLVM_PREFIX", prefix);
    }
    let (done, took) = timed(|| shell::check(&mut install));
    done?;
    shell::say(&format!("setup: bpf-linker built in {} s", took.as_secs()));
    Ok(folder)
}

/// Where the linker is kept: outside the checkout, so that a second clone finds it, and by LLVM major, so that it
/// always fits its rustc.
fn linker_folder(llvm: u32) -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join(format!("prewarm/bpf-linker-{LINKER_VERSION}-llvm-{llvm}/bin")))
}

fn rustc(toolchain: Option<&str>) -> Command {
    let mut command = match toolchain {
        Some(name) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", name, "rustc"]);
            rustup
        }
        None => Command::new("/usr/bin/rustc"),
    };
    shell::forget_outer_cargo(&mut command);
    command
}

fn has(program: &str) -> bool {
    shell::output(Command::new(program).arg("--version")).is_some()
}
