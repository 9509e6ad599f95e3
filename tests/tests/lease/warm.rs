//! Warm requests against real servers, plain and over TLS.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use prewarm_user::{
    config::WarmSettings,
    lease::{DialError, WarmError, WarmMethod, WarmRequest, Warmer},
    model::Timestamp,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Answers every request with these bytes; the requests it got.
fn serve(answer: &'static str, tls: Option<Arc<rustls::ServerConfig>>) -> (SocketAddr, mpsc::Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let request = match &tls {
                None => exchange(stream, answer),
                Some(tls) => {
                    let session = rustls::ServerConnection::new(Arc::clone(tls)).unwrap();
                    exchange(rustls::StreamOwned::new(session, stream), answer)
                }
            };
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

fn exchange<T: std::io::Read + Write>(stream: T, answer: &str) -> Vec<String> {
    let mut reader = BufReader::new(stream);
    let mut request = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        request.push(line.trim().to_owned());
    }
    drop(reader.get_mut().write_all(answer.as_bytes()));
    drop(reader.get_mut().flush());
    request
}

fn dial(address: SocketAddr) -> impl FnOnce() -> std::future::Ready<Result<OwnedFd, DialError>> + Send {
    move || std::future::ready(Ok(TcpStream::connect(address).unwrap().into()))
}

fn request(address: SocketAddr, tls: bool) -> WarmRequest {
    let origin = format!("localhost:{}", address.port()).parse().unwrap();
    WarmRequest { origin, path: "/page?x=1".into(), method: WarmMethod::Get, tls }
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nAge: 7\r\nX-Cache: HIT\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_request_goes_over_the_lease() {
    let (address, requests) = serve(GOOD, None);
    let warmer = Warmer::new(&WarmSettings::default()).unwrap();
    let warmed = warmer.warm(dial(address), &request(address, false), Timestamp::ZERO).await.unwrap();
    assert_eq!((warmed.status, warmed.bytes, warmed.truncated), (200, 5, false));
    assert_eq!((warmed.age_seconds, warmed.cache.as_deref(), warmed.was_hot()), (Some(7), Some("HIT"), Some(true)));
    let sent = requests.recv().unwrap();
    assert_eq!(sent[0], "GET /page?x=1 HTTP/1.1");
    assert!(sent.contains(&"sec-purpose: prefetch".to_owned()), "{sent:?}");
    assert!(!sent.iter().any(|line| line.to_lowercase().starts_with("cookie")), "{sent:?}");
}

#[tokio::test]
async fn over_tls_the_name_is_checked() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let (address, _requests) = serve(GOOD, Some(Arc::new(tls)));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key.cert.pem()).unwrap();

    let stranger = Warmer::new(&WarmSettings::default()).unwrap();
    let refused = stranger.warm(dial(address), &request(address, true), Timestamp::ZERO).await;
    assert!(matches!(refused, Err(WarmError::Connection(_))), "{refused:?}");

    let settings = WarmSettings { ca_file: Some(file.path().to_owned()), ..WarmSettings::default() };
    let warmer = Warmer::new(&settings).unwrap();
    let warmed = warmer.warm(dial(address), &request(address, true), Timestamp::ZERO).await.unwrap();
    assert_eq!((warmed.status, warmed.bytes), (200, 5));
    let mut other = request(address, true);
    other.origin = format!("other.example:{}", address.port()).parse().unwrap();
    let refused = warmer.warm(dial(address), &other, Timestamp::ZERO).await;
    assert!(matches!(refused, Err(WarmError::Connection(_))), "{refused:?}");

    let nothing = WarmSettings { ca_file: Some("/no/such/file".into()), ..WarmSettings::default() };
    assert!(Warmer::new(&nothing).is_err());
}

#[tokio::test]
async fn an_overloaded_origin_is_left_alone_as_long_as_it_says() {
    let (address, _requests) = serve("HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n", None);
    let warmer = Warmer::new(&WarmSettings::default()).unwrap();
    let request = request(address, false);
    let answer = warmer.warm(dial(address), &request, Timestamp::ZERO).await;
    assert!(matches!(answer, Err(WarmError::Overloaded { status: 503, rest }) if rest.as_secs() == 120), "{answer:?}");
    let later = Timestamp::ZERO + Duration::from_secs(119);
    let answer = warmer.warm(dial(address), &request, later).await;
    assert!(matches!(answer, Err(WarmError::Resting(left)) if left.as_secs() == 1), "{answer:?}");
    let answer = warmer.warm(dial(address), &request, later + Duration::from_secs(1)).await;
    assert!(matches!(answer, Err(WarmError::Overloaded { .. })), "asked again: {answer:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_a_body_has_an_end() {
    let (address, requests) =
        serve("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", None);
    let warmer = Warmer::new(&WarmSettings::default()).unwrap();
    let warmed = warmer.warm(dial(address), &request(address, false), Timestamp::ZERO).await.unwrap();
    assert_eq!((warmed.status, warmed.was_hot()), (302, None));
    assert_eq!(requests.iter().take(1).count(), 1);

    let (address, _requests) = serve("HTTP/1.1 200 OK\r\n\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", None);
    let small = Warmer::new(&WarmSettings { body_limit_bytes: 10, ..WarmSettings::default() }).unwrap();
    let warmed = small.warm(dial(address), &request(address, false), Timestamp::ZERO).await.unwrap();
    assert!(warmed.truncated && warmed.bytes >= 10);
}

#[tokio::test]
async fn silence_and_nonsense_are_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let hasty = Warmer::new(&WarmSettings { timeout_seconds: 0.05, ..WarmSettings::default() }).unwrap();
    let answer = hasty.warm(dial(address), &request(address, false), Timestamp::ZERO).await;
    assert!(matches!(answer, Err(WarmError::Timeout)), "{answer:?}");
    let (address, _requests) = serve("SSH-2.0-OpenSSH\r\n\r\n", None);
    let warmer = Warmer::new(&WarmSettings::default()).unwrap();
    let answer = warmer.warm(dial(address), &request(address, false), Timestamp::ZERO).await;
    assert!(matches!(answer, Err(WarmError::Exchange(_))), "{answer:?}");
}
