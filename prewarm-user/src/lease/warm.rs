//! One safe request over a leased connection, so that caches on the other side are hot.
//!
//! Comes in: a connection, a path of a configured origin. Goes out: what the origin answered, and how long it wants to be
//! left alone. Never here: an unsafe method, a cookie, a credential, a redirect that is followed, or a body that is kept.

use std::{
    collections::HashMap,
    fs, io,
    net::TcpStream as StdStream,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    config::WarmSettings,
    model::{Origin, Timestamp},
};

/// What such requests say they are.
const AGENT: &str = concat!("prewarm/", env!("CARGO_PKG_VERSION"));
/// Origins whose wish to be left alone is remembered.
const REMEMBERED: usize = 4096;

/// The methods that change nothing at the origin (RFC 9110, 9.2.1), as far as they are of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmMethod {
    /// The whole content passes the caches in between.
    Get,
    /// Only what is said about it; not every cache fetches the content for that.
    Head,
}

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmRequest {
    /// To whom.
    pub origin: Origin,
    /// For what: a path with its query, beginning with a slash.
    pub path: String,
    /// How.
    pub method: WarmMethod,
    /// Whether over TLS.
    pub tls: bool,
}

/// What the origin answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmed {
    /// The status.
    pub status: u16,
    /// Bytes of the body that were read.
    pub bytes: u64,
    /// Whether there was more.
    pub truncated: bool,
    /// How old a cache says its answer is (`Age`), in seconds.
    pub age_seconds: Option<u64>,
    /// What a cache says it did: `Cache-Status` (RFC 9211), or `X-Cache`.
    pub cache: Option<String>,
    /// From the first byte sent, TLS included, to the last byte read.
    pub took: Duration,
}

impl Warmed {
    /// Whether a cache on the way had it already, where it says so.
    #[must_use]
    pub fn was_hot(&self) -> Option<bool> {
        let cache = self.cache.as_ref().map(|text| text.to_ascii_lowercase());
        match (cache, self.age_seconds) {
            (Some(text), _) if text.contains("hit") => Some(true),
            (Some(text), _) if text.contains("miss") || text.contains("fwd=") => Some(false),
            (_, Some(age)) => Some(age > 0),
            _ => None,
        }
    }
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum WarmError {
    /// The origin asked to be left alone.
    #[error("the origin asked to be left alone for {} s more", .0.as_secs())]
    Resting(Duration),
    /// The origin answers that it is overloaded; it is left alone now.
    #[error("the origin answered {status} and is left alone for {} s", .rest.as_secs())]
    Overloaded {
        /// 429 or 503.
        status: u16,
        /// For how long.
        rest: Duration,
    },
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The path can't stand in a request.
    #[error("the request can't be written")]
    Request(#[from] http::Error),
    /// The connection failed, or TLS on it.
    #[error("the connection failed")]
    Connection(#[from] io::Error),
    /// The origin does not speak HTTP.
    #[error("the exchange failed")]
    Exchange(#[from] hyper::Error),
}

/// Why there can be no warm requests.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The extra certificates can't be read.
    #[error("the certificates in {path} can't be read")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
}

/// Sends warm requests.
#[derive(Debug)]
pub struct Warmer {
    tls: Arc<ClientConfig>,
    limit: Duration,
    body_limit: u64,
    rest: Duration,
    rest_ceiling: Duration,
    resting: Mutex<HashMap<Origin, Timestamp>>,
}

impl Warmer {
    /// Reads the certificates that are trusted.
    ///
    /// # Errors
    /// When the extra certificates can't be read. A system without certificates is none: plain HTTP needs none.
    pub fn new(settings: &WarmSettings) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        // A certificate of the system that can't be parsed is one that nobody else can use either.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &settings.ca_file {
            let refuse = |source| TrustError::File { path: path.clone(), source };
            let text = fs::read(path).map_err(|error| refuse(error.into()))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                roots.add(certificate.map_err(|error| refuse(error.into()))?).map_err(|error| refuse(error.into()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or_default();
        Ok(Self {
            tls: Arc::new(tls),
            limit: seconds(settings.timeout_seconds),
            body_limit: settings.body_limit_bytes,
            rest: seconds(settings.rest_seconds),
            rest_ceiling: seconds(settings.rest_ceiling_seconds),
            resting: Mutex::default(),
        })
    }

    /// How long an origin still wants to be left alone.
    #[must_use]
    pub fn resting(&self, origin: &Origin, now: Timestamp) -> Option<Duration> {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.get(origin).map(|until| until.since(now)).filter(|left| !left.is_zero())
    }

    /// Sends one request over a connection, which is closed afterwards.
    ///
    /// # Errors
    /// When the origin wants to be left alone, or does not answer as it should. Trying again is safe, later.
    pub async fn warm(&self, connection: OwnedFd, request: &WarmRequest, now: Timestamp) -> Result<Warmed, WarmError> {
        if let Some(left) = self.resting(&request.origin, now) {
            return Err(WarmError::Resting(left));
        }
        let begun = Instant::now();
        let exchange = async {
            let stream = StdStream::from(connection);
            stream.set_nonblocking(true)?;
            let stream = TcpStream::from_std(stream)?;
            if request.tls {
                let name = ServerName::try_from(request.origin.name.to_string()).map_err(io::Error::other)?;
                let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
                self.exchange(stream, request).await
            } else {
                self.exchange(stream, request).await
            }
        };
        let (head, bytes, truncated) = timeout(self.limit, exchange).await.map_err(|_elapsed| WarmError::Timeout)??;
        if let StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE = head.status {
            let rest = self.leave_alone(&request.origin, &head.headers, now);
            return Err(WarmError::Overloaded { status: head.status.as_u16(), rest });
        }
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        Ok(Warmed {
            status: head.status.as_u16(),
            bytes,
            truncated,
            age_seconds: text("age").and_then(|age| age.trim().parse().ok()),
            cache: text("cache-status").or_else(|| text("x-cache")).map(str::to_owned),
            took: begun.elapsed(),
        })
    }

    async fn exchange<T>(
        &self,
        stream: T,
        request: &WarmRequest,
    ) -> Result<(http::response::Parts, u64, bool), WarmError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let message = message(request)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the exchange: dropping the sender or the body closes the connection.
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(message).await;
        let result = match answer {
            Ok(answer) => self.read(answer).await,
            Err(error) => Err(error.into()),
        };
        connection.abort();
        result
    }

    /// Reads the body, which passes all caches on the way, and throws it away.
    async fn read(&self, answer: Response<Incoming>) -> Result<(http::response::Parts, u64, bool), WarmError> {
        let (head, mut body) = answer.into_parts();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len) as u64;
            if bytes >= self.body_limit {
                return Ok((head, bytes, true));
            }
        }
        Ok((head, bytes, false))
    }

    fn leave_alone(&self, origin: &Origin, headers: &HeaderMap, now: Timestamp) -> Duration {
        let rest = retry_after(headers).unwrap_or(self.rest).min(self.rest_ceiling);
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        if resting.len() >= REMEMBERED {
            resting.retain(|_, until| *until > now);
        }
        // When thousands are overloaded at once, the one more is asked again a little early.
        if resting.len() < REMEMBERED {
            resting.insert(origin.clone(), now + rest);
        }
        rest
    }
}

/// The request as it is sent: nothing in it says who is behind it.
fn message(request: &WarmRequest) -> Result<Request<Empty<Bytes>>, http::Error> {
    let Origin { name, port } = &request.origin;
    let default = if request.tls { 443 } else { 80 };
    let host = if *port == default { name.to_string() } else { request.origin.to_string() };
    Request::builder()
        .method(match request.method {
            WarmMethod::Get => Method::GET,
            WarmMethod::Head => Method::HEAD,
        })
        .uri(request.path.as_str())
        .header(header::HOST, host)
        .header(header::USER_AGENT, AGENT)
        .header(header::ACCEPT, "*/*")
        .header("sec-purpose", "prefetch")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
}

/// `Retry-After` in seconds; the form with a date is as rare as it is hard to read, and the default rest stands for it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(origin: &str, tls: bool) -> WarmRequest {
        WarmRequest { origin: origin.parse().unwrap(), path: "/a?b=1".into(), method: WarmMethod::Head, tls }
    }

    #[test]
    fn a_request_says_what_it_is_and_nothing_else() {
        let message = message(&request("www.example.org:443", true)).unwrap();
        assert_eq!((message.method(), message.uri().to_string()), (&Method::HEAD, "/a?b=1".to_owned()));
        let headers: Vec<_> =
            message.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            headers,
            [
                ("host", "www.example.org"),
                ("user-agent", AGENT),
                ("accept", "*/*"),
                ("sec-purpose", "prefetch"),
                ("connection", "close"),
            ]
        );
        let other = super::message(&request("www.example.org:8443", true)).unwrap();
        assert_eq!(other.headers()["host"], "www.example.org:8443");
        let split = WarmRequest { path: "/\r\nX: y".into(), ..request("www.example.org:80", false) };
        assert!(super::message(&split).is_err());
    }

    #[test]
    fn caches_say_what_they_did() {
        let warmed = |cache: Option<&str>, age| Warmed {
            status: 200,
            bytes: 0,
            truncated: false,
            age_seconds: age,
            cache: cache.map(str::to_owned),
            took: Duration::ZERO,
        };
        assert_eq!(warmed(Some("HIT, MISS"), None).was_hot(), Some(true));
        assert_eq!(warmed(Some("TCP_MISS"), Some(0)).was_hot(), Some(false));
        assert_eq!(warmed(Some("edge; fwd=uri-miss; stored"), None).was_hot(), Some(false));
        assert_eq!(warmed(None, Some(12)).was_hot(), Some(true));
        assert_eq!(warmed(None, None).was_hot(), None);
    }
}
