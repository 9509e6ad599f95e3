//! One fetch, and how long its parts took: by an unmodified curl, or by the plain client.
//!
//! In: a URL and the way there; out: milliseconds for the name, the connection and the first byte, each counted from
//! the end of the part before it. The plain client times its one blocking call. curl's own clock
//! (`--write-out '%{json}'`, its trace where there is a proxy) has curl's event loop in it: what it says of connecting is
//! reported beside, and the first byte is what it is trusted with. A client that is configured for a proxy may ask for
//! the name all the same, as a browser with a proxy configuration script does (`getent`).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

use crate::cgroup::Cgroup;
use crate::client::{self, Fetched};
use crate::clock;
use crate::netns::Namespace;
use crate::scenario::Scheme;

/// What a fetch may take before it counts as failed.
const SECONDS_AT_MOST: &str = "10";

/// The way from the client to the origin.
#[derive(Clone, Debug)]
pub enum Way {
    /// The program itself connects, under a wrapper (`prewarm exec … --`) if there is one.
    Direct(Vec<OsString>),
    /// A forward proxy connects, on CONNECT; what the program waits for is its answer.
    Forward(SocketAddr),
    /// prewarm is the HTTP proxy: the connection to it counts too.
    Connect(SocketAddr),
    /// prewarm is the SOCKS5 proxy, and is given the name.
    Socks(SocketAddr),
    /// The program asks prewarm at this control socket; only the plain client can.
    Fd(PathBuf),
}

/// Who fetches: a namespace, what it trusts, and the way out of it.
#[derive(Clone, Debug)]
pub struct Visitor<'a> {
    /// Where programs run.
    pub namespace: &'a Namespace,
    /// The cgroup they run in, if not that of the harness.
    pub cgroup: Option<&'a Cgroup>,
    /// The certificate authority of the sites.
    pub authority: PathBuf,
    /// The plain client.
    pub plain: PathBuf,
    /// Whether curl fetches too; the plain client does everything where curl has no way.
    pub curl: bool,
    /// How origins are reached.
    pub way: Way,
}

/// The program that fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    /// As it comes from the distribution.
    Curl,
    /// `plain-client`.
    Plain,
}

/// What one fetch took.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// By whom.
    pub hand: Hand,
    /// Asking for the name; nothing where only the proxy was given it.
    pub name_ms: Option<f64>,
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
    pub fn fetch(&self, hand: Hand, scheme: Scheme, name: &str, path: &str) -> Result<Fetch> {
        let url = format!("{}://{name}{path}", scheme.url());
        match (hand, &self.way) {
            (Hand::Curl, _) if !self.curl => self.plainly(&url),
            (Hand::Plain, _) | (_, Way::Fd(_)) => self.plainly(&url),
            (Hand::Curl, Way::Direct(wrapper)) => self.directly(wrapper, &url),
            (Hand::Curl, Way::Forward(proxy)) => self.forwarded(*proxy, name, &url),
            (Hand::Curl, Way::Connect(proxy)) => {
                let name_ms = self.ask(name)?;
                let options = ["--proxy", &format!("http://{proxy}"), "--proxytunnel"];
                self.proxied(&options, " < HTTP/1.", Some(name_ms), &url)
            }
            (Hand::Curl, Way::Socks(proxy)) => {
                self.proxied(&["--socks5-hostname", &proxy.to_string()], "request granted", None, &url)
            }
        }
    }

    fn plainly(&self, url: &str) -> Result<Fetch> {
        let (wrapper, way, ask) = match &self.way {
            Way::Direct(wrapper) => (&wrapper[..], client::Way::Direct, false),
            Way::Forward(proxy) | Way::Connect(proxy) => (&[][..], client::Way::Connect(*proxy), true),
            Way::Socks(proxy) => (&[][..], client::Way::Socks(*proxy), false),
            Way::Fd(socket) => (&[][..], client::Way::Fd(socket.clone()), false),
        };
        let mut command = self.command(wrapper, self.plain.as_os_str())?;
        command.args(["fetch", "--way", &way.to_string(), "--authority"]).arg(&self.authority);
        command.args(ask.then_some("--ask")).arg(url);
        let output = command.stdin(Stdio::null()).output().context("run the plain client")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "plain-client {url}: {}: {}", output.status, complaint.trim());
        let fetched: Fetched = serde_json::from_slice(&output.stdout).context("read what the plain client says")?;
        ensure!(fetched.status == 200, "{url}: status {}", fetched.status);
        let Fetched { name_ms, connect_ms, ttfb_ms, far_cache, .. } = fetched;
        Ok(Fetch { hand: Hand::Plain, name_ms, connect_ms, ttfb_ms, far_cache })
    }

    fn directly(&self, wrapper: &[OsString], url: &str) -> Result<Fetch> {
        let (written, far_cache, _) = self.curl(wrapper, &["--noproxy", "*"], url)?;
        Ok(Fetch {
            hand: Hand::Curl,
            name_ms: Some(1e3 * written.time_namelookup),
            connect_ms: 1e3 * (written.time_connect - written.time_namelookup),
            ttfb_ms: 1e3 * (written.time_starttransfer - written.time_namelookup),
            far_cache,
        })
    }

    fn forwarded(&self, proxy: SocketAddr, name: &str, url: &str) -> Result<Fetch> {
        let name_ms = Some(self.ask(name)?);
        let proxy = format!("http://{proxy}");
        let trace = ["--proxy", &proxy, "--proxytunnel", "--verbose", "--trace-time"];
        let (written, far_cache, trace) = self.curl(&[], &trace, url)?;
        let connect_ms = between(&trace, " * Establish HTTP proxy tunnel", " < HTTP/1.")
            .with_context(|| format!("no CONNECT in curl's trace:\n{trace}"))?;
        let ttfb_ms = 1e3 * (written.time_starttransfer - written.time_connect);
        Ok(Fetch { hand: Hand::Curl, name_ms, connect_ms, ttfb_ms, far_cache })
    }

    /// Through a proxy whose answer is recognised by `granted`; everything from the first attempt to reach it counts.
    fn proxied(&self, options: &[&str], granted: &str, name_ms: Option<f64>, url: &str) -> Result<Fetch> {
        let options = [options, &["--verbose", "--trace-time"]].concat();
        let (written, far_cache, trace) = self.curl(&[], &options, url)?;
        let connect_ms = between(&trace, "   Trying ", granted)
            .with_context(|| format!("no answer of the proxy in curl's trace:\n{trace}"))?;
        let ttfb_ms = 1e3 * (written.time_starttransfer - written.time_namelookup);
        Ok(Fetch { hand: Hand::Curl, name_ms, connect_ms, ttfb_ms, far_cache })
    }

    /// Asks for a name; milliseconds.
    fn ask(&self, name: &str) -> Result<f64> {
        let started = clock::now();
        let asked = self.namespace.command("getent").args(["ahosts", name]).output().context("run getent")?;
        ensure!(asked.status.success(), "getent knows no {name}");
        Ok(1e3 * (clock::now() - started).as_secs_f64())
    }

    fn command(&self, wrapper: &[OsString], program: &std::ffi::OsStr) -> Result<Command> {
        let program = program.to_owned();
        let mut words = wrapper.iter().chain([&program]);
        let mut command = self.namespace.command(words.next().unwrap_or(&program));
        command.args(words);
        if let Some(cgroup) = self.cgroup {
            cgroup.adopt(&mut command)?;
        }
        Ok(command)
    }

    fn curl(&self, wrapper: &[OsString], options: &[&str], url: &str) -> Result<(Written, Option<String>, String)> {
        let mut command = self.command(wrapper, "curl".as_ref())?;
        // --disable comes first: no ~/.curlrc has a say.
        command.args(["--disable", "--silent", "--show-error", "--output", "/dev/null"]);
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

/// Milliseconds between two lines, by the clock of the trace. Both marks are printed before what they tell of is
/// waited for, or after it has come, so it is never less than it took. (A line with what was sent is stamped after that, on a
/// busy host up to 30 ms after.)
fn between(trace: &str, from: &str, to: &str) -> Option<f64> {
    const DAY: f64 = 86_400.0;
    let at = |mark: &str| trace.lines().find(|line| line.contains(mark)).and_then(time_of_day);
    Some(1e3 * (at(to)? - at(from)?).rem_euclid(DAY))
}

/// Seconds since midnight at the start of a trace line: `12:34:56.789012 < …`.
fn time_of_day(line: &str) -> Option<f64> {
    let mut parts = line.split(' ').next()?.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    Some(hours.parse::<f64>().ok()? * 3600.0 + minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn the_trace_says_how_long_a_proxy_took_also_over_midnight() {
        let trace = "23:59:59.990000 *   Trying 10.0.0.1:80...\n23:59:59.995000 * Establish HTTP proxy tunnel to a:80\n\
                     23:59:59.998000 > CONNECT a:80 HTTP/1.1\n00:00:00.035500 < HTTP/1.0 200 Connection established\n\
                     00:00:00.080000 < HTTP/1.1 200 OK\n";
        assert!((between(trace, " * Establish HTTP proxy tunnel", " < HTTP/1.").unwrap() - 40.5).abs() < 1e-6);
        assert!((between(trace, "   Trying ", " < HTTP/1.").unwrap() - 45.5).abs() < 1e-6);
        assert_eq!(between("nothing", "from", "to"), None);
    }
}
