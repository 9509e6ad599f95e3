//! The words that supervisor and daemon exchange over the control socket: one JSON object a line.
//!
//! Comes in and goes out: requests and replies, version 1. A lease travels as `SCM_RIGHTS` beside the first byte of the
//! reply that grants it, and back beside the first byte of the report that it was not fit. Never here: sockets.
//!
//! ```text
//! {"v":1,"id":7,"request":{"take":{"destination":"192.0.2.1:443","netns_cookie":4,"pid":4242}}}
//! {"v":1,"id":7,"ok":{"lease":{"rtt_us":40210,"origin":"www.example.org:443"},"late":false}}
//! {"v":1,"id":7,"request":{"taken":{"destination":"192.0.2.1:443","result":"used"}}}
//! ```
//!
//! A supervisor asks once for `{"hints":{}}`: a page of memory (`lease::Hints`) that says where there may be leases. Where
//! there can be none it does not ask.
//!
//! A report carries the number of the `take` it is about and has no reply. A connection that ends with reports missing
//! has lost those leases.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The version of all this.
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

/// Where a program is about to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Address and port.
    pub destination: SocketAddr,
    /// The network namespace of the program's socket; a lease of another one is none.
    pub netns_cookie: Option<u64>,
    /// The thread that asks, as its supervisor sees it; for logs.
    pub pid: i32,
}

/// What became of a lease that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Where it leads.
    pub destination: SocketAddr,
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
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_documented() {
        let take = r#"{"v":1,"id":7,"request":{"take":{"destination":"192.0.2.1:443","netns_cookie":4,"pid":4242}}}"#;
        let request: Request = serde_json::from_str(take).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), take);
        let taken = r#"{"v":1,"id":7,"request":{"taken":{"destination":"[2001:db8::1]:80","result":"unfit"}}}"#;
        let request: Request = serde_json::from_str(taken).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), taken);
        let granted = r#"{"v":1,"id":7,"ok":{"lease":{"rtt_us":40210,"origin":"www.example.org:443"},"late":false}}"#;
        let reply: Reply = serde_json::from_str(granted).unwrap();
        assert_eq!(serde_json::to_string(&reply).unwrap(), granted);
        let hints = r#"{"v":1,"id":0,"request":{"hints":{}}}"#;
        assert_eq!(serde_json::from_str::<Request>(hints).unwrap().request, Ask::Hints {});
        let none: Reply = serde_json::from_str(r#"{"v":1,"id":7,"ok":{"lease":null}}"#).unwrap();
        assert_eq!(none.ok, Some(Given::default()));
        let fault: Reply = serde_json::from_str(r#"{"v":1,"id":7,"error":{"code":"busy","message":"no"}}"#).unwrap();
        assert_eq!(fault.error.unwrap().code, "busy");
    }
}
