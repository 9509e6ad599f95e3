//! `vm`: every kernel program on the kernels that are supported, in guests without hardware help, and on this one.
//!
//! Comes in: which kernels. Goes out: a table of kernels and programs. Never here: what is tried there (the harness'
//! `suite`), or a guest that outlives the command.

mod boot;
mod image;
mod kernels;
// The harness writes it, this reads it.
#[path = "../../../tests/src/suite/report.rs"]
#[expect(unreachable_pub, reason = "the harness is a library")]
mod report;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};

use self::{kernels::Version, report::Report};
use crate::{build, clock::timed, packages, shell};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which kernel to boot: the oldest that is supported, a newer one, or both. This host's is always tried.
    #[arg(long, value_enum, default_value = "all")]
    kernel: Which,
    /// Runs a test program of the harness there too, by its file's name (`tests/tests/NAME.rs`); may be repeated. One
    /// that drives the daemon or a server finds none there.
    #[arg(long, value_name = "NAME")]
    test: Vec<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    #[value(name = "all")]
    All,
}

/// A folder that goes with what is in it; what a killed run left there goes with the next one.
#[derive(Debug)]
struct Workshop(PathBuf);

impl Workshop {
    fn open(folder: PathBuf) -> anyhow::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("could not empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            shell::say(&format!("warning: {} is still there: {error}", self.0.display()));
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let versions = match arguments.kernel {
        Which::V6_1 => vec![Version::V6_1],
        Which::V6_12 => vec![Version::V6_12],
        Which::All => vec![Version::V6_1, Version::V6_12],
    };
    packages::install("cargo xtask vm", &["iproute2", "qemu-system-x86", "xz-utils"])?;
    let folder = shell::root()?.join("target/vm");
    let workshop = Workshop::open(folder.join("work"))?;
    // First what can't be had everywhere, so that nobody waits for a build in vain.
    let kernels = versions
        .into_iter()
        .map(|version| kernels::fetch(version, &folder, &workshop.0))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let suite = build::kernel_suite()?;
    let tests = arguments.test.iter().map(|name| test_program(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut reports = vec![here(&suite)?];
    let contents = image::contents(&suite, &tests, &workshop.0)?;
    for kernel in &kernels {
        let (report, took) = timed(|| boot::run(kernel, &contents, &workshop.0));
        let report = report?;
        shell::say(&format!("vm: Linux {} in {} s", report.kernel, took.as_secs()));
        reports.push(report);
    }
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&serde_json::json!({"schema": 1, "kernels": reports}))?)?;
    } else {
        writeln!(out, "{}", report::table(&reports))?;
    }
    Ok(ExitCode::from(u8::from(reports.iter().any(|report| !report.complaints().is_empty()))))
}

/// The suite on this host.
fn here(suite: &Path) -> anyhow::Result<Report> {
    let mut command = shell::as_root(suite);
    let output = command.args(["run", "--json"]).stderr(std::process::Stdio::inherit()).output()?;
    let report: Report = serde_json::from_slice(&output.stdout).context("the suite gave no report on this host")?;
    shell::say(&format!("vm: this host, Linux {}", report.kernel));
    Ok(report)
}

/// Builds a test program of the harness.
fn test_program(name: &str) -> anyhow::Result<PathBuf> {
    let known = shell::root()?.join("tests/tests").join(name).with_extension("rs");
    if name.contains('/') || !known.exists() {
        bail!("--test {name}: there is no tests/tests/{name}.rs\nhint: give the name of a file there without `.rs`");
    }
    let mut cargo = shell::cargo()?;
    cargo.args([
        "test",
        "--quiet",
        "--package",
        "prewarm-tests",
        "--no-run",
        "--message-format",
        "json",
        "--test",
        name,
    ]);
    build::carry_programs(&mut cargo)?;
    executable(&mut cargo).with_context(|| format!("could not build the test {name}"))
}

/// The last executable that cargo says it built.
fn executable(cargo: &mut Command) -> anyhow::Result<PathBuf> {
    let output = cargo.stderr(std::process::Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "cargo failed");
    let text = String::from_utf8(output.stdout)?;
    let built = text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut paths = built.filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)));
    paths.next().context("cargo named no executable")
}
