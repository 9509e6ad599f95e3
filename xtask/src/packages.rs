//! What comes from the distribution, and how it is installed without starting a single service.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Stdio};

use anyhow::Context as _;

use crate::shell;

// The list stands where the programs are run; the harness looks there for what is missing.
#[path = "../../tests/src/packages.rs"]
#[expect(dead_code, unreachable_pub, reason = "the harness uses the rest, and is a library")]
mod harness;

/// A C compiler and the tools that tests drive beside the harness' own.
const TOOLS: &[&str] = &["bind9-dnsutils", "gcc", "golang-go", "libc6-dev", "procps", "python3", "util-linux"];

/// Everything that tests, benches and the lab run.
pub(crate) fn of_the_tests() -> Vec<&'static str> {
    let lists = [harness::PACKAGES, harness::ORIGINS, harness::NAME_SERVERS, harness::RESOLVERS];
    let servers = lists.into_iter().flatten().map(|package| package.package);
    TOOLS.iter().copied().chain(servers).collect()
}

/// Tells Debian's maintainer scripts not to start what they install, for as long as it lives.
///
/// `invoke-rc.d` asks `/usr/sbin/policy-rc.d`; 101 means "not allowed" (Debian Policy, 9.3.3.1). A policy that is
/// already there is left alone.
struct NoServices {
    policy: Option<PathBuf>,
}

impl NoServices {
    fn hold() -> anyhow::Result<Self> {
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self { policy: None });
        }
        fs::write(&policy, "#!/bin/sh\nexit 101\n").context("could not write /usr/sbin/policy-rc.d")?;
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755))?;
        Ok(Self { policy: Some(policy) })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.policy
            && let Err(error) = fs::remove_file(policy)
        {
            shell::say(&format!("warning: {} is still there: {error}", policy.display()));
        }
    }
}

/// Which of `wanted` are not installed.
pub(crate) fn missing<'a>(wanted: &[&'a str]) -> Vec<&'a str> {
    wanted
        .iter()
        .copied()
        .filter(|package| {
            let mut query = std::process::Command::new("dpkg-query");
            query.args(["--show", "--showformat", "${db:Status-Status}", package]);
            shell::output(&mut query).as_deref() != Some("installed")
        })
        .collect()
}

/// Whether this system installs packages by apt.
pub(crate) fn has_apt() -> bool {
    std::path::Path::new("/usr/bin/apt-get").exists()
}

/// Installs what is missing of `wanted`.
///
/// # Errors
/// When a package is missing and cannot be installed; the message says what to do by hand.
pub(crate) fn install(what_for: &str, wanted: &[&str]) -> anyhow::Result<()> {
    let packages = missing(wanted);
    if packages.is_empty() {
        return Ok(());
    }
    let by_hand = format!("{what_for} needs: {}\nhint: install them and run this again", wanted.join(" "));
    anyhow::ensure!(has_apt(), "{by_hand} (no apt-get on this system)");
    shell::say(&format!("setup: installing {} (for {what_for}; no service is started)", packages.join(" ")));
    let quiet = if shell::is_root() { Some(NoServices::hold()?) } else { None };
    let fresh = || {
        let mut update = shell::as_root("apt-get");
        shell::check(update.args(["-qq", "update"]).stdin(Stdio::null()))
    };
    let get = || {
        let mut get = shell::as_root("env");
        get.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "--no-install-recommends", "install"]);
        shell::check(get.args(&packages).stdin(Stdio::null()).stdout(Stdio::null()))
    };
    // The lists are refreshed only where the packages cannot be found in them: it costs half a minute on some lines.
    get().or_else(|_| fresh().and_then(|()| get())).context(by_hand)?;
    drop(quiet);
    disable(&packages);
    Ok(())
}

/// Keeps what was just installed from starting with the machine.
fn disable(installed: &[&str]) {
    if !std::path::Path::new("/run/systemd/system").exists() {
        return;
    }
    let ours = harness::SERVICES.iter().filter(|(package, _)| installed.contains(package));
    let services: Vec<&str> = ours.map(|(_, service)| *service).collect();
    if services.is_empty() {
        return;
    }
    let mut systemctl = shell::as_root("systemctl");
    systemctl.args(["--quiet", "disable", "--now"]).args(&services).stdin(Stdio::null());
    if let Err(error) = shell::check(&mut systemctl) {
        shell::say(&format!("warning: {} may start with this machine: {error:#}", services.join(", ")));
    }
}
