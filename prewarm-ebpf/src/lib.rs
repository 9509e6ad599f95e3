//! What kernel and user side of prewarm share: the records that cross the ring, the maps' names and limits, and the
//! parser itself, which runs the same in the kernel programs and on the host.
//!
//! Comes in: a frame, through the two-method port [`Packet`]. Goes out: a [`Segment`], a [`Question`], an answer's
//! records, or the [`Counter`] that says why not. Never here: maps, helpers, allocation, or a guess.
#![cfg_attr(not(test), no_std)]

pub mod abi;
mod answer;
pub mod answers;
mod counters;
mod edns;
pub mod getaddrinfo;
mod hash;
mod headers;
mod name;
mod packet;
mod question;
pub mod redirect;
pub mod tproxy;

pub use abi::Counter;
pub use answer::{Addresses, Outline, records};
pub use edns::{Edns, edns};
pub use hash::{HashKey, KEY_WORDS, resource_id};
pub use headers::{Segment, Stream, address, locate, stream_message};
pub use name::{Scan, fold, hash_walked, scan, walk, word};
pub use packet::{LIMIT, Packet, be16, be32, le64};
pub use question::{Header, Question, header, question, read};
