//! The form with a JSON object a line.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{super::words::date, Fields, Reason, least, words};

/// An object; other keys are of no concern.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    ts: &'a RawValue,
    #[serde(borrow, rename = "id.orig_h")]
    client: Option<Cow<'a, str>>,
    #[serde(rename = "id.resp_h")]
    server: Option<IpAddr>,
    #[serde(rename = "id.resp_p")]
    port: Option<u16>,
    rtt: Option<f64>,
    #[serde(borrow)]
    query: Option<Cow<'a, str>>,
    qclass: Option<u32>,
    qtype: Option<u16>,
    rcode: Option<u16>,
    answers: Option<Vec<Cow<'a, str>>>,
    #[serde(rename = "TTLs")]
    ttls: Option<Vec<f64>>,
    #[serde(borrow)]
    server_name: Option<Cow<'a, str>>,
}

/// The fields of a line.
pub(super) fn fields(line: &[u8]) -> Result<Fields, Reason> {
    let object: Object<'_> = serde_json::from_slice(line).map_err(|_| Reason::Broken)?;
    let ts = object.ts.get();
    // A number of seconds, or a date, as the writer was told.
    let at = words::time(ts.as_bytes()).or_else(|| date(ts.trim_matches('"'))).ok_or(Reason::Broken)?;
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).ok().map(|span| span.min(LONGEST));
    Ok(Fields {
        at: Some(at),
        client: object.client.map(|client| words::client(client.as_bytes())),
        server: object.server,
        port: object.port,
        rtt: object.rtt.and_then(seconds),
        query: object.query.filter(|query| !query.is_empty()).map(|query| query.as_bytes().to_vec()),
        qclass: object.qclass,
        qtype: object.qtype,
        rcode: object.rcode.map(|code| code.try_into().unwrap_or(u8::MAX)),
        addresses: object.answers.iter().flatten().filter_map(|answer| answer.parse().ok()).collect(),
        ttl: least(object.ttls.iter().flatten().map(|ttl| seconds(*ttl))),
        server_name: object.server_name.map(|name| name.as_bytes().to_vec()),
    })
}

/// As for the columns.
const LONGEST: Duration = Duration::from_secs(86_400);
