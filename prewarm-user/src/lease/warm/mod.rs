//! Safe requests of prewarm's own, so that caches on the other side are hot.
//!
//! Comes in: a path of a configured origin, a way to dial it. Goes out: what the origin answered, and how long it wants
//! to be left alone. Connections and TLS sessions are kept between requests, HTTP/2 where the origin speaks it. Never
//! here: an unsafe method, a cookie, a credential, a redirect that is followed, or a body that is kept.

mod channel;
mod held;
mod message;

use std::{
    collections::HashMap,
    fs, io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::{Instant, timeout};

use self::{channel::Channel, held::Held, message::retry_after};
use super::dial::DialError;
use crate::{
    config::WarmSettings,
    model::{Origin, Timestamp},
};

/// Origins whose wish to be left alone is remembered.
const REMEMBERED: usize = 4096;
/// Servers whose TLS sessions are remembered.
const SESSIONS: usize = 1024;

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
    /// From the begin of the dial, or on a connection that was held, of the request, to the last byte read.
    pub took: Duration,
    /// Whether it went over a connection that had been held.
    pub reused: bool,
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
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
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

/// How requests travelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmCounters {
    /// Connections opened.
    pub opened: u64,
    /// Of those with TLS, the ones whose session went on where an earlier one ended.
    pub resumed: u64,
    /// Requests over a connection that had been held.
    pub reused: u64,
    /// Requests sent again because the held connection died under them.
    pub retried: u64,
    /// Connections held now.
    pub held: u64,
}

/// Sends warm requests.
#[derive(Debug)]
pub struct Warmer {
    tls: Arc<ClientConfig>,
    held: Held,
    limit: Duration,
    body_limit: u64,
    rest: Duration,
    rest_ceiling: Duration,
    resting: Mutex<HashMap<Origin, Timestamp>>,
    opened: AtomicU64,
    resumed: AtomicU64,
    reused: AtomicU64,
    retried: AtomicU64,
}

/// An answer that was read.
struct Read {
    head: http::response::Parts,
    bytes: u64,
    truncated: bool,
    reused: bool,
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
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls.resumption = Resumption::in_memory_sessions(SESSIONS);
        let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or_default();
        Ok(Self {
            tls: Arc::new(tls),
            held: Held::default(),
            limit: seconds(settings.timeout_seconds),
            body_limit: settings.body_limit_bytes,
            rest: seconds(settings.rest_seconds),
            rest_ceiling: seconds(settings.rest_ceiling_seconds),
            resting: Mutex::default(),
            opened: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            retried: AtomicU64::new(0),
        })
    }

    /// How long an origin still wants to be left alone.
    #[must_use]
    pub fn resting(&self, origin: &Origin, now: Timestamp) -> Option<Duration> {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.get(origin).map(|until| until.since(now)).filter(|left| !left.is_zero())
    }

    /// How requests travelled so far.
    #[must_use]
    pub fn counters(&self) -> WarmCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WarmCounters {
            opened: read(&self.opened),
            resumed: read(&self.resumed),
            reused: read(&self.reused),
            retried: read(&self.retried),
            held: self.held.len() as u64,
        }
    }

    /// Sends one request, over a connection that is held, else over a new one from `dial`.
    ///
    /// # Errors
    /// When the origin wants to be left alone, or does not answer as it should. Trying again is safe, later.
    pub async fn warm<D, F>(&self, dial: D, request: &WarmRequest, now: Timestamp) -> Result<Warmed, WarmError>
    where
        D: FnOnce() -> F + Send,
        F: Future<Output = Result<OwnedFd, DialError>> + Send,
    {
        if let Some(left) = self.resting(&request.origin, now) {
            return Err(WarmError::Resting(left));
        }
        let begun = Instant::now();
        let Ok(read) = timeout(self.limit, self.exchange(dial, request)).await else {
            // What fell silent once is not trusted with the next request.
            self.held.forget(&request.origin, request.tls);
            return Err(WarmError::Timeout);
        };
        let Read { head, bytes, truncated, reused } = read?;
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
            reused,
        })
    }

    async fn exchange<D, F>(&self, dial: D, request: &WarmRequest) -> Result<Read, WarmError>
    where
        D: FnOnce() -> F + Send,
        F: Future<Output = Result<OwnedFd, DialError>> + Send,
    {
        if let Some(mut channel) = self.held.take(&request.origin, request.tls) {
            match channel.send(request).await {
                Ok(answer) => {
                    self.reused.fetch_add(1, Ordering::Relaxed);
                    return self.read(channel, request, answer, true).await;
                }
                // The close of an idle connection met the request: no answer began, and asking again changes nothing.
                Err(WarmError::Exchange(error)) if !error.is_parse() => {
                    channel.abort();
                    self.retried.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(origin = %request.origin, %error, "warm: a held connection was dead");
                }
                Err(error) => return Err(error),
            }
        }
        let mut channel = Channel::open(dial().await?, request, &self.tls).await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.resumed.fetch_add(u64::from(channel.resumed == Some(true)), Ordering::Relaxed);
        let answer = channel.send(request).await?;
        self.read(channel, request, answer, false).await
    }

    /// Reads the body, which passes all caches on the way, and throws it away; keeps the connection where it can carry
    /// another request.
    async fn read(
        &self,
        mut channel: Channel,
        request: &WarmRequest,
        answer: Response<Incoming>,
        reused: bool,
    ) -> Result<Read, WarmError> {
        let (head, mut body) = answer.into_parts();
        let (mut bytes, mut truncated) = (0, false);
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len) as u64;
            if bytes >= self.body_limit {
                truncated = true;
                break;
            }
        }
        drop(body);
        if truncated && head.version != http::Version::HTTP_2 {
            // The rest of the answer would have to be read before another.
            channel.abort();
        } else if channel.is_reusable().await {
            self.held.put(&request.origin, request.tls, channel, message::keep_alive(&head.headers));
        }
        Ok(Read { head, bytes, truncated, reused })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_say_what_they_did() {
        let warmed = |cache: Option<&str>, age| Warmed {
            status: 200,
            bytes: 0,
            truncated: false,
            age_seconds: age,
            cache: cache.map(str::to_owned),
            took: Duration::ZERO,
            reused: false,
        };
        assert_eq!(warmed(Some("HIT, MISS"), None).was_hot(), Some(true));
        assert_eq!(warmed(Some("TCP_MISS"), Some(0)).was_hot(), Some(false));
        assert_eq!(warmed(Some("edge; fwd=uri-miss; stored"), None).was_hot(), Some(false));
        assert_eq!(warmed(None, Some(12)).was_hot(), Some(true));
        assert_eq!(warmed(None, None).was_hot(), None);
    }
}
