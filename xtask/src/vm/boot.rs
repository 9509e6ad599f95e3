//! A guest under QEMU's own processor: no `/dev/kvm` is asked for, since some hosts have one that hangs.
//!
//! Comes in: a kernel, what the guest is to have. Goes out: the report that came through its second serial port. Never
//! here: an exit status, which a guest that panicked has too; only a whole report counts.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context as _;

use super::{
    image::{self, Contents},
    kernels::Kernel,
    report::Report,
};
use crate::shell;

const MACHINE: &str = "qemu-system-x86_64";
/// An older processor, without the exchange of two words at once: QEMU 7.2 leaves wrong flags behind it, and Linux 6.12
/// dies of that in its allocator now and then.
const MODEL: &str = "Nehalem,-cx16";
/// Seconds until a guest is taken to hang.
const LIMIT: &str = "1800";
/// Lines of its console that are shown of a guest that gave no report.
const SHOWN: usize = 40;

/// Boots a kernel and waits for its report.
///
/// # Errors
/// When the guest can't be started, or ends without a report; the message has the end of its console.
pub(super) fn run(kernel: &Kernel, contents: &Contents, workshop: &Path) -> anyhow::Result<Report> {
    shell::say(&format!("vm: booting Linux {}", kernel.name));
    let [archive, console, port] =
        ["initramfs", "console", "report"].map(|what| workshop.join(format!("{what}-{}", kernel.name)));
    fs::write(&archive, image::pack(contents, &kernel.modules)?)?;
    let to_file = |path: &Path| format!("file:{}", path.display());
    let mut machine = Command::new("timeout");
    machine.args(["--kill-after=5", LIMIT, MACHINE, "-machine", "q35,accel=tcg", "-cpu", MODEL]);
    machine.args(["-smp", "1", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot"]);
    machine.args(["-serial", &to_file(&console), "-serial", &to_file(&port)]);
    machine.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&archive);
    machine.args(["-append", "console=ttyS0 quiet panic=-1 loglevel=4 -- guest"]).stdin(Stdio::null());
    let status = shell::status(&mut machine)
        .with_context(|| format!("hint: {MACHINE} is in the package qemu-system-x86 of Debian"))?;
    let text = fs::read(&port).unwrap_or_default();
    serde_json::from_slice(&text).with_context(|| {
        let console = fs::read(&console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<_> = console.lines().collect();
        let end = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        format!("the guest with Linux {} gave no report ({status}); the end of its console:\n{end}", kernel.name)
    })
}
