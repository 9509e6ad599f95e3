//! Connections that are open before anybody asks.
pub mod sockopt;
