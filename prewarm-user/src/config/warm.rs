//! Requests that are sent ahead.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::within;
use crate::model::Origin;

/// How warm requests are sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmSettings {
    /// When a request is given up, in seconds, with its TLS handshake and its body.
    pub timeout_seconds: f64,
    /// How much of an answer is read, in bytes; the connection is closed then.
    pub body_limit_bytes: u64,
    /// How long an origin is left alone that answers 429 or 503 and does not say how long, in seconds.
    pub rest_seconds: f64,
    /// The longest such rest, whatever the origin says, in seconds.
    pub rest_ceiling_seconds: f64,
    /// A file with certificates (PEM) that are trusted besides those of the system.
    #[schemars(example = "/etc/prewarm/ca.pem")]
    pub ca_file: Option<PathBuf>,
}

impl Default for WarmSettings {
    fn default() -> Self {
        Self {
            timeout_seconds: 10.0,
            body_limit_bytes: 4 * 1024 * 1024,
            rest_seconds: 30.0,
            rest_ceiling_seconds: 3600.0,
            ca_file: None,
        }
    }
}

impl WarmSettings {
    /// Whether the settings can be worked with.
    ///
    /// # Errors
    /// The key that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        within("requests.timeout_seconds", self.timeout_seconds, 0.1..=300.0)?;
        within("requests.body_limit_bytes", self.body_limit_bytes, 0..=1 << 32)?;
        within("requests.rest_seconds", self.rest_seconds, 1.0..=86_400.0)?;
        within("requests.rest_ceiling_seconds", self.rest_ceiling_seconds, self.rest_seconds..=604_800.0)
    }
}

/// One request that is sent when its origin's name is expected. No cookies, no credentials, marked
/// `Sec-Purpose: prefetch`; redirects are not followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmRequest {
    /// What to ask for: http:// or https://, a name, and a path.
    #[schemars(example = "https://cdn.example.net/app.js")]
    pub url: String,
    /// "HEAD", or "GET" where a cache is filled by nothing less. Other methods are not safe (RFC 9110, 9.2.1).
    #[serde(default)]
    pub method: Method,
}

/// A safe method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Headers only.
    #[default]
    Head,
    /// The whole content, read to a limit and thrown away.
    Get,
}

impl WarmRequest {
    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// The origin that is asked; none where the URL is bad.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        let uri: http::Uri = self.url.parse().ok()?;
        let port = match (uri.port_u16(), uri.scheme_str()?) {
            (Some(port), "http" | "https") => port,
            (None, "https") => 443,
            (None, "http") => 80,
            _ => return None,
        };
        // An address literal has no name whose question could announce it.
        let host = uri.host()?;
        let literal = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
        let name = host.parse().ok().filter(|_| !literal)?;
        Some(Origin { name, port })
    }

    /// The path and query.
    #[must_use]
    pub fn path(&self) -> String {
        let uri: Option<http::Uri> = self.url.parse().ok();
        uri.and_then(|uri| uri.path_and_query().map(ToString::to_string)).unwrap_or_else(|| "/".to_owned())
    }

    /// Whether the request can be sent.
    ///
    /// # Errors
    /// What is wrong with the URL, without repeating a password.
    pub fn check(&self, index: usize) -> Result<(), String> {
        let uri = self.url.parse::<http::Uri>().ok();
        if uri.is_some_and(|uri| uri.authority().is_some_and(|authority| authority.as_str().contains('@'))) {
            return Err(format!("warm[{index}].url: leave user name and password out, none is ever sent"));
        }
        if self.origin().is_none() {
            return Err(format!("warm[{index}].url: {:?} is no http:// or https:// URL of a named host", self.url));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str) -> WarmRequest {
        WarmRequest { url: url.to_owned(), method: Method::Head }
    }

    #[test]
    fn an_origin_comes_from_the_url() {
        for (url, origin) in [
            ("https://cdn.example.net/app.js?v=1", Some("cdn.example.net:443")),
            ("http://cdn.example.net:8080", Some("cdn.example.net:8080")),
            ("http://192.0.2.1/x", None),
            ("https://[2001:db8::1]/x", None),
            ("ftp://cdn.example.net/x", None),
            ("/x", None),
        ] {
            assert_eq!(request(url).origin().map(|origin| origin.to_string()).as_deref(), origin, "{url}");
        }
        assert_eq!(request("https://a.example/app.js?v=1").path(), "/app.js?v=1");
        assert_eq!(request("https://a.example").path(), "/");
    }

    #[test]
    fn credentials_are_refused() {
        let complaint = request("https://user:secret@a.example/").check(0).unwrap_err();
        assert!(!complaint.contains("secret"), "a complaint must not repeat the password");
    }
}
