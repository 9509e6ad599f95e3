//! Lease settings.
