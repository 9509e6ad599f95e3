//! What a guest has for a system: an archive in the format that kernels unpack (cpio, "newc").
//!
//! Comes in: the suite, programs with their libraries. Goes out: the archive's bytes. Never here: a package, a shell.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::shell;

/// Programs that the suite starts.
const PROGRAMS: [&str; 3] = ["getent", "ip", "tc"];
/// Where programs are looked for: of several places of one file the first is taken.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;

/// Where files are to lie, and where they come from.
pub(super) type Contents = BTreeMap<PathBuf, PathBuf>;

/// What every guest has, but for its kernel's modules.
///
/// # Errors
/// When a program is missing.
pub(super) fn contents(suite: &Path, tests: &[PathBuf], workshop: &Path) -> anyhow::Result<Contents> {
    let mut contents = Contents::new();
    add(&mut contents, Path::new("/init"), &stripped(suite, workshop)?)?;
    for program in PROGRAMS {
        let places = FOLDERS.map(|folder| Path::new(folder).join(program));
        let place = places.into_iter().find(|place| place.is_file());
        let place = place.with_context(|| format!("{program} is missing on this host"))?;
        add(&mut contents, &place.clone(), &place)?;
    }
    for test in tests {
        // `NAME-HASH`
        let name = test.file_name().unwrap_or_default().to_string_lossy();
        let name = name.rsplit_once('-').map_or(&*name, |(name, _)| name);
        add(&mut contents, &Path::new("/tests").join(name), &stripped(test, workshop)?)?;
    }
    let data = shell::root()?.join("tests/data");
    for entry in fs::read_dir(&data)? {
        let path = entry?.path();
        contents.insert(path.clone(), path);
    }
    Ok(contents)
}

/// Adds a program with the libraries that it is linked to, each where it lies here.
fn add(contents: &mut Contents, place: &Path, program: &Path) -> anyhow::Result<()> {
    contents.insert(place.to_owned(), program.to_owned());
    // A program without libraries makes it fail.
    let linked = shell::output(Command::new("ldd").arg(program)).unwrap_or_default();
    for path in linked.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from) {
        contents.insert(path.clone(), path);
    }
    Ok(())
}

/// A program without its debug information, which is most of it; as it is where there is nobody to strip it.
fn stripped(program: &Path, workshop: &Path) -> anyhow::Result<PathBuf> {
    let slim = workshop.join(program.file_name().context("a program has a name")?);
    let mut strip = Command::new("strip");
    strip.args(["--strip-debug", "-o"]).args([&slim, program]);
    Ok(if shell::output(&mut strip).is_some() { slim } else { program.to_owned() })
}

/// Packs contents and a kernel's modules.
///
/// # Errors
/// When a file can't be read.
pub(super) fn pack(contents: &Contents, modules: &[PathBuf]) -> anyhow::Result<Vec<u8>> {
    let mut all = contents.clone();
    for module in modules {
        all.insert(Path::new("/modules").join(module.file_name().unwrap_or_default()), module.clone());
    }
    let mut archive = Archive::default();
    for (place, source) in &all {
        let folders: Vec<_> = place.ancestors().skip(1).filter(|folder| folder.parent().is_some()).collect();
        for folder in folders.into_iter().rev() {
            archive.folder(folder);
        }
        let bytes = fs::read(source).with_context(|| format!("could not read {}", source.display()))?;
        let runs = fs::metadata(source)?.permissions().mode() & 0o111 != 0;
        archive.entry(place, if runs { PROGRAM } else { FILE }, &bytes, (0, 0));
    }
    // What the first process has for its standard streams, before it has mounted anything.
    archive.folder(Path::new("/dev"));
    archive.entry(Path::new("/dev/console"), DEVICE, &[], (5, 1));
    Ok(archive.end())
}

/// An archive under way.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    folders: Vec<PathBuf>,
    count: u32,
}

impl Archive {
    fn folder(&mut self, path: &Path) {
        if !self.folders.iter().any(|known| known == path) {
            self.folders.push(path.to_owned());
            self.entry(path, FOLDER, &[], (0, 0));
        }
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8], (major, minor): (u32, u32)) {
        let path = path.to_string_lossy();
        self.named(path.trim_start_matches('/'), mode, content, (major, minor));
    }

    /// A header of thirteen hexadecimal numbers, the name with a zero, the content; each part filled up to four bytes.
    fn named(&mut self, name: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) {
        self.count += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        self.bytes.extend(b"070701");
        for number in [self.count, mode, 0, 0, 1, 0, size, 0, 0, major, minor, length, 0] {
            self.bytes.extend(format!("{number:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.fill();
        self.bytes.extend(content);
        self.fill();
    }

    fn fill(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.named("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }
}
