//! The kernel programs from user space: load, attach, read the ring, write the known names, count, test-run.
//!
//! Comes in: a [`Settings`], names of interfaces, IDs that are known now. Goes out: [`Observation`]s through an
//! [`EventSource`], [`Counts`], [`Attachment`]s. Never here: what an observation means, and any other namespace than
//! the current one.
//!
//! [`Observation`]: crate::model::Observation

mod answers;
mod attach;
mod cgroup;
mod counts;
mod error;
mod getaddrinfo;
mod heartbeat;
mod key;
mod known;
mod link;
mod log;
mod netlink;
mod object;
mod programs;
mod record;
mod redirect;
mod ring;
mod sockops;
mod source;
mod steer;
mod tproxy;
mod trial;

pub use answers::{AnswerCounters, AnswerCounts, AnswerMaps, AnswerParts, WantedRing};
pub use attach::{Attachment, EgressHook, XdpMode};
pub use cgroup::{Cgroup, cgroup2_mount};
pub use counts::{Counters, Counts};
pub use error::KernelError;
pub use getaddrinfo::{Lookup, LookupCounts, Lookups, probe_lookups};
pub use heartbeat::Heartbeat;
pub use key::Key;
pub use known::Known;
pub use link::unseen_vlans;
pub use log::LogPump;
pub use object::object;
pub use programs::{Programs, Settings};
pub use record::{Body, Record};
pub use redirect::{
    Claim, ONLY_THIS, Redirect, RedirectAttachment, RedirectClaims, RedirectCounters, RedirectHooks, RedirectListeners,
    RedirectOffers, RedirectRules,
};
pub use ring::{Ring, RingSource};
pub use sockops::{Dialled, cgroup_mount, cookie};
pub use source::{EventSource, Scripted};
pub use steer::{SteerError, Steering};
pub use tproxy::{FlowClaim, Flows, Tproxy, TproxyCounters, TproxyCounts, TproxyHooks, TproxyPlace};
pub use trial::{MAX_FRAME, MIN_FRAME, Trial};
