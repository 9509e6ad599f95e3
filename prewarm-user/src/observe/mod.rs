//! Other sources of the same observations.
