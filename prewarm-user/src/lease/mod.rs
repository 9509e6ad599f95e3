//! Leases: TCP connections that are open before anybody asks.
//!
//! Comes in: orders (from intents), programs that ask. Goes out: connections proven alive, and one outcome for each
//! intent. Never here: whom to connect to (policy), how a program gets its connection (handover).
//!
//! `ledger` decides, with `origins`, `pace` and `order`; `dial` and `probe` touch sockets; `pool` brings both together.
//! `warm` is what prewarm itself sends over one.

mod counters;
mod demand;
mod dial;
mod headroom;
mod hints;
mod keepalive;
mod ledger;
mod offer;
mod order;
mod origins;
mod pace;
mod pool;
mod probe;
pub(crate) mod sockopt;
mod stall;
mod taker;
mod warm;

pub use counters::{LeaseCounters, LeaseState, LeaseView, Reason};
pub use dial::{Announce, DialError, Dialer, Dialled, Dialling, Guard, Pacing, TcpDialer, Won, race};
pub use hints::{Hints, HintsView};
pub use ledger::{Death, Fate, LeaseId, LeaseOrder};
pub use offer::{Offers, Recalled, Token};
pub use order::interleave;
pub use origins::{MemoryError, OriginView, Remembered};
pub use pool::{Pool, Take, Taken};
pub use sockopt::netns_cookie;
pub use taker::Taker;
pub use warm::{TrustError, WarmCounters, WarmError, WarmMethod, WarmRequest, Warmed, Warmer};
