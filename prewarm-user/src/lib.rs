//! The daemon and the command line of prewarm.
