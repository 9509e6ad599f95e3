//! What is said over the control socket, beside the leases of [`crate::handover::protocol`].

use serde::{Deserialize, Serialize};

use super::{ExplainRequest, ExplanationView, OriginView, Stats};
use crate::{lease::LeaseView, resolve::answers::AnswerView};

/// The protocol's version. A daemon refuses another major version and says which it speaks.
pub const VERSION: u32 = 1;

/// One line to the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestLine {
    /// [`VERSION`].
    pub v: u32,
    /// A number of the client's, which the reply repeats.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// All numbers.
    Stats,
    /// The leases that are held.
    Leases(ListLimit),
    /// The names that are known, the most recently asked first.
    Names(ListLimit),
    /// The origins that connections were seen to, the most recently seen first.
    Origins(ListLimit),
    /// What is expected: the queue of intents, by value and deadline.
    Predictions(ListLimit),
    /// Why something is expected.
    Explain(ExplainRequest),
    /// The answers that the kernel gives, the most used first.
    Answers(ListLimit),
    /// Let go of answers.
    FlushAnswers(FlushView),
    /// Read the configuration again.
    Reload,
    /// Attach to one more interface.
    Attach {
        /// Its name.
        interface: String,
    },
    /// Detach from an interface.
    Detach {
        /// Its name.
        interface: String,
    },
}

/// Which answers are let go of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlushView {
    /// Those of a name.
    Name(String),
    /// Those of a zone.
    Zone(String),
    /// All.
    All,
}

/// How many rows of a list, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListLimit {
    /// Rows.
    pub limit: usize,
}

/// One line from the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub v: u32,
    /// The request's number; 0 where the request could not be read.
    pub id: u64,
    /// What was asked for, or why not.
    #[serde(flatten)]
    pub result: Outcome,
}

/// `{"ok": …}` or `{"error": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer.
    Ok(Answer),
    /// Why there is none.
    Error(Failure),
}

/// What comes back. Untagged inside: the request says which it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Stats`].
    Stats(Box<Stats>),
    /// To [`Request::Leases`].
    Leases(Vec<LeaseView>),
    /// To [`Request::Names`].
    Names(Vec<NameView>),
    /// To [`Request::Origins`].
    Origins(Vec<OriginView>),
    /// To [`Request::Predictions`].
    Predictions(Vec<PredictionView>),
    /// To [`Request::Explain`].
    Explanation(Box<ExplanationView>),
    /// To [`Request::Answers`].
    Answers(Vec<AnswerView>),
    /// To what only does something: a line for a person.
    Done(String),
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub code: FailureCode,
    /// What to tell a person.
    pub message: String,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// Another protocol version.
    Version,
    /// Not a request.
    Malformed,
    /// Understood, and impossible as things are.
    Refused,
    /// The daemon is on its way out.
    Stopping,
}

/// One name that is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NameView {
    /// In presentation format.
    pub name: String,
    /// Its resource ID, 16 hex digits.
    pub resource: String,
    /// Its addresses, as last answered.
    pub addresses: Vec<std::net::IpAddr>,
    /// Seconds for which they are still good; 0 when they are stale.
    pub ttl_seconds: f64,
    /// Ports that programs connected to.
    pub ports: Vec<u16>,
    /// How often it was asked for.
    pub asked: u64,
    /// Seconds since it was last asked for.
    pub idle_seconds: f64,
}

/// One intent that waits for its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictionView {
    /// What would be done: "resolve", "lease" or "warm".
    pub action: String,
    /// The name, with the port where there is one.
    pub target: String,
    /// The probability that it is used in time, 0 to 1.
    pub probability: f64,
    /// What it is worth, in milliseconds.
    pub value_ms: f64,
    /// Milliseconds until it starts.
    pub starts_in_ms: f64,
    /// Milliseconds until it is of no more use.
    pub deadline_in_ms: f64,
    /// Whether it is under way.
    pub started: bool,
}
