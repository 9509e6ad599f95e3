//! What a warm request looks like on the wire, and what an answer's headers ask for.
//!
//! Comes in: a request, headers. Goes out: a message in which nothing says who is behind it; rests and lifetimes. Never
//! here: a cookie, a credential.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version, header};
use http_body_util::Empty;

use super::{WarmMethod, WarmRequest};
use crate::model::Origin;

/// What such requests say they are.
const AGENT: &str = concat!("prewarm/", env!("CARGO_PKG_VERSION"));

/// The request as it is sent: HTTP/1.1 names the host in a header, HTTP/2 in the URI.
pub(super) fn message(request: &WarmRequest, version: Version) -> Result<Request<Empty<Bytes>>, http::Error> {
    let Origin { name, port } = &request.origin;
    let (scheme, default) = if request.tls { ("https", 443) } else { ("http", 80) };
    let host = if *port == default { name.to_string() } else { request.origin.to_string() };
    let builder = Request::builder().version(version).method(match request.method {
        WarmMethod::Get => Method::GET,
        WarmMethod::Head => Method::HEAD,
    });
    let builder = if version == Version::HTTP_2 {
        builder.uri(format!("{scheme}://{host}{}", request.path))
    } else {
        builder.uri(request.path.as_str()).header(header::HOST, host)
    };
    builder
        .header(header::USER_AGENT, AGENT)
        .header(header::ACCEPT, "*/*")
        .header("sec-purpose", "prefetch")
        .body(Empty::new())
}

/// `Retry-After` in seconds; the form with a date is as rare as it is hard to read, and the default rest stands for it.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// How long a server says that it keeps an idle connection: `Keep-Alive: timeout=5, max=100` (RFC 2068, 19.7.1.1).
pub(super) fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("keep-alive")?.to_str().ok()?;
    let seconds = text.split(',').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().parse::<u32>().ok())?
    })?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(origin: &str, tls: bool) -> WarmRequest {
        WarmRequest { origin: origin.parse().unwrap(), path: "/a?b=1".into(), method: WarmMethod::Head, tls }
    }

    #[test]
    fn a_request_says_what_it_is_and_nothing_else() {
        let message = message(&request("www.example.org:443", true), Version::HTTP_11).unwrap();
        assert_eq!((message.method(), message.uri().to_string()), (&Method::HEAD, "/a?b=1".to_owned()));
        let headers = |message: &Request<_>| -> Vec<(String, String)> {
            let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
            message.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
        };
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let common = [("user-agent", AGENT), ("accept", "*/*"), ("sec-purpose", "prefetch")];
        assert_eq!(headers(&message), owned(&[&[("host", "www.example.org")], &common[..]].concat()));
        let other = super::message(&request("www.example.org:8443", true), Version::HTTP_2).unwrap();
        assert_eq!(other.uri(), "https://www.example.org:8443/a?b=1");
        assert_eq!(headers(&other), owned(&common));
        let split = WarmRequest { path: "/\r\nX: y".into(), ..request("www.example.org:80", false) };
        assert!(super::message(&split, Version::HTTP_11).is_err() && super::message(&split, Version::HTTP_2).is_err());
    }

    #[test]
    fn lifetimes_are_read_where_they_make_sense() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", text.parse().unwrap());
            keep_alive(&headers).map(|time| time.as_secs())
        };
        assert_eq!(read("timeout=5, max=100"), Some(5));
        assert_eq!(read("max=100, Timeout = 65"), Some(65));
        assert_eq!((read("max=100"), read("timeout=soon"), read("timeout=-1")), (None, None, None));
        assert_eq!(keep_alive(&HeaderMap::new()), None);
    }
}
