//! The redirect: a program in a cgroup connects to where a lease waits, and reaches us.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use prewarm_ebpf::redirect::{CONNECT4, CONNECT6, PEERNAME4, PEERNAME6, RedirectCounter, SOCKNAME4, SOCKNAME6};
use prewarm_user::{
    kernel::{Cgroup as Folder, Heartbeat, Key, Programs, RedirectRules, Settings, object},
    lease::netns_cookie,
};

use super::Trying;
use crate::{cgroup::Cgroup, veth};

const WITHOUT: &str = "a connection without a lease goes where it was going";
const LEASE: &str = "a lease is claimed, and the names stay those of the origin";

/// All of them.
pub(super) const ALL: &[Trying] = &[
    Trying { programs: &[CONNECT4, PEERNAME4, SOCKNAME4], what: WITHOUT, run: || direct("127.0.0.1:0") },
    Trying { programs: &[CONNECT6, PEERNAME6, SOCKNAME6], what: WITHOUT, run: || direct("[::1]:0") },
    Trying { programs: &[CONNECT4, PEERNAME4, SOCKNAME4], what: LEASE, run: || leased("192.0.2.9:80") },
    Trying { programs: &[CONNECT6, PEERNAME6, SOCKNAME6], what: LEASE, run: || leased("[2001:db8::9]:80") },
];

/// What the child does: it connects there and says whom it believes to be connected to, and as whom.
///
/// # Errors
/// When it doesn't get a connection.
pub fn connect(to: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect(to)?;
    Ok(format!("{} {}", stream.peer_addr()?, stream.local_addr()?))
}

/// Runs [`connect`] in a cgroup while the daemon's beat goes on.
fn child(cgroup: &Cgroup, heart: &mut Heartbeat, to: SocketAddr) -> anyhow::Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("connect").arg(to.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    cgroup.adopt(&mut command)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let beating = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                heart.beat()?;
                thread::sleep(Duration::from_millis(20));
            }
            anyhow::Ok(())
        });
        let output = command.spawn().and_then(std::process::Child::wait_with_output);
        done.store(true, Ordering::Relaxed);
        beating.join().map_err(|_| anyhow::anyhow!("the beat panicked"))??;
        Ok(output?)
    })
}

fn programs() -> anyhow::Result<Programs> {
    let settings = Settings { redirect: true, ..Settings::new(Key::from_secret(&[3; 32])) };
    Ok(Programs::load(object().context("no kernel programs")?, &settings)?)
}

fn direct(at: &str) -> anyhow::Result<()> {
    veth::inside(|| {
        let (mut programs, cgroup) = (programs()?, Cgroup::create("suite")?);
        let redirect = programs.redirect(&RedirectRules::default())?;
        let _attached = redirect.hooks.attach(Folder::open(cgroup.path())?)?;
        let listener = TcpListener::bind(at)?;
        let address = listener.local_addr()?;
        let output = child(&cgroup, &mut programs.heartbeat()?, address)?;
        let (_taken, client) = listener.accept()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.trim() == format!("{address} {client}"), "{said:?} {output:?}");
        Ok(())
    })
}

fn leased(destination: &str) -> anyhow::Result<()> {
    const TOKEN: u32 = 7;
    veth::inside(|| {
        let destination: SocketAddr = destination.parse()?;
        let (mut programs, cgroup) = (programs()?, Cgroup::create("suite")?);
        let mut redirect = programs.redirect(&RedirectRules::default())?;
        let any = if destination.is_ipv4() { "0.0.0.0:0" } else { "[::1]:0" };
        let listener = TcpListener::bind(any)?;
        let port = listener.local_addr()?.port();
        let (port4, port6) = if destination.is_ipv4() { (Some(port), None) } else { (None, Some(port)) };
        redirect.listeners.admit(netns_cookie(listener.as_fd())?, port4, port6)?;
        redirect.offers.insert(TOKEN, destination)?;
        redirect.offers.list(destination, &[TOKEN])?;
        let _attached = redirect.hooks.attach(Folder::open(cgroup.path())?)?;
        let output = child(&cgroup, &mut programs.heartbeat()?, destination)?;
        let counts = redirect.counters.read()?;
        let claimed = counts.iter().find(|(counter, _)| *counter == RedirectCounter::Claimed).map(|(_, count)| *count);
        ensure!(claimed == Some(1), "{counts:?} {output:?}");
        let (taken, _) = listener.accept()?;
        // The token is in the address that the program was sent to, but for IPv6 alone.
        let reached = taken.local_addr()?.ip();
        let wanted = if destination.is_ipv4() { IpAddr::from([127, 64, 0, 7]) } else { "::1".parse()? };
        ensure!(reached == wanted, "{reached}");
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.starts_with(&format!("{destination} ")), "{said:?} {output:?}");
        ensure!(!redirect.offers.remove(TOKEN, destination)?, "the lease is still on offer");
        Ok(())
    })
}
