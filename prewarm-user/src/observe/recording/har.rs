//! HTTP archives (version 1.2), as browsers export them: one client, whose requests show look-ups and handshakes.
//!
//! The whole file is one JSON value, so it is read into memory; what is in requests and answers is passed over.

use std::{
    collections::{HashSet, VecDeque},
    io::Read as _,
    net::IpAddr,
    path::Path,
    time::Duration,
};

use serde::Deserialize;

use super::{
    LeftOut, Reader, Reason, RecordingError, Shows,
    input::Input,
    words::{self, Observer},
};
use crate::{
    kernel::Key,
    model::{Connection, Name, Observation, Phase, Seen, Timestamp},
};

/// No archive that a browser wrote is longer; what a page weighs is in it.
const LONGEST: u64 = 1 << 30;

/// An archive.
pub(super) struct Har {
    ready: VecDeque<Observation>,
    left_out: LeftOut,
}

#[derive(Deserialize)]
struct File {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    #[serde(default)]
    entries: Vec<serde_json::Value>,
}

/// A request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    started_date_time: String,
    request: Request,
    #[serde(default, rename = "serverIPAddress")]
    server_ip_address: Option<String>,
    #[serde(default)]
    timings: Timings,
}

#[derive(Deserialize)]
struct Request {
    url: String,
}

/// Milliseconds; -1 or nothing where a phase did not happen.
#[derive(Default, Deserialize)]
struct Timings {
    #[serde(default)]
    blocked: Option<f64>,
    #[serde(default)]
    dns: Option<f64>,
    #[serde(default)]
    connect: Option<f64>,
    #[serde(default)]
    ssl: Option<f64>,
}

impl Har {
    pub(super) fn read(input: Input, key: &Key) -> Result<Self, RecordingError> {
        let path = input.path.clone();
        let mut text = Vec::new();
        input.into_read().take(LONGEST).read_to_end(&mut text).map_err(|source| Input::failure(&path, source))?;
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let file: File = serde_json::from_slice(text).map_err(|error| RecordingError::Broken {
            path: path.clone(),
            place: format!("line {}, column {}", error.line(), error.column()),
            what: format!("not an HTTP archive: {error}"),
            hint: "export it again; the browser's developer tools write it whole",
        })?;
        let mut har = Self { ready: VecDeque::new(), left_out: LeftOut::default() };
        har.entries(&path, file.log.entries, key);
        Ok(har)
    }

    fn entries(&mut self, path: &Path, entries: Vec<serde_json::Value>, key: &Key) {
        let mut observer = Observer::new(key.clone());
        // Of which file tells clients apart.
        let client = words::client(path.to_string_lossy().as_bytes());
        let mut known = HashSet::new();
        let mut all = Vec::new();
        for (number, value) in (1..).zip(entries) {
            let found = entry(value).and_then(|entry| observations(&entry, client, &mut observer, &mut known, number));
            match found {
                Ok(found) => all.extend(found),
                Err(reason) => self.left_out.add(reason, number),
            }
        }
        all.sort_by_key(|observation| observation.at);
        self.ready = all.into();
    }
}

fn entry(value: serde_json::Value) -> Result<Entry, Reason> {
    serde_json::from_value(value).map_err(|_| Reason::Broken)
}

/// What a request shows.
fn observations(
    entry: &Entry,
    client: IpAddr,
    observer: &mut Observer,
    known: &mut HashSet<Name>,
    number: u64,
) -> Result<Vec<Observation>, Reason> {
    let start = words::date(&entry.started_date_time).ok_or(Reason::Broken)?;
    let (name, port) = origin(&entry.request.url)?;
    let span = |millis: Option<f64>| millis.filter(|millis| *millis > 0.0 && *millis < 60_000.0);
    let span = |millis| span(millis).map(|millis| Duration::from_secs_f64(millis / 1000.0));
    let (dns, connect) = (span(entry.timings.dns), span(entry.timings.connect));
    let first = known.insert(name.clone());
    if !first && dns.is_none() && connect.is_none() {
        return Err(Reason::OpenConnection);
    }
    // IPv6 addresses stand in brackets in some.
    let address = entry.server_ip_address.as_deref().and_then(|text| text.trim_matches(['[', ']']).parse().ok());
    let mut at: Timestamp = start + span(entry.timings.blocked).unwrap_or_default();
    let mut found = Vec::new();
    let addresses: Vec<IpAddr> = address.into_iter().collect();
    match dns {
        Some(took) => {
            found.push(observer.question(at, client, None, &name, words::A));
            at = at + took;
            found.push(observer.answer(at, client, &name, (words::A, 0), Duration::ZERO, addresses));
        }
        None => {
            found.push(observer.answer(at, client, &name, (words::A, 0), Duration::ZERO, addresses));
            found.push(observer.named(at, client, &name, port));
        }
    }
    if let (Some(connect), Some(address)) = (connect, address) {
        // The time of TLS is part of it.
        let round_trip =
            connect.checked_sub(span(entry.timings.ssl).unwrap_or_default()).filter(|rest| !rest.is_zero());
        let connection = Connection {
            socket: number,
            namespace: 0,
            destination: (address, port).into(),
            phase: Phase::Established { round_trip: Some(round_trip.unwrap_or(connect)), own: false },
        };
        found.push(Observation { at, client, seen: Seen::Connection(connection) });
    }
    Ok(found)
}

/// The host and port of an address on the web.
fn origin(url: &str) -> Result<(Name, u16), Reason> {
    let url: http::Uri = url.parse().map_err(|_| Reason::NoName)?;
    let port = match (url.port_u16(), url.scheme_str()) {
        (Some(port), _) => port,
        (None, Some("https" | "wss")) => 443,
        (None, Some("http" | "ws")) => 80,
        // data:, blob:, extensions.
        (None, _) => return Err(Reason::NoName),
    };
    let name = url.host().and_then(|host| words::host(host.as_bytes())).ok_or(Reason::NoName)?;
    Ok((name, port))
}

impl Reader for Har {
    fn next(&mut self) -> Result<Option<Observation>, RecordingError> {
        Ok(self.ready.pop_front())
    }

    fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    fn shows(&self) -> Shows {
        Shows { answers: true, ttls: false, connections: true }
    }
}
