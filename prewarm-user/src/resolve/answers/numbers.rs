//! What is shown of answers.

use std::{collections::BTreeMap, net::IpAddr};

use prewarm_ebpf::answers::{A, AAAA, HTTPS, KIND_AUTHENTIC, KIND_EDNS, KIND_RECURSION};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Asked, Held};
use crate::model::Timestamp;

/// Numbers by reason.
type ByReason = BTreeMap<String, u64>;

/// What became of answers, since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Numbers {
    /// Questions that the kernel answered.
    pub answered: u64,
    /// Answers that are held now.
    pub held: u64,
    /// Questions that servers were asked.
    pub asked: u64,
    /// Answers laid ready because somebody asked twice.
    pub filled: u64,
    /// Answers laid ready because they were expected.
    pub expected: u64,
    /// Answers renewed.
    pub refreshed: u64,
    /// Answers given beyond their TTL because the server failed.
    pub stale: u64,
    /// Questions to servers that were put off because there were too many.
    pub postponed: u64,
    /// Questions to servers without an answer in time.
    pub lost: u64,
    /// Datagrams that answered no question of ours.
    pub strays: u64,
    /// Answers that there was no room for.
    pub full: u64,
    /// Clients that were told something else than what is held.
    pub doubted: u64,
    /// Names that a server answers by client; at most 64 are told.
    pub by_client: Vec<String>,
    /// Answers that can't be given again, by reason.
    pub unfit: ByReason,
    /// What the kernel counted: answers, and each reason why a question was left to the server.
    pub kernel: ByReason,
    /// The servers whose answers are given, each with how its interface is attached.
    pub servers: Vec<ServerView>,
}

/// A server whose answers are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerView {
    /// Its address.
    pub server: String,
    /// The interface by which its clients come.
    pub interface: String,
    /// "native", "generic", or "off".
    pub mode: String,
    /// Why not native, or not at all.
    pub reason: Option<String>,
}

/// An answer that is held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerView {
    /// The name.
    pub name: String,
    /// The type.
    pub qtype: String,
    /// What questions of its kind have: "RD", "AD", "EDNS".
    pub kind: String,
    /// The server that is asked.
    pub server: IpAddr,
    /// The interface.
    pub interface: String,
    /// "NOERROR" or "NXDOMAIN".
    pub rcode: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// How many answer, authority and additional records it has.
    pub records: [u16; 3],
    /// Seconds for which it is still good.
    pub ttl_seconds: f64,
    /// How often it was given since it was laid ready or renewed.
    pub hits: u64,
}

impl AnswerView {
    pub(super) fn new(asked: &Asked, held: &Held, hits: u64, interface: String, now: Timestamp) -> Self {
        let Asked { server, question } = asked;
        let qtype = match question.qtype {
            A => "A".to_owned(),
            AAAA => "AAAA".to_owned(),
            HTTPS => "HTTPS".to_owned(),
            other => format!("TYPE{other}"),
        };
        let words = [(KIND_RECURSION, "RD"), (KIND_AUTHENTIC, "AD"), (KIND_EDNS, "EDNS")];
        let kind: Vec<&str> = words.iter().filter(|(bit, _)| question.kind & bit != 0).map(|(_, word)| *word).collect();
        Self {
            name: question.name.to_string(),
            qtype,
            kind: kind.join(" "),
            server: server.address,
            interface,
            rcode: if held.answer.flags & 0xf == 0 { "NOERROR" } else { "NXDOMAIN" }.to_owned(),
            addresses: held.answer.addresses.clone(),
            records: held.answer.counts,
            ttl_seconds: held.expires.since(now).as_secs_f64(),
            hits,
        }
    }
}
