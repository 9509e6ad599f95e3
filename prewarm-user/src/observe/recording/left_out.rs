//! What a reader left out, by reason, with where it first happened.

use std::collections::BTreeMap;

/// Why something was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A line, message or entry that makes no sense.
    Broken,
    /// A line of more than a megabyte.
    LongLine,
    /// No name, or one that is none.
    NoName,
    /// DNS of another kind: mDNS, LLMNR, NetBIOS, zone transfers.
    OtherPort,
    /// Another class than IN.
    OtherClass,
    /// A part of a packet, or a DNS message in several segments.
    Part,
    /// A server's own question for its client, or the answer to it.
    Upstream,
    /// A message of a kind that no client has part in.
    OtherMessage,
    /// A request over a connection that was open.
    OpenConnection,
    /// An interface that has no IP packets.
    LinkType,
    /// The end of the file, where it breaks off.
    Cut,
    /// So late that it could not be put in order; taken for a little later.
    OutOfOrder,
}

impl Reason {
    /// What to tell a person.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::LongLine => "longer than a megabyte",
            Self::NoName => "without a host name",
            Self::OtherPort => "not to port 53",
            Self::OtherClass => "of another class than IN",
            Self::Part => "in parts",
            Self::Upstream => "of a server for its clients",
            Self::OtherMessage => "of a kind that no client has part in",
            Self::OpenConnection => "over a connection that was open",
            Self::LinkType => "of a link type without IP",
            Self::Cut => "cut off at the end",
            Self::OutOfOrder => "too far out of order",
        }
    }
}

/// How much was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(BTreeMap<Reason, (u64, u64)>);

impl LeftOut {
    /// Counts one, at this line, frame or entry.
    pub(super) fn add(&mut self, reason: Reason, place: u64) {
        self.0.entry(reason).or_insert((0, place)).0 += 1;
    }

    /// The reasons with how often and where first (a line, frame or entry; the first is 1).
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64, u64)> {
        self.0.iter().map(|(&reason, &(count, first))| (reason, count, first))
    }

    /// How often for this reason.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        self.0.get(&reason).map_or(0, |known| known.0)
    }
}
