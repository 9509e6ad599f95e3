//! `doctor`: what this machine offers, each line with its mend.

use std::{fs, path::Path, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::{SocketArgument, exit::UNHEALTHY, output};
use crate::{
    control::{Answer, Client, ClientError, Request, Stats},
    handover::{self, redirect::RedirectError},
    kernel,
};

/// Flags of `prewarm doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    #[command(flatten)]
    socket: SocketArgument,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    /// As it should be.
    Ok,
    /// prewarm works, with less.
    Warn,
    /// prewarm does not work.
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    check: &'static str,
    grade: Grade,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, found: found.into(), fix: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warn, found: found.into(), fix: Some(fix.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, grade: Grade::Fail, found: found.into(), fix: Some(fix.into()) }
    }
}

impl DoctorArguments {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut findings = vec![
            kernel_release(release.trim()),
            btf(),
            capabilities(&status),
            programs(),
            egress_hook(release.trim()),
            cgroup(&fs::read_to_string("/proc/self/mounts").unwrap_or_default()),
            redirect(),
            uprobes(),
            seccomp(&fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default()),
            resolver(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        ];
        findings.extend(daemon(&self.socket.socket));
        let worst = findings.iter().any(|finding| finding.grade == Grade::Fail);
        if self.json {
            output::json_list("findings", &findings)?;
        } else {
            for Finding { check, grade, found, fix } in &findings {
                let word = match grade {
                    Grade::Ok => "ok  ",
                    Grade::Warn => "warn",
                    Grade::Fail => "FAIL",
                };
                output::line(&format!("{word}  {check}: {found}"))?;
                if let Some(fix) = fix {
                    output::line(&format!("      fix: {fix}"))?;
                }
            }
        }
        Ok(ExitCode::from(if worst { UNHEALTHY } else { super::FINE }))
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn kernel_release(release: &str) -> Finding {
    match version(release) {
        Some(version) if version >= (6, 1) => Finding::ok("kernel", release),
        Some(_) => Finding::fail("kernel", release, "prewarm needs Linux 6.1 or newer"),
        None => Finding::warn("kernel", format!("{release:?} is not understood"), "prewarm needs Linux 6.1 or newer"),
    }
}

fn btf() -> Finding {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        return Finding::ok("BTF", path);
    }
    let fix = "take a kernel built with CONFIG_DEBUG_INFO_BTF for better diagnostics";
    Finding::warn("BTF", format!("{path} is not there"), fix)
}

/// The numbers are those of linux/capability.h.
const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
/// CAP_SYS_ADMIN stands for the two younger ones.
const ADMIN: u32 = 21;

fn capabilities(status: &str) -> Finding {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(name, bit)| !has(*bit) && (*name == "CAP_NET_ADMIN" || !has(ADMIN)))
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        return Finding::ok("privileges", "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are there");
    }
    Finding::fail(
        "privileges",
        format!("missing {}", missing.join(", ")),
        "run prewarm as root, or give the service these capabilities",
    )
}

fn programs() -> Finding {
    match kernel::object() {
        Some(object) => Finding::ok("kernel programs", format!("{} KiB in this binary", object.len() / 1024)),
        None => Finding::fail(
            "kernel programs",
            "this binary was built without them",
            "build it with `cargo xtask build`, not with plain cargo",
        ),
    }
}

fn egress_hook(release: &str) -> Finding {
    match version(release) {
        Some(version) if version >= (6, 6) => Finding::ok("egress hook", "tcx"),
        _ => Finding::ok("egress hook", "clsact (tcx needs Linux 6.6)"),
    }
}

fn cgroup(mounts: &str) -> Finding {
    match kernel::cgroup2_mount(mounts) {
        Some(path) => Finding::ok("cgroup v2", path.display().to_string()),
        None => Finding::warn("cgroup v2", "not mounted", "mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

fn redirect() -> Finding {
    let check = "connect redirect";
    let Some(object) = kernel::object() else {
        return Finding::warn(check, "not tried without the kernel programs", "build it with `cargo xtask build`");
    };
    match handover::redirect::probe(object) {
        Ok(cgroup) => Finding::ok(check, format!("can be attached to {}", cgroup.display())),
        Err(RedirectError::Kernel(error)) if error.is_privilege() => {
            Finding::warn(check, "not tried", "run prewarm doctor as root")
        }
        Err(error) => Finding::warn(
            check,
            error.to_string(),
            "mount cgroup v2 (mount -t cgroup2 none /sys/fs/cgroup); until then use `prewarm exec` or a proxy",
        ),
    }
}

fn uprobes() -> Finding {
    let check = "uprobes";
    let Some(object) = kernel::object() else {
        return Finding::warn(check, "not tried without the kernel programs", "build it with `cargo xtask build`");
    };
    match kernel::probe_lookups(object) {
        Ok(libraries) => {
            let libraries: Vec<String> = libraries.iter().map(|path| path.display().to_string()).collect();
            Finding::ok(check, format!("getaddrinfo can be watched in {}", libraries.join(", ")))
        }
        Err(error) if error.is_privilege() => Finding::warn(check, "not tried", "run prewarm doctor as root"),
        Err(error) => Finding::warn(
            check,
            error.to_string(),
            "take a kernel with CONFIG_UPROBE_EVENTS, or name the C library; --source getaddrinfo needs this, nothing \
             else does",
        ),
    }
}

fn seccomp(actions: &str) -> Finding {
    if actions.split_whitespace().any(|action| action == "user_notif") {
        return Finding::ok("seccomp user notification", "there");
    }
    let fix = "take a kernel with CONFIG_SECCOMP_FILTER; until then `prewarm exec` runs programs without leases";
    Finding::warn("seccomp user notification", "not offered by this kernel", fix)
}

fn resolver(configuration: &str) -> Finding {
    let servers: Vec<&str> =
        configuration.lines().filter_map(|line| line.strip_prefix("nameserver")).map(str::trim).collect();
    if servers.is_empty() {
        let fix = "name one in /etc/resolv.conf or in resolve.servers";
        return Finding::fail("resolver", "/etc/resolv.conf names no server", fix);
    }
    Finding::ok("resolver", servers.join(", "))
}

fn daemon(socket: &Path) -> Vec<Finding> {
    let asked = Client::connect(socket).and_then(|mut client| client.ask(Request::Stats));
    match asked {
        Ok(Answer::Stats(stats)) => attached(&stats),
        Ok(_) => vec![Finding::fail("daemon", "answered something else than stats", "restart it")],
        Err(ClientError::Absent { .. }) => {
            vec![Finding::warn("daemon", "not running", "prewarm run --iface IF")]
        }
        Err(error) => vec![Finding::fail("daemon", error.to_string(), "restart it, or use sudo")],
    }
}

fn attached(stats: &Stats) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("daemon", format!("up for {:.0} s", stats.uptime_seconds))];
    for attachment in &stats.attachments {
        let found = format!("{}: {}, egress {}", attachment.interface, attachment.xdp, attachment.egress);
        findings.push(match &attachment.reason {
            None => Finding::ok("XDP", found),
            Some(reason) => Finding::warn(
                "XDP",
                format!("{found} ({reason})"),
                "generic XDP works, at more cost a packet; for native, check the driver and its offloads (LRO, MTU)",
            ),
        });
    }
    findings.push(match &stats.connects.reason {
        None if stats.connects.watched => Finding::ok(
            "connections",
            format!("all are seen; {:.1} % go to addresses without a name", stats.blind_share),
        ),
        reason => Finding::warn(
            "connections",
            format!("not watched: {}", reason.as_deref().unwrap_or("an older daemon")),
            "mount cgroup v2 and set capture.sockops; until then only programs that ask are measured",
        ),
    });
    findings.extend(encrypted(stats));
    for server in stats.given.iter().flat_map(|given| &given.servers) {
        let found = format!("{} at {}: {}", server.server, server.interface, server.mode);
        findings.push(match &server.reason {
            None => Finding::ok("answers", found),
            Some(reason) => Finding::warn(
                "answers",
                format!("{found} ({reason})"),
                "answers are given all the same, at more cost a packet, unless they are off",
            ),
        });
    }
    let complaint = |text: &String| Finding::warn("health", text, "see `prewarm stats`");
    findings.extend(stats.health.iter().map(complaint));
    findings
}

/// What is asked for where the packets tell nothing.
fn encrypted(stats: &Stats) -> Option<Finding> {
    let seen = &stats.encrypted;
    if !seen.is_any() {
        return None;
    }
    let own = seen.connections.max(seen.egress_connections);
    let found = format!(
        "{own} connections of this host and {} of others to port 853, {} packets over QUIC; DNS over HTTPS can't \
         be told from other HTTPS",
        seen.ingress_connections,
        seen.ingress_packets + seen.egress_packets
    );
    let check = "encrypted DNS";
    if stats.sources.values().any(|source| source.questions > 0) {
        return Some(Finding::ok(check, format!("{found}; names come from other sources")));
    }
    let fix = "names are asked for encrypted: use --source getaddrinfo on the host that asks, or --source dnstap:/PATH \
               where the DNS server runs";
    Some(Finding::warn(check, found, fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        for (release, grade) in [
            ("6.1.0-25-amd64", Grade::Ok),
            ("6.18.44", Grade::Ok),
            ("10.0", Grade::Ok),
            ("5.15.0-generic", Grade::Fail),
            ("odd", Grade::Warn),
        ] {
            assert_eq!(kernel_release(release).grade, grade, "{release}");
        }
        assert!(egress_hook("6.1.0").found.starts_with("clsact"));
        assert_eq!(egress_hook("6.12.1").found, "tcx");
    }

    #[test]
    fn encrypted_questions_call_for_another_source() {
        let mut stats = Stats::default();
        assert!(encrypted(&stats).is_none());
        stats.encrypted.egress_packets = 3;
        let finding = encrypted(&stats).unwrap();
        assert!(finding.grade == Grade::Warn && finding.fix.unwrap().contains("--source"));
        stats.sources.insert("getaddrinfo".to_owned(), crate::control::SourceCounts::default());
        assert_eq!(encrypted(&stats).unwrap().grade, Grade::Warn, "it tells nothing");
        stats.sources.entry("getaddrinfo".to_owned()).or_default().questions = 1;
        assert_eq!(encrypted(&stats).unwrap().grade, Grade::Ok);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(capabilities("CapEff:\t000001ffffffffff\n").grade, Grade::Ok);
        assert_eq!(capabilities("CapEff:\t000000c000001000\n").grade, Grade::Ok);
        // CAP_SYS_ADMIN and CAP_NET_ADMIN, as before 5.8.
        assert_eq!(capabilities("CapEff:\t0000000000201000\n").grade, Grade::Ok);
        let none = capabilities("CapEff:\t0000000000000000\n");
        assert!(none.found.contains("CAP_BPF") && none.found.contains("CAP_NET_ADMIN"), "{none:?}");
    }

    #[test]
    fn mounts_and_actions_are_read() {
        assert_eq!(cgroup("cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n").found, "/sys/fs/cgroup/unified");
        assert_eq!(cgroup("proc /proc proc rw 0 0\n").grade, Grade::Warn);
        assert_eq!(seccomp("kill trap user_notif allow\n").grade, Grade::Ok);
        assert_eq!(seccomp("").grade, Grade::Warn);
        assert_eq!(resolver("# nothing\n").grade, Grade::Fail);
        assert_eq!(resolver("nameserver 192.0.2.53\n").found, "192.0.2.53");
    }
}
