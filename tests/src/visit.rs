//! One fetch by an unmodified curl, and how long its parts took.
//!
//! In: a URL and the way there; out: milliseconds for the name, the connection and the first byte, each counted from
//! the end of the part before it. Directly, curl's own clock says so (`--write-out '%{json}'`). Through a forward proxy
//! the client asks for the name itself, as a browser with a proxy configuration script does (`getent`), and the
//! connection to the origin is what the proxy takes to answer CONNECT (curl's trace).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

use crate::clock;
use crate::netns::Namespace;
use crate::scenario::Scheme;

/// What a fetch may take before it counts as failed.
const SECONDS_AT_MOST: &str = "10";

/// The way from the client to the origin.
#[derive(Clone, Debug)]
pub enum Way {
    /// curl itself connects, under a wrapper (`prewarm exec … --`) if there is one.
    Direct(Vec<OsString>),
    /// A forward proxy connects, on CONNECT.
    Proxy(SocketAddr),
}

/// Who fetches: a namespace, what it trusts, and the way out of it.
#[derive(Clone, Debug)]
pub struct Visitor<'a> {
    /// Where curl runs.
    pub namespace: &'a Namespace,
    /// The certificate authority of the sites.
    pub authority: PathBuf,
    /// How it reaches origins.
    pub way: Way,
}

/// What one fetch took.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Asking for the name.
    pub name_ms: f64,
    /// From the known address to the open connection.
    pub connect_ms: f64,
    /// From the known address to the first byte of the answer.
    pub ttfb_ms: f64,
    /// What the far caching server says: HIT, MISS, EXPIRED.
    pub far_cache: Option<String>,
}

/// The part of curl's JSON that is read. Times are seconds since the start of the transfer.
#[derive(Debug, Deserialize)]
struct Written {
    http_code: u16,
    time_namelookup: f64,
    time_connect: f64,
    time_starttransfer: f64,
}

impl Visitor<'_> {
    /// Fetches once.
    ///
    /// # Errors
    /// When a program fails or the answer isn't 200: for the lab, a failed request.
    pub fn fetch(&self, scheme: Scheme, name: &str, path: &str) -> Result<Fetch> {
        let url = format!("{}://{name}{path}", scheme.url());
        match &self.way {
            Way::Direct(wrapper) => self.directly(wrapper, &url),
            Way::Proxy(proxy) => self.through(*proxy, name, &url),
        }
    }

    fn directly(&self, wrapper: &[OsString], url: &str) -> Result<Fetch> {
        let (written, far_cache, _) = self.curl(wrapper, &["--noproxy", "*"], url)?;
        Ok(Fetch {
            name_ms: 1e3 * written.time_namelookup,
            connect_ms: 1e3 * (written.time_connect - written.time_namelookup),
            ttfb_ms: 1e3 * (written.time_starttransfer - written.time_namelookup),
            far_cache,
        })
    }

    fn through(&self, proxy: SocketAddr, name: &str, url: &str) -> Result<Fetch> {
        let started = clock::now();
        let asked = self.namespace.command("getent").args(["ahosts", name]).output().context("run getent")?;
        let name_ms = 1e3 * (clock::now() - started).as_secs_f64();
        ensure!(asked.status.success(), "getent knows no {name}");
        let proxy = format!("http://{proxy}");
        let trace = ["--proxy", &proxy, "--proxytunnel", "--verbose", "--trace-time"];
        let (written, far_cache, trace) = self.curl(&[], &trace, url)?;
        Ok(Fetch {
            name_ms,
            connect_ms: connect_reply_ms(&trace).with_context(|| format!("no CONNECT in curl's trace:\n{trace}"))?,
            ttfb_ms: 1e3 * (written.time_starttransfer - written.time_connect),
            far_cache,
        })
    }

    fn curl(&self, wrapper: &[OsString], options: &[&str], url: &str) -> Result<(Written, Option<String>, String)> {
        let program = OsString::from("curl");
        let mut words = wrapper.iter().chain([&program]);
        let mut command = self.namespace.command(words.next().unwrap_or(&program));
        // --disable comes first: no ~/.curlrc has a say.
        command.args(words).args(["--disable", "--silent", "--show-error", "--output", "/dev/null"]);
        command.args(["--max-time", SECONDS_AT_MOST, "--write-out", "%{json}\n%header{x-cache}", "--cacert"]);
        command.arg(&self.authority).args(options).arg(url);
        let output = command.stdin(Stdio::null()).output().context("run curl")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let complaint = errors.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
        ensure!(output.status.success(), "curl {url}: {}: {complaint}", output.status);
        let text = String::from_utf8(output.stdout)?;
        let (json, far_cache) = text.split_once('\n').unwrap_or((&text, ""));
        let written: Written = serde_json::from_str(json).map_err(|error| anyhow!("curl wrote {text:?}: {error}"))?;
        ensure!(written.http_code == 200, "{url}: status {}", written.http_code);
        Ok((written, Some(far_cache.to_owned()).filter(|state| !state.is_empty()), errors))
    }
}

/// From before curl sends CONNECT to the proxy's answer, by the clock of the trace: never less than it took. (The line
/// with the request itself is stamped after it was sent, on a busy host up to 30 ms after.)
fn connect_reply_ms(trace: &str) -> Option<f64> {
    const DAY: f64 = 86_400.0;
    let at = |mark: &str| trace.lines().find(|line| line.contains(mark)).and_then(time_of_day);
    Some(1e3 * (at(" < HTTP/1.")? - at(" * Establish HTTP proxy tunnel")?).rem_euclid(DAY))
}

/// Seconds since midnight at the start of a trace line: `12:34:56.789012 < …`.
fn time_of_day(line: &str) -> Option<f64> {
    let mut parts = line.split(' ').next()?.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    Some(hours.parse::<f64>().ok()? * 3600.0 + minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::connect_reply_ms;

    #[test]
    fn the_trace_says_how_long_connect_took_also_over_midnight() {
        let trace = "23:59:59.995000 * Establish HTTP proxy tunnel to a:80\n23:59:59.998000 > CONNECT a:80 HTTP/1.1\n\
                     00:00:00.035500 < HTTP/1.0 200 Connection established\n00:00:00.080000 < HTTP/1.1 200 OK\n";
        assert!((connect_reply_ms(trace).unwrap() - 40.5).abs() < 1e-6);
        assert_eq!(connect_reply_ms("nothing"), None);
    }
}
