//! SOCKS5 with curl and by hand: whoever asks gets a connection or a reason, and a lease where one waits.

#[path = "socks/daemon.rs"]
mod daemon;
#[path = "socks/learning.rs"]
mod learning;
#[path = "proxy/mod.rs"]
mod proxy;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prewarm_user::handover::{WayCounters, socks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use self::proxy::{Bench, Learnt, WAIT, fetched, origin};

/// Serves SOCKS at an address of loopback.
async fn serve(bench: &Bench, address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reach, way) = (Arc::clone(&bench.reach), Arc::clone(&bench.way));
    let inside = Arc::clone(&way);
    let serve = move |stream, client| {
        let (reach, way) = (Arc::clone(&reach), Arc::clone(&inside));
        async move { socks::serve(stream, client, &reach, &way).await }
    };
    tokio::spawn(bench.gate.clone().open(listener, way, bench.stop.subscribe(), serve));
    address
}

/// Says this and gives the whole answer.
async fn say(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // Whoever speaks something else may be reset.
    drop(timeout(WAIT, stream.read_to_end(&mut answer)).await.expect("the connection is closed"));
    answer
}

fn by_name(name: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [&[5, 1, 0, 5, 1, 0, 3, length][..], name.as_bytes(), &port.to_be_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_served_by_address_and_by_name() {
    let bench = Bench::new();
    let (v4, v6) = (origin("127.0.0.1:0").await, origin("[::1]:0").await);
    let proxy = serve(&bench, "127.0.0.1:0").await.to_string();
    let (by_address, by_v6) = (format!("http://{v4}/"), format!("http://{v6}/"));
    let by_name = format!("http://origin.example:{}/", v4.port());
    let Some(page) = fetched(&["--socks5", &proxy, &by_address]).await else { return };
    assert_eq!(page, "hello");
    assert_eq!(fetched(&["--socks5", &proxy, &by_v6]).await.unwrap(), "hello");
    assert_eq!(fetched(&["--socks5-hostname", &proxy, &by_name]).await.unwrap(), "hello");
    let here = [127, 0, 0, 1].into();
    assert_eq!(
        bench.learnt(),
        [
            Learnt::Connected(here, v4, false),
            Learnt::Connected(here, v6, false),
            Learnt::Named(here, "origin.example".to_owned(), v4.port(), false),
            Learnt::Resolved("origin.example".to_owned()),
        ]
    );
    let WayCounters { taken, missed, failed, refused, .. } = bench.way.counters();
    assert_eq!((taken, missed, failed, refused), (0, 3, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_waits_is_given() {
    let bench = Bench::new();
    let to = origin("127.0.0.1:0").await;
    let proxy = serve(&bench, "[::1]:0").await.to_string();
    for (index, url) in [format!("http://origin.example:{}/", to.port()), format!("http://{to}/")].iter().enumerate() {
        bench.lease(to).await;
        let Some(page) = fetched(&["--socks5-hostname", &proxy, url]).await else { return };
        assert_eq!(page, "hello");
        assert_eq!(bench.way.counters().taken, index as u64 + 1);
    }
    let here = std::net::Ipv6Addr::LOCALHOST.into();
    let named = Learnt::Named(here, "origin.example".to_owned(), to.port(), true);
    assert_eq!(bench.learnt(), [named, Learnt::Connected(here, to, true)], "not even a look-up is needed");
    assert!(bench.way.counters().bytes > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_does_not_answer_is_passed_over() {
    let bench = Bench::new();
    let to = origin("127.0.0.1:0").await;
    let proxy = serve(&bench, "127.0.0.1:0").await.to_string();
    // On ::1 nobody listens at that port.
    let url = format!("http://both.example:{}/", to.port());
    let Some(page) = fetched(&["--socks5-hostname", &proxy, &url]).await else { return };
    assert_eq!(page, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_codes() {
    let bench = Bench::new();
    let proxy = serve(&bench, "127.0.0.1:0").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let code = |answer: Vec<u8>| (answer[..2].to_vec(), answer.get(3).copied());
    let expect = |code: u8| (vec![5, 0], Some(code));
    for (name, port, reply) in [
        ("origin.example", closed.port(), 5),
        ("inner.example", 80, 2),
        ("nowhere.example", 80, 4),
        ("empty.example", 80, 4),
        ("slow.example", 80, 4),
        ("a..b", 80, 1),
        ("origin.example", 0, 1),
    ] {
        assert_eq!(code(say(proxy, &by_name(name, port)).await), expect(reply), "{name}:{port}");
    }
    // BIND, UDP ASSOCIATE, an address type that there is not, and no method that we have.
    assert_eq!(code(say(proxy, &[5, 1, 0, 5, 2, 0, 1, 127, 0, 0, 1, 0, 80]).await), expect(7));
    assert_eq!(code(say(proxy, &[5, 1, 0, 5, 3, 0, 1, 127, 0, 0, 1, 0, 80]).await), expect(7));
    assert_eq!(code(say(proxy, &[5, 1, 0, 5, 1, 0, 9, 127, 0, 0, 1, 0, 80, 1, 2, 3, 4, 5, 6, 7]).await), expect(8));
    assert_eq!(say(proxy, &[5, 1, 2]).await, [5, 0xff]);
    assert_eq!(say(proxy, b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00").await, b"", "SOCKS4 is not spoken");
    let counters = bench.way.counters();
    assert_eq!((counters.taken, counters.missed), (0, 0));
    assert_eq!((counters.failed, counters.refused), (4, 8));
}

/// What a client says before it has the reply belongs to the other end.
#[tokio::test(flavor = "multi_thread")]
async fn an_impatient_client_is_served() {
    let bench = Bench::new();
    let to = origin("127.0.0.1:0").await;
    let proxy = serve(&bench, "127.0.0.1:0").await;
    let said = [&by_name("origin.example", to.port())[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    // In one piece, and byte by byte.
    let whole = say(proxy, &said).await;
    assert!(whole.ends_with(b"hello") && whole.starts_with(&[5, 0, 5, 0, 0, 1]), "{whole:?}");
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in said {
        stream.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), whole.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_not_served() {
    let bench = Bench::with(&["192.0.2.0/24"], 8);
    let proxy = serve(&bench, "127.0.0.1:0").await;
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let mut answer = Vec::new();
    drop(timeout(WAIT, stream.read_to_end(&mut answer)).await.expect("it is closed at once"));
    assert!(answer.is_empty());
    assert_eq!(bench.way.counters().refused, 1);
}

/// As many as are allowed are served; the next one waits its turn.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_makes_clients_wait() {
    let bench = Bench::with(&["127.0.0.0/8"], 2);
    let proxy = serve(&bench, "127.0.0.1:0").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(proxy).await.unwrap();
        stream.write_all(&[5, 1, 0]).await.unwrap();
        streams.push(stream);
    }
    let mut last = streams.pop().unwrap();
    for stream in &mut streams {
        timeout(WAIT, stream.read_exact(&mut [0; 2])).await.unwrap().unwrap();
    }
    let waited = timeout(Duration::from_millis(300), last.read_exact(&mut [0; 2])).await;
    assert!(waited.is_err(), "a third is served");
    streams.clear();
    timeout(WAIT, last.read_exact(&mut [0; 2])).await.unwrap().unwrap();
}

/// A client that says nothing more is not waited for.
#[tokio::test]
async fn a_silent_client_is_given_up() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (mut client, (accepted, peer)) = (client.unwrap(), accepted.unwrap());
    client.write_all(&[5, 3, 0]).await.unwrap();
    let begun = tokio::time::Instant::now();
    socks::serve(accepted, peer, &bench.reach, &bench.way).await;
    assert!((9..=11).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(bench.way.counters().refused, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_the_listener_closes_first() {
    let bench = Bench::new();
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = echo.local_addr().unwrap();
    let proxy = serve(&bench, "127.0.0.1:0").await;
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(&by_name("origin.example", to.port())).await.unwrap();
    let (mut far, _) = echo.accept().await.unwrap();
    stream.read_exact(&mut [0; 12]).await.unwrap();
    bench.stop.send_replace(true);
    timeout(WAIT, async { while TcpStream::connect(proxy).await.is_ok() {} }).await.expect("nobody new is let in");
    // What runs gets a moment.
    stream.write_all(b"last").await.unwrap();
    far.read_exact(&mut [0; 4]).await.unwrap();
    let ended = timeout(WAIT, far.read(&mut [0])).await.expect("then it ends");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}
