//! Programs where they belong: on interfaces, on cgroups, in a library, in namespaces of the suite's own.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use prewarm_ebpf::{
    abi::{EGRESS, INGRESS, SOCKOPS},
    getaddrinfo::{LOOKUP_ANSWERED, LOOKUP_ASKED},
    tproxy::TPROXY,
};
use prewarm_user::{
    kernel::{EgressHook, Key, Programs, Settings, TproxyPlace, XdpMode, cgroup_mount, object},
    lease::netns_cookie,
    model::{Phase, Seen},
};

use super::Trying;
use crate::{
    clock,
    frames::{self, Question},
    netns::{Addresses, Namespace, VethEnd, veth as joined},
    veth,
};

const WAIT: Duration = Duration::from_secs(20);

/// All of them.
pub(super) const ALL: &[Trying] = &[
    Trying { programs: &[INGRESS, EGRESS], what: "on a veth natively, and at the best hook there is", run: attached },
    Trying { programs: &[EGRESS], what: "in a filter of clsact where tcx is missing", run: fallback },
    Trying { programs: &[TPROXY], what: "at tcx or in clsact, and both let go on", run: forwarded },
    Trying { programs: &[SOCKOPS], what: "a connection is told when it is made and when it ends", run: watched },
    Trying { programs: &[LOOKUP_ASKED, LOOKUP_ANSWERED], what: "a look-up of a program is told", run: looked_up },
];

fn load(settings: &Settings) -> anyhow::Result<Programs> {
    Ok(Programs::load(object().context("no kernel programs")?, settings)?)
}

fn settings() -> Settings {
    Settings::new(Key::from_secret(&[3; 32]))
}

/// Linux 6.6 and later have tcx.
fn best_hook() -> anyhow::Result<EgressHook> {
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("{release:?} is no kernel release")
    };
    Ok(if (major, minor) >= (6, 6) { EgressHook::Tcx } else { EgressHook::Clsact })
}

fn attached() -> anyhow::Result<()> {
    seen_both_ways(&settings(), best_hook()?)
}

fn fallback() -> anyhow::Result<()> {
    seen_both_ways(&Settings { tcx: false, ..settings() }, EgressHook::Clsact)
}

/// Attaches to a veth, sends a question each way, and takes the programs off again.
fn seen_both_ways(settings: &Settings, hook: EgressHook) -> anyhow::Result<()> {
    veth::inside(|| {
        veth::pair("near", "far")?;
        let mut programs = load(settings)?;
        let attachment = programs.attach("near")?;
        ensure!(attachment.xdp == XdpMode::Native, "{attachment:?}");
        ensure!(attachment.egress == hook, "{attachment:?}");
        let (near, far) = (veth::Sender::new("near")?, veth::Sender::new("far")?);
        far.send(&frames::question(&Question::new("in.example.org".parse()?)))?;
        near.send(&frames::question(&Question::new("out.example.org".parse()?)))?;
        let mut ring = programs.ring()?;
        let mut names = Vec::new();
        clock::wait_for("two records", WAIT, || {
            ring.drain(10, |record| names.extend(record.name.map(|name| name.to_string())));
            Ok((names.len() >= 2).then_some(()))
        })?;
        names.sort_unstable();
        ensure!(names == ["in.example.org", "out.example.org"], "{names:?}");
        programs.detach("near")?;
        let link = veth::output("ip", "-details link show dev near")?;
        ensure!(!link.contains("prog/xdp"), "still attached: {link}");
        let qdiscs = veth::output("tc", "qdisc show dev near")?;
        ensure!(!qdiscs.contains("clsact"), "the qdisc is still there: {qdiscs}");
        Ok(())
    })
}

fn forwarded() -> anyhow::Result<()> {
    for tcx in [true, false] {
        veth::inside(|| {
            veth::pair("near", "far")?;
            let mut programs = load(&Settings { tproxy: true, ..settings() })?;
            let place = TproxyPlace { mark: 0x71, port4: None, port6: None };
            let mut tproxy = programs.tproxy(place, &["near".to_owned()], tcx)?;
            let mut first = frames::tcp(443);
            // Only SYN, and sent to whoever is there.
            first[14 + 20 + 13] = 2;
            first[..6].copy_from_slice(&hardware("near")?);
            veth::Sender::new("far")?.send(&first)?;
            let mut told = Vec::new();
            clock::wait_for("the connection that passes", WAIT, || {
                tproxy.passing.drain(|client, origin| told.push((client, origin)));
                Ok((!told.is_empty()).then_some(()))
            })?;
            let wanted: (SocketAddr, SocketAddr) = ("192.0.2.1:40000".parse()?, "192.0.2.53:443".parse()?);
            ensure!(told == [wanted], "{told:?}");
            tproxy.hooks.detach();
            let qdiscs = veth::output("tc", "qdisc show dev near")?;
            ensure!(!qdiscs.contains("clsact"), "the qdisc is still there: {qdiscs}");
            Ok(())
        })
        .with_context(|| format!("tcx: {tcx}"))?;
    }
    Ok(())
}

/// The link address of an interface of the current namespace.
fn hardware(interface: &str) -> anyhow::Result<[u8; 6]> {
    let text = veth::output("ip", &format!("-brief link show dev {interface}"))?;
    let address = text.split_whitespace().find(|word| word.split(':').count() == 6).context("no link address")?;
    let bytes: Vec<u8> = address.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().context("six bytes")
}

fn watched() -> anyhow::Result<()> {
    let (near, far) = (Namespace::create("near")?, Namespace::create("far")?);
    let end = |namespace, last| VethEnd {
        namespace,
        interface: "wan",
        addresses: Addresses {
            v4: Ipv4Addr::new(10, 77, 8, last),
            v6: Ipv6Addr::new(0xfd77, 8, 0, 0, 0, 0, 0, last.into()),
        },
    };
    joined(&end(&near, 1), &end(&far, 2))?;
    let cookie = near.enter(|| Ok(netns_cookie(UdpSocket::bind("0.0.0.0:0")?.as_fd())?))?;
    let mut programs = load(&settings())?;
    let _dialled = programs.watch_connections(&cgroup_mount().context("cgroup v2 isn't mounted")?)?;
    let mut ring = programs.ring()?;
    for text in ["10.77.8.2:7", "[fd77:8::2]:7"] {
        let address: SocketAddr = text.parse()?;
        let listener = far.enter(|| Ok(TcpListener::bind(address)?))?;
        let stream = near.enter(|| Ok(TcpStream::connect(address)?))?;
        let (taken, _) = listener.accept()?;
        drop((stream, taken));
        let mut phases = Vec::new();
        clock::wait_for("two records of a connection", WAIT, || {
            ring.drain(4096, |record| {
                if let Some(Seen::Connection(seen)) = record.into_observation().map(|seen| seen.seen)
                    && seen.namespace == cookie
                    && seen.destination == address
                {
                    phases.push(seen.phase);
                }
            });
            Ok((phases.len() >= 2).then_some(()))
        })?;
        let right = matches!(phases[..], [Phase::Established { own: false, .. }, Phase::Closed { carried: false, .. }]);
        ensure!(right, "{address}: {phases:?}");
    }
    Ok(())
}

fn looked_up() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut programs = load(&Settings { lookups: true, ..settings() })?;
        let mut lookups = programs.watch_lookups(&[])?;
        let command = Command::new("getent").args(["ahosts", "192.0.2.77"]).output();
        let output = command.context("getent doesn't run")?;
        ensure!(output.status.success(), "getent: {output:?}");
        let mut seen = Vec::new();
        while !seen.iter().any(|lookup: &prewarm_user::kernel::Lookup| lookup.name == b"192.0.2.77") {
            let counts = lookups.counts()?;
            let more = tokio::time::timeout(WAIT, lookups.fill(&mut seen)).await;
            more.with_context(|| format!("the look-up isn't told; {counts:?}"))??;
        }
        let lookup = seen.iter().find(|lookup| lookup.name == b"192.0.2.77").context("the look-up")?;
        ensure!(lookup.code == 0 && lookup.addresses == ["192.0.2.77".parse::<std::net::IpAddr>()?], "{lookup:?}");
        Ok(())
    })
}
