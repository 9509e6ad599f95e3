//! A daemon that does nothing but keep leases and take forwarded connections over, as a process of its own, so that
//! tests can kill and stop it: `tproxy-daemon INTERFACE TABLE`. It reads lines and answers each with one line of JSON:
//! `lease ADDRESS:PORT COUNT`, `stats`, `stop`.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use prewarm_user::{
    config::LeaseSettings,
    handover::{
        Way, Witness,
        heartbeat::beat,
        relay::Pipes,
        tproxy::{Listeners, Tproxy},
    },
    kernel::{Key, Programs, Settings, Steering, TproxyPlace, object},
    lease::{LeaseOrder, LeaseState, Pool, Reason, TcpDialer},
    model::{Name, Timestamp},
};
use tokio::io::{AsyncBufReadExt as _, BufReader};

const MARK: u32 = 0x7072_7401;

struct Nobody;

impl Witness for Nobody {
    fn connected(&self, _destination: SocketAddr, _leased: bool) {}

    fn named(&self, _client: IpAddr, _name: &Name, _port: u16, _leased: bool) {}
}

fn say(line: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, table] = &arguments[..] else { anyhow::bail!("tproxy-daemon INTERFACE TABLE") };
    let settings = LeaseSettings { idle_seconds: 60.0, ..LeaseSettings::default() };
    let (outcomes, mut unread) = tokio::sync::mpsc::channel(1000);
    tokio::spawn(async move { while unread.recv().await.is_some() {} });
    let dialer = Arc::new(TcpDialer::default());
    let pool = Pool::start(&settings, dialer.clone(), Arc::new(|_, _| Ok(())), outcomes, Timestamp::ZERO)?;
    let load = Settings { tproxy: true, ..Settings::new(Key::from_secret(&[1; 32])) };
    let mut programs = Programs::load(object().context("no kernel programs")?, &load)?;
    let steering = Steering::set(MARK, table.parse()?).await?;
    let listeners = Listeners::bind(steering.has_v6())?;
    let (port4, port6) = listeners.ports()?;
    let place = TproxyPlace { mark: MARK, port4: Some(port4), port6 };
    let parts = programs.tproxy(place, std::slice::from_ref(interface), true)?;
    let heart = tokio::spawn(beat(programs.heartbeat()?));
    let (witness, pipes) = (Arc::new(Nobody), Arc::new(Pipes::default()));
    let tproxy = Tproxy::start(parts, listeners, &pool, dialer, witness, pipes, Arc::new(Way::default()))?;
    say(&serde_json::json!("ready"))?;

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut origins = 0;
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["lease", destination, count] => {
                let (destination, count): (SocketAddr, usize) = (destination.parse()?, count.parse()?);
                let before = ready(&pool);
                for _ in 0..count {
                    origins += 1;
                    pool.lease(LeaseOrder {
                        intent: None,
                        reason: Reason::Wanted,
                        origin: format!("origin{origins}.example:{}", destination.port()).parse()?,
                        addresses: vec![destination.ip()],
                        until: Timestamp::from_nanos(u64::MAX),
                    });
                }
                while ready(&pool) < before + count {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                say(&serde_json::json!("leased"))?;
            }
            ["stats"] => {
                let (way, kernel) = tproxy.stats();
                let (ready, returned) = (ready(&pool), pool.counters().given_back);
                say(&serde_json::json!({ "way": way, "kernel": kernel, "ready": ready, "returned": returned }))?;
            }
            ["stop"] => {
                heart.abort();
                tproxy.stop().await;
                steering.remove().await?;
                pool.drain().await;
                say(&serde_json::json!("stopped"))?;
                break;
            }
            _ => anyhow::bail!("{line:?} is not understood"),
        }
    }
    Ok(())
}

fn ready(pool: &Pool) -> usize {
    pool.leases().iter().filter(|lease| lease.state == LeaseState::Ready).count()
}
