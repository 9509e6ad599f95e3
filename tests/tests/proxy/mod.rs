//! What the tests of the proxies share: a pool, a resolver that knows a few names, and a listener for clients.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::allow_attributes, reason = "what is unused differs from binary to binary")]

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use prewarm_user::{
    config::LeaseSettings,
    handover::{
        Way, Witness,
        gate::Gate,
        reach::{Admission, Reach},
        relay::Pipes,
    },
    lease::{LeaseOrder, LeaseState, Pacing, Pool, Reason, TcpDialer},
    model::{Name, Outcome, Timestamp},
    resolve::{Lookups, ResolveError, Resolved, Resolver},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

pub(crate) const WAIT: Duration = Duration::from_secs(10);

/// Knows `origin.example` and where nobody listens.
pub(crate) struct Names;

impl Resolver for Names {
    async fn lookup(&self, name: &Name) -> Result<Resolved, ResolveError> {
        let addresses = match name.to_string().as_str() {
            "origin.example" => vec![IpAddr::from([127, 0, 0, 1])],
            "both.example" => vec![Ipv6Addr::LOCALHOST.into(), [127, 0, 0, 1].into()],
            "inner.example" => vec![IpAddr::from([10, 9, 9, 9])],
            "empty.example" => Vec::new(),
            "slow.example" => return Err(ResolveError::Timeout(WAIT)),
            _ => return Err(ResolveError::NoSuchName),
        };
        Ok(Resolved { addresses, ttl: Duration::from_secs(60), took: Duration::ZERO })
    }
}

/// What was learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Learnt {
    Connected(IpAddr, SocketAddr, bool),
    Named(IpAddr, String, u16, bool),
    Resolved(String),
}

#[derive(Default)]
pub(crate) struct Notes(Mutex<Vec<Learnt>>);

impl Notes {
    fn note(&self, learnt: Learnt) {
        self.0.lock().unwrap().push(learnt);
    }
}

impl Witness for Notes {
    fn connected(&self, destination: SocketAddr, leased: bool) {
        self.connected_from([127, 0, 0, 1].into(), destination, leased);
    }

    fn connected_from(&self, client: IpAddr, destination: SocketAddr, leased: bool) {
        self.note(Learnt::Connected(client, destination, leased));
    }

    fn named(&self, client: IpAddr, name: &Name, port: u16, leased: bool) {
        self.note(Learnt::Named(client, name.to_string(), port, leased));
    }

    fn resolved(&self, name: &Name, _answer: &Resolved) {
        self.note(Learnt::Resolved(name.to_string()));
    }
}

/// Everything behind a proxy's listener.
pub(crate) struct Bench {
    pub(crate) reach: Arc<Reach<Names>>,
    pub(crate) way: Arc<Way>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) gate: Gate,
    _outcomes: mpsc::Receiver<Outcome>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(&["127.0.0.0/8", "::1/128"], 64)
    }

    pub(crate) fn with(clients: &[&str], connections: u32) -> Self {
        let (sender, outcomes) = mpsc::channel(64);
        let dialer = Arc::new(TcpDialer::default());
        let settings = LeaseSettings::default();
        let pool = Pool::start(&settings, dialer.clone(), Arc::new(|_, _| Ok(())), sender, Timestamp::ZERO).unwrap();
        let notes = Arc::new(Notes::default());
        let admission: Admission =
            Arc::new(
                |_, address, _| {
                    if address == IpAddr::from([10, 9, 9, 9]) { Err("private".to_owned()) } else { Ok(()) }
                },
            );
        let reach = Reach {
            lookups: Arc::new(Lookups::new(Names, 8)),
            pool,
            dialer,
            pacing: Pacing { attempt_delay: Duration::from_millis(100), connect_timeout: Duration::from_millis(500) },
            admission,
            witness: Arc::clone(&notes) as _,
            pipes: Arc::new(Pipes::default()),
        };
        let clients: Vec<_> = clients.iter().map(|network| network.parse().unwrap()).collect();
        Self {
            reach: Arc::new(reach),
            way: Arc::default(),
            notes,
            stop: watch::channel(false).0,
            gate: Gate::new(&clients, connections),
            _outcomes: outcomes,
        }
    }

    pub(crate) fn learnt(&self) -> Vec<Learnt> {
        self.notes.0.lock().unwrap().clone()
    }

    /// Opens a lease for `origin.example`.
    pub(crate) async fn lease(&self, to: SocketAddr) {
        self.reach.pool.lease(LeaseOrder {
            intent: None,
            reason: Reason::Wanted,
            origin: format!("origin.example:{}", to.port()).parse().unwrap(),
            addresses: vec![to.ip()],
            until: Timestamp::ZERO + Duration::from_secs(20),
        });
        while !self.reach.pool.leases().iter().any(|lease| lease.state == LeaseState::Ready) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A web server that says by each answer how long its connection was silent before.
pub(crate) async fn origin(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream));
        }
    });
    address
}

async fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").await);
}

/// Runs curl; none where there is none.
pub(crate) async fn curl(arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "8", "--noproxy", ""]).args(arguments);
    command.stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    if ran.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return None;
    }
    Some(ran.unwrap())
}

/// What curl got.
pub(crate) async fn fetched(arguments: &[&str]) -> Option<String> {
    let output = curl(arguments).await?;
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}
