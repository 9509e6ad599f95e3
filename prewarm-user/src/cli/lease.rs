//! `prewarm lease take HOST:PORT -- CMD`: runs a program that is given a connection.

use std::{
    ffi::OsString,
    io::{ErrorKind, Write as _},
    net::TcpStream,
    os::{
        fd::{AsRawFd, IntoRawFd as _, RawFd},
        unix::process::CommandExt as _,
    },
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::{SocketArgument, exit::UNHEALTHY};
use crate::client::{Client, Connection};

/// Where the program finds its connection: the first number behind the standard ones.
const FD: RawFd = 3;

/// Works with single leases.
#[derive(Debug, Args)]
pub struct LeaseArguments {
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Debug, Subcommand)]
enum LeaseCommand {
    /// Runs a program that finds a connection to HOST:PORT open under descriptor 3.
    ///
    /// The connection is one that waits, or a new one where none does. The program is told by PREWARM_FD (always 3) and
    /// PREWARM_LEASED (1, or 0 for a new one), and its exit code is handed on. Exit code 1 means that there was no lease
    /// and --leased-only, 2 that there is no connection, 127 that the program was not found, 126 that it can't be
    /// executed.
    Take(TakeArguments),
}

#[derive(Debug, Args)]
struct TakeArguments {
    #[command(flatten)]
    socket: SocketArgument,
    /// How long the daemon may take to answer, in milliseconds. Unless given, as long as the lease would save, between 2
    /// and 50 ms.
    #[arg(long, value_name = "MS")]
    patience: Option<u64>,
    /// Run nothing when there is no lease.
    #[arg(long)]
    leased_only: bool,
    /// Where to: a name or an address, and a port; [2001:db8::1]:443 for IPv6.
    #[arg(value_name = "HOST:PORT", value_parser = host_and_port)]
    destination: (String, u16),
    /// The program and its arguments.
    #[arg(value_name = "CMD", required = true, last = true)]
    command: Vec<OsString>,
}

impl LeaseArguments {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let LeaseCommand::Take(arguments) = self.command;
        arguments.run()
    }
}

impl TakeArguments {
    fn run(self) -> anyhow::Result<ExitCode> {
        let (host, port) = &self.destination;
        let mut client = Client::new(&self.socket.socket);
        if let Some(patience) = self.patience {
            client = client.with_patience(Duration::from_millis(patience));
        }
        let unreachable = || format!("could not connect to {host}:{port}");
        let connection = if self.leased_only {
            let lease = client.take_to(host, *port).with_context(unreachable)?;
            let Some(lease) = lease else {
                // Where standard error is closed there is nobody to tell.
                drop(writeln!(std::io::stderr(), "prewarm: no lease to {host}:{port}"));
                return Ok(ExitCode::from(UNHEALTHY));
            };
            let saved = Some(lease.saves());
            Connection { stream: lease.into_stream(), saved }
        } else {
            client.connect(host, *port).with_context(unreachable)?
        };
        // The daemon's connection ends here: the program inherits one descriptor and no other.
        drop(client);
        let leased = if connection.is_leased() { "1" } else { "0" };
        put_at(FD, connection.stream).context("could not pass the connection on")?;
        let Some((program, arguments)) = self.command.split_first() else { bail!("no program is named") };
        let failed = std::process::Command::new(program)
            .args(arguments)
            .env("PREWARM_FD", FD.to_string())
            .env("PREWARM_LEASED", leased)
            .exec();
        let (code, reason) = match failed.kind() {
            ErrorKind::NotFound => (127, "not found".to_owned()),
            _ => (126, format!("can't be executed: {failed}")),
        };
        drop(writeln!(std::io::stderr(), "prewarm: {}: {reason}", program.display()));
        Ok(ExitCode::from(code))
    }
}

/// Moves a connection to a number, where it stays open over `exec`.
fn put_at(number: RawFd, stream: TcpStream) -> std::io::Result<()> {
    let at = if stream.as_raw_fd() == number { stream.into_raw_fd() } else { duplicate(number, &stream)? };
    #[expect(unsafe_code, reason = "fcntl(2) on a number")]
    // SAFETY: takes numbers and touches no memory; the descriptor is this function's.
    let set = unsafe { libc::fcntl(at, libc::F_SETFD, 0) };
    if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn duplicate(number: RawFd, stream: &TcpStream) -> std::io::Result<RawFd> {
    #[expect(unsafe_code, reason = "dup2(2) over a number that nobody here owns")]
    // SAFETY: takes numbers; whatever had this number was inherited, and nothing in this process uses it.
    let at = unsafe { libc::dup2(stream.as_raw_fd(), number) };
    if at == number { Ok(at) } else { Err(std::io::Error::last_os_error()) }
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("write HOST:PORT")?;
    let port = port.parse().ok().filter(|&port| port != 0).ok_or("the port must be a number from 1 to 65535")?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(address) => Ok((address.to_owned(), port)),
        None if host.is_empty() || host.contains(':') => {
            Err("write HOST:PORT, with an IPv6 address in brackets".to_owned())
        }
        None => Ok((host.to_owned(), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let ok = |host: &str, port| Ok((host.to_owned(), port));
        assert_eq!(host_and_port("www.example.org:443"), ok("www.example.org", 443));
        assert_eq!(host_and_port("[2001:db8::1]:80"), ok("2001:db8::1", 80));
        for bad in ["www.example.org", "2001:db8::1:80", ":80", "a:0", "a:70000", "a:x"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
