//! Debian's kernels for cloud guests: downloaded, taken apart, never installed.
//!
//! Comes in: a version. Goes out: a kernel and the modules that the suite needs, kept in `target/vm`. Never here: this
//! system's own package lists, which stay as they are.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use crate::shell;

/// What a guest loads: they depend on no others.
const MODULES: [&str; 5] = ["cls_bpf", "sch_ingress", "sch_netem", "tun", "veth"];
const ARCHIVE: &str = "http://deb.debian.org/debian";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The package that always depends on the newest kernel of its release.
const NEWEST: &str = "linux-image-cloud-amd64";

/// A kernel that is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V6_1,
    V6_12,
}

impl Version {
    const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The release of Debian that has it.
    const fn release(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
        }
    }
}

/// A kernel, ready to be booted.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    pub(super) image: PathBuf,
    pub(super) modules: Vec<PathBuf>,
}

/// Gives a kernel, downloading it unless that was done before.
///
/// # Errors
/// When it can't be had; the message says what to do.
pub(super) fn fetch(version: Version, folder: &Path, workshop: &Path) -> anyhow::Result<Kernel> {
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "cargo xtask vm boots kernels of x86-64, and this host is {}\nhint: the suite runs on this host's own kernel: \
         cargo test --package prewarm-tests --test verifier",
        std::env::consts::ARCH
    );
    let kept = folder.join(version.name());
    if let Some(kernel) = whole(version, &kept) {
        return Ok(kernel);
    }
    let fresh = workshop.join(version.name());
    unpack(version, &fresh).map_err(|error| {
        anyhow::anyhow!(
            "Linux {} could not be had from {ARCHIVE}: {error:#}\nhint: without a network, put that kernel of Debian as \
             `vmlinuz` and its modules {} (as .ko) into {}",
            version.name(),
            MODULES.join(", "),
            kept.display()
        )
    })?;
    // A half-done one from an earlier, interrupted run is in the way.
    if kept.exists() {
        fs::remove_dir_all(&kept)?;
    }
    fs::rename(fresh.join("kept"), &kept)?;
    whole(version, &kept).with_context(|| format!("{} is not whole", kept.display()))
}

fn whole(version: Version, folder: &Path) -> Option<Kernel> {
    let image = folder.join("vmlinuz");
    let modules: Vec<_> = MODULES.iter().map(|module| folder.join(module).with_extension("ko")).collect();
    let is_whole = image.is_file() && modules.iter().all(|module| module.is_file());
    is_whole.then_some(Kernel { name: version.name(), image, modules })
}

fn unpack(version: Version, folder: &Path) -> anyhow::Result<()> {
    ensure!(crate::packages::has_apt(), "there is no apt-get on this system");
    ensure!(Path::new(KEYS).is_file(), "{KEYS} is missing (package debian-archive-keyring)");
    for needed in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(needed))?;
    }
    let sources = folder.join("sources.list");
    fs::write(&sources, format!("deb [signed-by={KEYS}] {ARCHIVE} {} main\n", version.release()))?;
    let apt = |program: &str| {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::SourceList", sources.as_path()),
            ("Dir::Etc::SourceParts", Path::new("/dev/null")),
            ("Dir::State::Lists", &folder.join("lists")),
            ("Dir::Cache", &folder.join("cache")),
            // The lists are ours alone, wherever the workspace lies.
            ("APT::Sandbox::User", Path::new("root")),
            ("Acquire::Languages", Path::new("none")),
        ] {
            let mut setting = OsString::from(option);
            setting.push("=");
            setting.push(value);
            command.arg("-o").arg(setting);
        }
        command.current_dir(folder).stdin(Stdio::null());
        command
    };
    shell::check(apt("apt-get").args(["-qq", "--error-on=any", "update"]))?;
    let known = shell::output(apt("apt-cache").args(["show", NEWEST])).context("apt-cache knows no kernel")?;
    let prefix = format!("linux-image-{}.", version.name());
    let package = known
        .lines()
        .filter_map(|line| line.strip_prefix("Depends: "))
        .flat_map(|line| line.split([',', ' ']))
        .find(|word| word.starts_with(&prefix))
        .with_context(|| format!("{NEWEST} of {} is no {}", version.release(), version.name()))?;
    shell::say(&format!("vm: downloading {package}"));
    shell::check(apt("apt-get").args(["-qq", "download", package]))?;
    let archive = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let mut archive = archive.filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let archive = archive.next().context("apt-get downloaded nothing")?;
    let files = folder.join("files");
    shell::check(Command::new("dpkg-deb").arg("--extract").args([&archive, &files]))?;
    let kept = folder.join("kept");
    fs::create_dir(&kept)?;
    let image = find(&files, &|name| name.starts_with("vmlinuz-"))?.context("no vmlinuz in the package")?;
    fs::copy(image, kept.join("vmlinuz"))?;
    for module in MODULES {
        let (plain, packed) = (format!("{module}.ko"), format!("{module}.ko.xz"));
        let found = find(&files, &|name| name == plain || name == packed)?;
        let found = found.with_context(|| format!("no module {module} in the package"))?;
        fs::write(kept.join(&plain), unpacked(&found)?)?;
    }
    Ok(())
}

/// A module's bytes.
fn unpacked(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(fs::read(path)?);
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output().context("xz")?;
    if !output.status.success() {
        bail!("xz: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// The first file below a folder whose name will do.
fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if let Some(found) = find(&entry.path(), wanted)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() && wanted(&entry.file_name().to_string_lossy()) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
