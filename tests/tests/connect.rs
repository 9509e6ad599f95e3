//! HTTP CONNECT with curl and by hand.

#[path = "proxy/mod.rs"]
mod proxy;

use std::{net::SocketAddr, sync::Arc};

use prewarm_user::handover::connect;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use self::proxy::{Bench, Learnt, WAIT, curl, fetched, origin};

async fn serve(bench: &Bench) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reach, way) = (Arc::clone(&bench.reach), Arc::clone(&bench.way));
    let inside = Arc::clone(&way);
    let serve = move |stream, client| {
        let (reach, way) = (Arc::clone(&reach), Arc::clone(&inside));
        async move { connect::serve(stream, client, &reach, &way).await }
    };
    tokio::spawn(bench.gate.clone().open(listener, way, bench.stop.subscribe(), serve));
    address
}

async fn say(to: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(WAIT, stream.read_to_end(&mut answer)).await.expect("the connection is closed").unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_tunnels_by_name_and_address_and_gets_leases() {
    let bench = Bench::new();
    let (v4, v6) = (origin("127.0.0.1:0").await, origin("[::1]:0").await);
    let proxy = format!("http://{}", serve(&bench).await);
    let tunnel = ["--proxy", &proxy, "--proxytunnel"];
    let (name, address) = (format!("http://origin.example:{}/", v4.port()), format!("http://{v6}/"));
    let Some(page) = fetched(&[&tunnel[..], &[&name]].concat()).await else { return };
    assert_eq!(page, "hello");
    assert_eq!(fetched(&[&tunnel[..], &[&address]].concat()).await.unwrap(), "hello");
    bench.lease(v4).await;
    assert_eq!(fetched(&[&tunnel[..], &[&name]].concat()).await.unwrap(), "hello");
    let counters = bench.way.counters();
    assert_eq!((counters.taken, counters.missed, counters.failed), (1, 2, 0));
    let here = [127, 0, 0, 1].into();
    let named = |leased| Learnt::Named(here, "origin.example".to_owned(), v4.port(), leased);
    assert_eq!(
        bench.learnt(),
        [named(false), Learnt::Resolved("origin.example".to_owned()), Learnt::Connected(here, v6, false), named(true),]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why() {
    let bench = Bench::new();
    let proxy = serve(&bench).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let long = format!("CONNECT a.example:80 HTTP/1.1\r\nX: {}", "y".repeat(9000));
    for (request, status) in [
        (format!("CONNECT origin.example:{} HTTP/1.1\r\n\r\n", closed.port()), "502 "),
        ("CONNECT inner.example:80 HTTP/1.1\r\n\r\n".to_owned(), "403 "),
        ("CONNECT nowhere.example:80 HTTP/1.1\r\n\r\n".to_owned(), "502 "),
        ("CONNECT slow.example:80 HTTP/1.1\r\n\r\n".to_owned(), "504 "),
        ("CONNECT origin.example HTTP/1.1\r\n\r\n".to_owned(), "400 "),
        ("GET http://origin.example/ HTTP/1.1\r\n\r\n".to_owned(), "405 "),
        ("POST /x HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody".to_owned(), "405 "),
        ("BREW / HTTP/1.1\r\n\r\n".to_owned(), "501 "),
        ("\u{5}\u{1}\u{0}nonsense\r\n\r\n".to_owned(), "400 "),
        (long, "431 "),
    ] {
        let answer = say(proxy, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answer}");
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", text.len())), "{answer}");
        assert_eq!(head.contains("Allow: CONNECT"), status == "405 ", "{answer}");
    }
    let counters = bench.way.counters();
    assert_eq!((counters.taken, counters.missed, counters.failed), (0, 0, 3));
}

/// Without --proxytunnel curl sends GET to a proxy; what it is told helps.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_tunnel_is_told() {
    let bench = Bench::new();
    let proxy = format!("http://{}", serve(&bench).await);
    let Some(output) = curl(&["--proxy", &proxy, "http://origin.example/"]).await else { return };
    assert!(String::from_utf8_lossy(&output.stdout).contains("only CONNECT"), "{output:?}");
}

/// What stands behind the head is the tunnel's.
#[tokio::test(flavor = "multi_thread")]
async fn early_bytes_are_passed_on() {
    let bench = Bench::new();
    let to = origin("127.0.0.1:0").await;
    let proxy = serve(&bench).await;
    for leased in [false, true] {
        if leased {
            bench.lease(to).await;
        }
        let request = format!("CONNECT origin.example:{} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", to.port());
        let answer = say(proxy, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("hello"), "{answer}");
        assert_eq!(bench.way.counters().taken, u64::from(leased));
    }
}
