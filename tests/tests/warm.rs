//! What prewarm sends itself over connections that it holds: against nginx with TLS 1.3, behind a link of 40 ms.
//!
//! nginx is the witness: its log says over which connection a request came, which one it was on it, and whether the TLS
//! session had been resumed.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use prewarm_tests::{
    clock,
    link::DelayedLink,
    needs::{self, skip},
    netns::Namespace,
    servers::Certificates,
    service::Service,
};
use prewarm_user::{
    config::WarmSettings,
    lease::{DialError, WarmMethod, WarmRequest, Warmed, Warmer},
    model::Timestamp,
};

const ROUND_TRIP: Duration = Duration::from_millis(40);
const NAME: &str = "origin.example";

struct Bench {
    near: Namespace,
    _far: Namespace,
    _link: DelayedLink,
    _nginx: Service,
    warmer: Warmer,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// nginx with these settings of its server; none where this machine can't.
    fn new(listen: &str, settings: &str) -> Option<Self> {
        if skip(needs::WORLD) {
            return None;
        }
        Some(Self::build(listen, settings).unwrap_or_else(|error| panic!("{error:#}")))
    }

    fn build(listen: &str, settings: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (near, far) = (Namespace::create("near")?, Namespace::create("far")?);
        let link = DelayedLink::join((&near, "wan"), (&far, "wan"), ROUND_TRIP)?;
        near.ip(&["addr", "add", "10.77.9.1/30", "dev", "wan"])?;
        far.ip(&["addr", "add", "10.77.9.2/30", "dev", "wan"])?;
        let certificates = Certificates::issue(&[NAME.to_owned()], folder.path())?;
        let log = folder.path().join("access.log");
        let configuration = configuration(folder.path(), &certificates, &log, listen, settings);
        let path = folder.path().join("nginx.conf");
        fs::write(&path, configuration)?;
        let nginx = start(&far, folder.path())?;
        let warming = WarmSettings { ca_file: Some(certificates.authority), ..WarmSettings::default() };
        Ok(Self { near, _far: far, _link: link, _nginx: nginx, warmer: Warmer::new(&warming)?, log, _folder: folder })
    }

    /// One request; the time it took.
    async fn warm(&self, tls: bool) -> (Warmed, Duration) {
        let address: SocketAddr = if tls { "10.77.9.2:443" } else { "10.77.9.2:80" }.parse().unwrap();
        let origin = format!("{NAME}:{}", address.port()).parse().unwrap();
        let request = WarmRequest { origin, path: "/a".into(), method: WarmMethod::Get, tls };
        let dial = || async {
            let stream = self.near.enter(|| {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Ok(stream)
            });
            stream.map(Into::into).map_err(|error| DialError::Unreachable(std::io::Error::other(error)))
        };
        let begun = clock::now();
        let warmed = self.warmer.warm(dial, &request, Timestamp::ZERO).await.unwrap();
        assert_eq!((warmed.status, warmed.bytes), (200, 5));
        (warmed, clock::now() - begun)
    }

    /// What nginx says of `count` requests: connection, number on it, protocol, whether its session was resumed.
    fn seen(&self, count: usize) -> Vec<[String; 4]> {
        clock::wait_for("nginx to log", Duration::from_secs(5), || {
            let text = fs::read_to_string(&self.log)?;
            let lines: Vec<_> = text
                .lines()
                .map(|line| {
                    let mut words = line.split(' ').map(str::to_owned);
                    std::array::from_fn(|_| words.next().unwrap_or_default())
                })
                .collect();
            Ok((lines.len() == count).then_some(lines))
        })
        .unwrap()
    }
}

fn start(far: &Namespace, folder: &Path) -> Result<Service> {
    let mut command = far.command("/usr/sbin/nginx");
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).arg("-e").arg(folder.join("error.log"));
    let mut service = Service::start("nginx", command, folder)?;
    service.ready(|| far.enter(|| Ok(TcpStream::connect("10.77.9.2:80")?)).ok())?;
    Ok(service)
}

fn configuration(folder: &Path, certificates: &Certificates, log: &Path, listen: &str, settings: &str) -> String {
    format!(
        "daemon off;\nmaster_process off;\nuser root;\npid {folder}/nginx.pid;\nevents {{ }}\n\
         http {{\n\
           log_format used '$connection $connection_requests $server_protocol $ssl_session_reused';\n\
           access_log {log} used;\n\
           client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n\
           uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
           ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;\n\
           ssl_session_cache shared:sessions:1m;\n\
           server {{ listen 80; listen 443 {listen}; server_name {NAME}; {settings}\n\
             location / {{ return 200 'hello'; }} }}\n\
         }}\n",
        folder = folder.display(),
        log = log.display(),
        certificate = certificates.certificate.display(),
        key = certificates.key.display(),
    )
}

/// Round trips, to the nearest whole one below.
fn round_trips(took: Duration) -> u128 {
    took.as_millis() / ROUND_TRIP.as_millis()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_request_costs_one_round_trip_over_either_protocol() {
    for (listen, protocol) in [("ssl http2", "HTTP/2.0"), ("ssl", "HTTP/1.1")] {
        let Some(bench) = Bench::new(listen, "") else { return };
        let (first, cold) = bench.warm(true).await;
        // The best of a few: a busy machine adds to any of them.
        let mut warm = Duration::MAX;
        for _ in 0..5 {
            let (next, took) = bench.warm(true).await;
            assert!(next.reused && !first.reused, "{protocol}");
            warm = warm.min(took);
        }
        // TCP, TLS 1.3, the request; then the request alone.
        assert!(round_trips(cold) >= 3 && round_trips(warm) == 1, "{protocol}: {cold:?}, then {warm:?}");
        eprintln!("{protocol}: {cold:.1?}, then {warm:.1?}");
        let seen = bench.seen(6);
        assert!(seen.iter().all(|line| line[0] == seen[0][0]), "one connection: {seen:?}");
        let numbers: Vec<_> = seen.iter().map(|line| line[1].as_str()).collect();
        assert_eq!(numbers, ["1", "2", "3", "4", "5", "6"]);
        assert!(seen.iter().all(|line| line[2] == protocol), "{seen:?}");
        let counters = bench.warmer.counters();
        assert_eq!((counters.opened, counters.reused, counters.retried, counters.held), (1, 5, 0, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_resumed_after_the_server_closed() {
    // Every connection ends with its first request: in HTTP/2 by GOAWAY, in HTTP/1.1 by a header.
    for listen in ["ssl http2", "ssl"] {
        let Some(bench) = Bench::new(listen, "keepalive_requests 1;") else { return };
        bench.warm(true).await;
        clock::wait_for("the connection to end", Duration::from_secs(5), || {
            Ok((bench.warmer.counters().held == 0).then_some(()))
        })
        .unwrap();
        let (again, _) = bench.warm(true).await;
        assert!(!again.reused);
        let seen = bench.seen(2);
        assert_ne!(seen[0][0], seen[1][0], "two connections: {seen:?}");
        assert_eq!([seen[0][3].as_str(), seen[1][3].as_str()], [".", "r"], "{listen}");
        assert_eq!((bench.warmer.counters().opened, bench.warmer.counters().resumed), (2, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_over_a_connection_that_just_died_is_sent_again() {
    // The close is under way, half a round trip from here, when the second request is sent.
    for listen in ["ssl http2", "ssl"] {
        let Some(bench) = Bench::new(listen, "keepalive_timeout 200ms;") else { return };
        let (first, _) = bench.warm(true).await;
        // nginx counts from when it sent the answer, which came half a round trip ago.
        tokio::time::sleep(Duration::from_millis(190)).await;
        let (second, _) = bench.warm(true).await;
        assert!(!first.reused && !second.reused);
        let counters = bench.warmer.counters();
        assert_eq!((counters.opened, counters.resumed, counters.retried), (2, 1, 1), "{listen}");
        assert_eq!(bench.seen(2).len(), 2, "no request came twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_plain_and_what_is_not_never_mix() {
    let Some(bench) = Bench::new("ssl http2", "") else { return };
    bench.warm(true).await;
    let (plain, took) = bench.warm(false).await;
    assert!(!plain.reused);
    assert!(round_trips(took) >= 2, "{took:?}");
    let (again, took) = bench.warm(false).await;
    assert!(again.reused && round_trips(took) >= 1, "{took:?}");
    assert_eq!(bench.warmer.counters().held, 2);
}
