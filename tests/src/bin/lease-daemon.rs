//! A daemon that does nothing but keep leases and hand them out, as a process of its own, so that tests can kill and
//! stop it: `lease-daemon SOCKET ADDRESS:PORT COUNT`.

use std::{net::SocketAddr, sync::Arc};

use prewarm_user::{
    config::LeaseSettings,
    handover::serve::serve_take,
    lease::{Pool, TcpDialer},
    model::Timestamp,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, destination, count] = &arguments[..] else { anyhow::bail!("lease-daemon SOCKET ADDRESS:PORT COUNT") };
    let (destination, count): (SocketAddr, u32) = (destination.parse()?, count.parse()?);
    let settings = LeaseSettings {
        total: 1000,
        per_origin: 1000,
        per_address: 1000,
        dials_per_second: 1e6,
        dial_burst: 1000,
        ..LeaseSettings::default()
    };
    let (outcomes, _unread) = tokio::sync::mpsc::channel(1);
    let pool =
        Pool::start(&settings, Arc::new(TcpDialer::default()), Arc::new(|_, _| Ok(())), outcomes, Timestamp::ZERO)?;
    let origin = format!("origin.example:{}", destination.port()).parse()?;
    pool.want(origin, vec![destination.ip()], Timestamp::from_nanos(u64::MAX), count);
    let listener = tokio::net::UnixListener::bind(socket)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve_take(stream, pool.clone()));
    }
}
