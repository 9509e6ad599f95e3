//! A daemon that does nothing but keep leases and hand them out, as a process of its own, so that tests can kill and
//! stop it: `lease-daemon SOCKET ADDRESS:PORT COUNT [once]`. What is taken is
//! replaced, unless `once` is given.

use std::{net::SocketAddr, sync::Arc};

use prewarm_user::{
    config::LeaseSettings,
    handover::{
        peer::Rule,
        serve::{Clerk, Desk},
    },
    lease::{LeaseOrder, Pool, Reason, TcpDialer},
    model::{Origin, Timestamp},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (once, arguments) = match arguments.split_last() {
        Some((last, rest)) if last == "once" => (true, rest),
        _ => (false, &arguments[..]),
    };
    let [socket, destination, count] = arguments else {
        anyhow::bail!("lease-daemon SOCKET ADDRESS:PORT COUNT [once]")
    };
    let (destination, count): (SocketAddr, u32) = (destination.parse()?, count.parse()?);
    let settings = LeaseSettings {
        total: 4000,
        per_origin: 4000,
        demand: false,
        per_address: 4000,
        dials_per_second: 1e6,
        dial_burst: 4000,
        idle_seconds: 60.0,
        ..LeaseSettings::default()
    };
    let (outcomes, _unread) = tokio::sync::mpsc::channel(1);
    let pool =
        Pool::start(&settings, Arc::new(TcpDialer::default()), Arc::new(|_, _| Ok(())), outcomes, Timestamp::ZERO)?;
    let origin: Origin = format!("origin.example:{}", destination.port()).parse()?;
    let addresses = vec![destination.ip()];
    let until = Timestamp::from_nanos(u64::MAX);
    if once {
        for _ in 0..count {
            let (origin, addresses) = (origin.clone(), addresses.clone());
            pool.lease(LeaseOrder { intent: None, reason: Reason::Wanted, origin, addresses, until });
        }
    } else {
        pool.want(origin, addresses, until, count);
    }
    let listener = std::os::unix::net::UnixListener::bind(socket)?;
    let _desk = Desk::open(listener, pool, Rule::default(), Arc::new(Nobody))?;
    std::future::pending().await
}

/// A clerk with nothing to do.
struct Nobody;

impl Clerk for Nobody {
    fn connected(&self, _destination: SocketAddr, _leased: bool) {}

    fn stray(&self, _stream: std::os::unix::net::UnixStream, _unread: Vec<u8>) {}
}
