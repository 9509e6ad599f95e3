//! The words every part speaks: value types without IO, clock or allocation strategy of their own.
//!
//! Comes in: nothing. Goes out: names, resources, origins, observations, predictions, intents, outcomes.
//! Never here: sockets, clocks, tasks, or an import from another part.

mod connection;
mod intent;
mod name;
mod observation;
mod origin;
mod prediction;
mod resource;
mod timestamp;
pub(crate) mod timing;

pub use connection::{Connection, Phase};
pub use intent::{Action, ActionKind, Intent, IntentId, Outcome, Verdict};
pub use name::{Name, NameError};
pub use observation::{Direction, Observation, Seen};
pub use origin::{Origin, OriginError};
pub use prediction::Prediction;
pub use resource::{ResourceHasher, ResourceId, ResourceMap};
pub use timestamp::Timestamp;
pub use timing::Timing;
