//! The numbers that `prewarm stats` shows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::handover::WayCounters;
use crate::kernel::{Attachment, EgressHook, XdpMode};
use crate::resolve::answers::Numbers;

/// The version of [`Stats`]' form; it grows when a key changes its meaning or goes.
pub const STATS_SCHEMA: u32 = 1;

/// Everything counted, from the start of the daemon unless a key says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// [`STATS_SCHEMA`].
    pub schema: u32,
    /// The daemon's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Packets the kernel programs looked at.
    pub packets: PacketCounts,
    /// DNS questions parsed.
    pub questions: u64,
    /// DNS answers parsed.
    pub answers: u64,
    /// Events that came through the ring.
    pub events: u64,
    /// What was passed without an event, or lost, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Predictions.
    pub predictions: PredictionCounts,
    /// Names.
    pub names: NameCounts,
    /// What other sources than packets told, by source: "dnstap:/PATH", "getaddrinfo".
    pub sources: BTreeMap<String, SourceCounts>,
    /// Connections that programs open.
    pub connects: ConnectCounts,
    /// Traffic to port 853: names that are asked for where nobody can read them. Those in HTTPS look like any other.
    pub encrypted: EncryptedCounts,
    /// Connections of programs to addresses that no answer named, in percent of all: what no prediction can reach.
    pub blind_share: f64,
    /// Leases.
    pub leases: LeaseCounts,
    /// What became of connections that came for leases, by way out: "fd" (with `prewarm exec`), "redirect", "socks",
    /// "connect", "tproxy".
    pub handover: BTreeMap<String, WayCounters>,
    /// Warm requests.
    pub warms: WarmCounts,
    /// Milliseconds saved by what was used.
    pub saved_ms: LatencyView,
    /// Microseconds from the packet in the kernel to the begin of the dial that it caused.
    pub ring_to_dial_us: LatencyView,
    /// Microseconds from the packet in the kernel to the decision.
    pub ring_to_intent_us: LatencyView,
    /// Bytes of the tables that learn.
    pub memory_bytes: u64,
    /// Answers that the kernel gives in the place of servers on this host, where that is switched on.
    #[serde(default)]
    pub given: Option<Numbers>,
    /// Where the programs are attached.
    pub attachments: Vec<AttachmentView>,
    /// What is not as it should be, a line each; empty when all is well.
    pub health: Vec<String>,
}

/// Packets by program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketCounts {
    /// Arriving, seen by XDP.
    pub ingress: u64,
    /// Leaving, seen by tcx or clsact.
    pub egress: u64,
}

/// Predictions worth acting on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PredictionCounts {
    /// Made, and turned into an intent.
    pub made: u64,
    /// What was made ready was used.
    pub used: u64,
    /// It was not.
    pub wasted: u64,
    /// It was asked for before it was ready.
    pub late: u64,
    /// It could not be made ready.
    pub failed: u64,
    /// A guard rail, a budget or a breaker forbade it.
    pub refused: u64,
    /// Waiting for their time now.
    pub pending: u64,
}

/// Names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NameCounts {
    /// Known now.
    pub known: u64,
    /// Looked up ahead.
    pub warmed: u64,
    /// Of those, asked for while they were still good.
    pub used: u64,
    /// Look-ups without a usable answer.
    pub failed: u64,
}

/// What one source told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceCounts {
    /// Questions, or look-ups of programs; what two sources told is in both.
    pub questions: u64,
    /// Answers that say something of their name.
    pub answers: u64,
    /// Questions of the server itself to others, and the answers to these, which are no accesses.
    pub upstream: u64,
    /// The daemon's own, which are no accesses either.
    pub own: u64,
    /// Left out for another reason: messages of other types or of clients that are not named; look-ups of addresses, in
    /// other network namespaces, or of what is no host's name.
    pub ignored: u64,
    /// What could not be read.
    pub unread: u64,
    /// Questions and answers that there was no room for on the way to the deciding task.
    pub dropped: u64,
    /// Writers connected now; libraries watched.
    pub feeds: u64,
    /// Writers that connected.
    pub connections: u64,
    /// Of those, the ones that wrote something else than dnstap, or broke off.
    pub broken: u64,
    /// Writers turned away because there were too many.
    pub refused: u64,
}

/// Traffic to port 853.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EncryptedCounts {
    /// TCP connections of this host's programs (DNS over TLS), on whatever interface.
    pub connections: u64,
    /// TCP connections that arrive on the watched interfaces: of clients to this host, or through it.
    pub ingress_connections: u64,
    /// TCP connections that leave by them.
    pub egress_connections: u64,
    /// UDP packets that arrive on them (DNS over QUIC).
    pub ingress_packets: u64,
    /// UDP packets that leave by them.
    pub egress_packets: u64,
}

impl EncryptedCounts {
    /// Whether any was seen.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// TCP connections that were opened from this host to others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectCounts {
    /// Whether the kernel tells of all connections; else only of those that programs come to prewarm with.
    pub watched: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// To addresses that a name is known for.
    pub named: u64,
    /// To addresses that no answer named.
    pub blind: u64,
    /// In network namespaces that nothing is learnt from.
    pub elsewhere: u64,
    /// Opened by the daemon itself.
    pub own: u64,
    /// Events about connections that the ring had no room for.
    pub lost: u64,
}

/// Leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseCounts {
    /// Connections opened.
    pub opened: u64,
    /// Dialling now.
    pub dialling: u64,
    /// Ready now.
    pub ready: u64,
    /// Taken by a program.
    pub taken: u64,
    /// Closed unused at their time.
    pub expired: u64,
    /// Closed or broken by the other side while waiting.
    pub dead: u64,
    /// Dials that failed.
    pub failed: u64,
    /// Not dialled: a limit or a guard rail.
    pub refused: u64,
    /// Taken, and something was sent over them.
    pub carried: u64,
    /// Taken, and nothing was sent over them until they ended.
    pub empty: u64,
    /// Accesses, of origins that a connection could have been opened to, that none was ready for.
    pub missed: u64,
}

/// Warm requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WarmCounts {
    /// Answered with a success.
    pub sent: u64,
    /// Whose origin was then asked for by a client, where that can be known.
    pub used: u64,
    /// Not answered, or with an error.
    pub failed: u64,
    /// Connections opened for them.
    pub opened: u64,
    /// Of those, the ones whose TLS session went on where an earlier one ended.
    pub resumed: u64,
    /// Sent over a connection that had been held since an earlier request.
    pub reused: u64,
    /// Sent again because the held connection had died.
    pub retried: u64,
    /// Connections held now.
    pub held: u64,
}

/// Quantiles of a duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyView {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub total: f64,
    /// Half were at most this.
    pub p50: f64,
    /// Nine of ten were at most this.
    pub p90: f64,
    /// All but one in a hundred were at most this.
    pub p99: f64,
}

impl From<crate::telemetry::Quantiles> for LatencyView {
    fn from(from: crate::telemetry::Quantiles) -> Self {
        Self { count: from.count, total: from.total, p50: from.p50, p90: from.p90, p99: from.p99 }
    }
}

/// One interface that the programs are attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttachmentView {
    /// Its name.
    pub interface: String,
    /// "native", "generic" or "off".
    pub xdp: String,
    /// Why not native, where it is not.
    pub reason: Option<String>,
    /// "tcx", "clsact" or "off".
    pub egress: String,
}

impl AttachmentView {
    /// Both hooks on one line.
    #[must_use]
    pub fn shown(&self) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("XDP {}{reason}, egress {}", self.xdp, self.egress)
    }
}

impl From<&Attachment> for AttachmentView {
    fn from(from: &Attachment) -> Self {
        let xdp = match from.xdp {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Off => "off",
        };
        let egress = match from.egress {
            EgressHook::Tcx => "tcx",
            EgressHook::Clsact => "clsact",
            EgressHook::Off => "off",
        };
        Self {
            interface: from.interface.clone(),
            xdp: xdp.to_owned(),
            reason: from.xdp_reason.clone(),
            egress: egress.to_owned(),
        }
    }
}
