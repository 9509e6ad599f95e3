//! A daemon that does nothing but keep leases and redirect connections to them, as a process of its own, so that tests
//! can kill and stop it: `redirect-daemon SETTINGS`, where that is the text of a `[handover]` section. It reads lines and
//! answers each with one line of JSON: `lease ADDRESS:PORT COUNT`, `want ADDRESS:PORT COUNT`, `stats`, `stop MS`.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use prewarm_user::{
    config::{HandoverSettings, LeaseSettings},
    handover::{
        Witness,
        heartbeat::beat,
        redirect::{Redirect, Service, rules},
        relay::Pipes,
    },
    kernel::{Key, Programs, Settings, object},
    lease::{LeaseOrder, LeaseState, Pool, Reason, TcpDialer},
    model::{Name, Origin, Timestamp},
    resolve::Resolved,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};

struct Nobody;

impl Witness for Nobody {
    fn connected(&self, _destination: SocketAddr, _leased: bool) {}

    fn connected_from(&self, _client: IpAddr, _destination: SocketAddr, _leased: bool) {}

    fn named(&self, _client: IpAddr, _name: &Name, _port: u16, _leased: bool) {}

    fn resolved(&self, _name: &Name, _answer: &Resolved) {}
}

fn say(line: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let text = std::env::args().nth(1).context("redirect-daemon SETTINGS")?;
    let handover: HandoverSettings = toml::from_str(&text)?;
    let settings = LeaseSettings {
        total: 4000,
        per_origin: 64,
        per_address: 256,
        dials_per_second: 1e4,
        dial_burst: 4000,
        idle_seconds: 60.0,
        // The tests count connections.
        demand: false,
        ..LeaseSettings::default()
    };
    let (outcomes, mut unread) = tokio::sync::mpsc::channel(1000);
    tokio::spawn(async move { while unread.recv().await.is_some() {} });
    let pool =
        Pool::start(&settings, Arc::new(TcpDialer::default()), Arc::new(|_, _| Ok(())), outcomes, Timestamp::ZERO)?;
    let load = Settings { redirect: true, ..Settings::new(Key::from_secret(&[1; 32])) };
    let mut programs = Programs::load(object().context("no kernel programs")?, &load)?;
    let parts = programs.redirect(&rules(&handover)?)?;
    let heart = tokio::spawn(beat(programs.heartbeat()?));
    let service = Service {
        pool: pool.clone(),
        dialer: Arc::new(TcpDialer::default()),
        witness: Arc::new(Nobody),
        pipes: Arc::new(Pipes::default()),
    };
    let redirect = Redirect::start(parts, &handover.redirect, service)?;
    say(&serde_json::json!("ready"))?;

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut origins = 0;
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [how @ ("lease" | "want"), destination, count] => {
                let (destination, count): (SocketAddr, usize) = (destination.parse()?, count.parse()?);
                let before = ready(&pool);
                let until = Timestamp::from_nanos(u64::MAX);
                let mut origin = || -> anyhow::Result<Origin> {
                    origins += 1;
                    Ok(format!("origin{origins}.example:{}", destination.port()).parse()?)
                };
                if how == "want" {
                    pool.want(origin()?, vec![destination.ip()], until, u32::try_from(count)?);
                } else {
                    for _ in 0..count {
                        let (origin, addresses) = (origin()?, vec![destination.ip()]);
                        pool.lease(LeaseOrder { intent: None, reason: Reason::Wanted, origin, addresses, until });
                    }
                }
                while ready(&pool) < before + count {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                say(&serde_json::json!("leased"))?;
            }
            ["stats"] => {
                let mut stats = serde_json::to_value(redirect.stats())?;
                let way = stats["way"].as_object().cloned().unwrap_or_default();
                stats.as_object_mut().context("stats")?.extend(way);
                stats["ready"] = ready(&pool).into();
                stats["leases"] = serde_json::to_value(pool.counters())?;
                say(&stats)?;
            }
            ["stop", millis] => {
                redirect.close().await;
                redirect.drain(Duration::from_millis(millis.parse()?)).await;
                heart.abort();
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
