//! The JSON that every bench, the lab and `prewarm replay` print.

pub use prewarm_user::replay::report::{Machine, Report, Row};
