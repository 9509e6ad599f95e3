//! The words by which programs ask the daemon for leases over the control socket: one JSON object a line.
//!
//! Comes in and goes out: requests and replies, version 1, as `docs/protocol.md` has them for other languages. A lease
//! travels as `SCM_RIGHTS` beside the first byte of the reply that grants it, and back beside the first byte of the
//! report that it was not fit. Never here: sockets.
//!
//! ```text
//! {"v":1,"id":7,"request":{"take":{"destination":"192.0.2.1:443"}}}
//! {"v":1,"id":7,"ok":{"lease":{"rtt_us":40210,"origin":"www.example.org:443","destination":"192.0.2.1:443"},"late":false}}
//! {"v":1,"id":7,"request":{"taken":{"result":"used"}}}
//! ```
//!
//! A supervisor asks once for `{"hints":{}}`: a page of memory (`lease::Hints`) that says where there may be leases. Where
//! there can be none it does not ask.
//!
//! A report carries the number of the `take` it is about and has no reply. A connection that ends with reports missing
//! has lost those leases.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The version of all this. A daemon refuses another; fields and requests that it does not know may be added without a
/// new one, so both sides skip what they do not know.
pub const VERSION: u32 = 1;

/// A line to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub v: u32,
    /// Which question this is; replies and reports repeat it.
    pub id: u64,
    /// What is wanted.
    pub request: Ask,
}

/// What a program's side says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A connection to there, if one is ready.
    Take(Want),
    /// What became of it.
    Taken(Taken),
    /// The page that says where there may be leases; it comes beside the reply.
    Hints {},
    /// A program connects to there, and was not offered a lease because the page has none. Has no reply; the daemon
    /// learns from it where programs go.
    Passed {
        /// Address and port.
        destination: SocketAddr,
    },
}

/// Where a program is about to connect: exactly one of `destination` and `origin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
    /// NAME:PORT, for a lease to any of its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The network namespace of the program's socket (`SO_NETNS_COOKIE`). Where it is not the one that the question
    /// comes from there is no lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_cookie: Option<u64>,
    /// The address that the program's socket is bound to; a lease must have it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The mark of the program's socket (`SO_MARK`); a lease must have it too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mark: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(mark: &u32) -> bool {
    *mark == 0
}

/// What became of a lease that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Its fate.
    pub result: Settled,
}

/// The fate of a lease in a program's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// The program has it.
    Used,
    /// The program could not use it; it comes back with this report.
    Unfit,
    /// It was lost on the way.
    Failed,
}

/// A line from the daemon: exactly one of `ok` and `error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub v: u32,
    /// The question's number.
    pub id: u64,
    /// The answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Given>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
}

/// The answer to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The lease that travels beside this line, or none.
    pub lease: Option<Granted>,
    /// None, but one is being dialled.
    #[serde(default)]
    pub late: bool,
    /// The page travels beside this line.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hints: bool,
}

/// What is known of a lease that was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// What opening it took, in microseconds: the time saved.
    pub rtt_us: u64,
    /// Whom it was opened for.
    pub origin: String,
    /// Where it leads.
    pub destination: SocketAddr,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A word for programs: one of [`fault`].
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// The codes of a [`Fault`].
pub mod fault {
    /// The daemon speaks another version of the protocol.
    pub const VERSION: &str = "version";
    /// Not a question: neither a destination nor an origin, or both, or a bad one.
    pub const MALFORMED: &str = "malformed";
    /// This user gets no leases (`handover.uids`, `handover.exclude_uids`).
    pub const FORBIDDEN: &str = "forbidden";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_documented() {
        for line in [
            r#"{"v":1,"id":7,"request":{"take":{"destination":"192.0.2.1:443"}}}"#,
            r#"{"v":1,"id":7,"request":{"take":{"origin":"www.example.org:443"}}}"#,
            r#"{"v":1,"id":7,"request":{"take":{"destination":"[2001:db8::1]:80","netns_cookie":4,"source":"2001:db8::2","mark":9}}}"#,
            r#"{"v":1,"id":7,"request":{"taken":{"result":"unfit"}}}"#,
            r#"{"v":1,"id":0,"request":{"passed":{"destination":"192.0.2.1:443"}}}"#,
            r#"{"v":1,"id":0,"request":{"hints":{}}}"#,
        ] {
            let request: Request = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
        }
        for line in [
            r#"{"v":1,"id":7,"ok":{"lease":{"rtt_us":40210,"origin":"www.example.org:443","destination":"192.0.2.1:443"},"late":false}}"#,
            r#"{"v":1,"id":7,"error":{"code":"forbidden","message":"no"}}"#,
        ] {
            let reply: Reply = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&reply).unwrap(), line);
        }
        let none: Reply = serde_json::from_str(r#"{"v":1,"id":7,"ok":{"lease":null}}"#).unwrap();
        assert_eq!(none.ok, Some(Given::default()));
    }

    #[test]
    fn what_is_not_known_is_skipped() {
        let line = r#"{"v":1,"id":7,"new":1,"request":{"take":{"destination":"192.0.2.1:443","pid":4,"new":[]}}}"#;
        let request: Request = serde_json::from_str(line).unwrap();
        let want = Want { destination: Some("192.0.2.1:443".parse().unwrap()), ..Want::default() };
        assert_eq!(request.request, Ask::Take(want));
    }
}
