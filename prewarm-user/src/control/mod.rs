//! The control socket: how a running daemon is asked.
//!
//! Comes in: requests, one JSON object a line, versioned. Goes out: replies with the request's number; leases too, as
//! `handover` has it. Never here: how a question is answered; `app` implements [`Handle`].

mod client;
mod explain;
mod exposition;
mod origins;
mod protocol;
mod server;
mod socket;
mod stats;

pub use client::{Client, ClientError};
pub use explain::{
    AppraisalView, EffectView, ExplainRequest, ExplanationView, FollowerView, HeardView, ReasonView, RhythmView,
    VoteView,
};
pub use exposition::{Kind, LABELLED, METRICS, Metric, exposition};
pub use origins::OriginView;
pub use protocol::{
    Answer, Failure, FailureCode, FlushView, ListLimit, NameView, PredictionView, Reply, Request, RequestLine, VERSION,
};
pub use server::{Handle, serve};
pub use socket::{SocketError, bind};
pub use stats::{
    AttachmentView, ConnectCounts, EncryptedCounts, LatencyView, LeaseCounts, NameCounts, PacketCounts,
    PredictionCounts, STATS_SCHEMA, SourceCounts, Stats, WarmCounts,
};
