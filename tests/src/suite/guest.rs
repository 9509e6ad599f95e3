//! The first process of a guest that has nothing but this suite: mounts, modules, tests, and off.
//!
//! Comes in: modules in `/modules`, test programs in `/tests`. Goes out: one line of JSON on the second serial port.
//! Never here: a guest that stays up; whatever happens, it is restarted, which its machine takes for the end.

use std::{
    env, fs,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

use super::report::{Check, Report};

/// Where the report goes.
const REPORT: &str = "/dev/ttyS1";
/// Where programs are; the kernel doesn't say.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// What is mounted where.
const MOUNTS: [(&str, &str); 8] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Does all of it, and ends the guest.
///
/// # Errors
/// When the kernel doesn't end it.
pub fn be() -> anyhow::Result<()> {
    if let Err(error) = work() {
        say(&format!("{error:#}"));
    }
    reboot(RebootMode::RB_AUTOBOOT).context("the guest doesn't end")?;
    Ok(())
}

fn work() -> anyhow::Result<()> {
    for (kind, place) in MOUNTS {
        // Some kernels mount the first ones themselves, and not all have every kind: what needs it says so.
        let done = fs::create_dir_all(place).map_err(anyhow::Error::new).and_then(|()| {
            mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>).map_err(anyhow::Error::new)
        });
        if let Err(error) = done {
            say(&format!("{kind} at {place}: {error:#}"));
        }
    }
    for module in files("/modules") {
        let loaded = File::open(&module)
            .map_err(anyhow::Error::new)
            .and_then(|file| finit_module(file, c"", ModuleInitFlags::empty()).map_err(anyhow::Error::new));
        if let Err(error) = loaded {
            say(&format!("{}: {error:#}", module.display()));
        }
    }
    // As a process of its own: the first one must not end, whatever becomes of the suite.
    let mut suite = Command::new(env::current_exe()?);
    let output = suite.args(["run", "--json"]).env("PATH", PATH).stderr(Stdio::inherit()).output()?;
    let mut report: Report = serde_json::from_slice(&output.stdout).context("the suite gave no report")?;
    for test in files("/tests") {
        report.tests.push(test_program(&test)?);
    }
    let mut line = serde_json::to_string(&report)?;
    line.push('\n');
    let mut port = File::options().write(true).open(REPORT).context(REPORT)?;
    port.write_all(line.as_bytes())?;
    // What is still on its way when the machine goes is lost.
    nix::sys::termios::tcdrain(&port)?;
    Ok(())
}

/// Runs a test program to its end.
fn test_program(path: &Path) -> anyhow::Result<Check> {
    let output = Command::new(path).arg("--test-threads=1").env("PATH", PATH).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let result = text.lines().rfind(|line| line.starts_with("test result:")).unwrap_or("no result");
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    say(&format!("{name}: {result}"));
    let failed = (!output.status.success()).then(|| {
        say(&text);
        say(&String::from_utf8_lossy(&output.stderr));
        let failures: Vec<_> = text.lines().filter(|line| line.ends_with("FAILED")).collect();
        format!("{result} {}", failures.join(", "))
    });
    Ok(Check { what: name, failed })
}

/// The files of a folder, by name; none where there is none.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

#[expect(clippy::print_stderr, reason = "the guest's console is all there is")]
fn say(line: &str) {
    eprintln!("guest: {line}");
}
