//! Why something was not done.
//!
//! Every refusal has a counter; together with what was done they add up to all that was proposed.

/// The reasons, each with its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// RFC 1918 or a unique local address (RFC 4193).
    #[error("a private address")]
    Private,
    /// 127.0.0.0/8 or ::1.
    #[error("a loopback address")]
    Loopback,
    /// 169.254.0.0/16 or fe80::/10.
    #[error("a link-local address")]
    LinkLocal,
    /// 224.0.0.0/4 or ff00::/8.
    #[error("a multicast address")]
    Multicast,
    /// 0.0.0.0/8 or ::.
    #[error("an unspecified address")]
    Unspecified,
    /// 255.255.255.255.
    #[error("the broadcast address")]
    Broadcast,
    /// 100.64.0.0/10 (RFC 6598).
    #[error("an address of a carrier's shared space")]
    SharedSpace,
    /// TEST-NET-1 to 3, 2001:db8::/32, 3fff::/20.
    #[error("an address for documentation")]
    Documentation,
    /// 198.18.0.0/15, 2001:2::/48.
    #[error("an address for benchmarks")]
    Benchmarking,
    /// A cloud's metadata service, which hands out credentials.
    #[error("the address of a metadata service")]
    Metadata,
    /// Set aside for something else than hosts on the internet.
    #[error("a reserved address")]
    Reserved,
    /// An address of this host.
    #[error("an address of this host")]
    OwnAddress,
    /// In `deny_networks`.
    #[error("in a denied network")]
    DeniedNetwork,
    /// Not in `ports`.
    #[error("a port that is not allowed")]
    Port,
    /// No dot in it, or the root.
    #[error("a name of a single label")]
    SingleLabel,
    /// Below local, internal, localhost, invalid, onion, alt, or home.arpa.
    #[error("a local name")]
    LocalName,
    /// Below arpa.
    #[error("a reverse name")]
    ReverseName,
    /// In `deny_names`.
    #[error("a denied name")]
    DeniedName,
    /// Not in `allow_names`.
    #[error("a name that is not on the list of allowed ones")]
    UnlistedName,
    /// Asked from a network that is not learnt from.
    #[error("asked from a network that is not learnt from")]
    Client,
    /// The name is not, or no longer, known.
    #[error("nothing is known of the name")]
    UnknownName,
    /// No address is known for it, or the last answer was an error.
    #[error("the last answer gave no address")]
    Unreachable,
    /// The kind of action is switched off.
    #[error("switched off")]
    Off,
    /// Not probable enough, or not worth its price.
    #[error("not worth its price")]
    Worthless,
    /// The last answer still holds when it is expected.
    #[error("fresh already")]
    Fresh,
    /// The same is waiting, under way or ready already.
    #[error("already under way")]
    Duplicate,
    /// No port was learnt and none is assumed.
    #[error("no port known")]
    NoPort,
    /// The origin failed, was not used, or asked to be left alone.
    #[error("the origin's breaker is open")]
    Breaker,
    /// The client's share of warm-ups is used up.
    #[error("the client's budget is used up")]
    ClientBudget,
    /// Worth less than all that waits in a full queue.
    #[error("the queue is full of better ones")]
    Outbid,
    /// Its time ran out before a budget let it go.
    #[error("its time ran out in the queue")]
    Expired,
    /// What it was for happened before it began.
    #[error("asked for before it began")]
    Overtaken,
}

impl Refusal {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 32] = [
        Self::Private,
        Self::Loopback,
        Self::LinkLocal,
        Self::Multicast,
        Self::Unspecified,
        Self::Broadcast,
        Self::SharedSpace,
        Self::Documentation,
        Self::Benchmarking,
        Self::Metadata,
        Self::Reserved,
        Self::OwnAddress,
        Self::DeniedNetwork,
        Self::Port,
        Self::SingleLabel,
        Self::LocalName,
        Self::ReverseName,
        Self::DeniedName,
        Self::UnlistedName,
        Self::Client,
        Self::UnknownName,
        Self::Unreachable,
        Self::Off,
        Self::Worthless,
        Self::Fresh,
        Self::Duplicate,
        Self::NoPort,
        Self::Breaker,
        Self::ClientBudget,
        Self::Outbid,
        Self::Expired,
        Self::Overtaken,
    ];

    /// A short word for metrics and JSON.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Broadcast => "broadcast",
            Self::SharedSpace => "shared_space",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Metadata => "metadata",
            Self::Reserved => "reserved",
            Self::OwnAddress => "own_address",
            Self::DeniedNetwork => "denied_network",
            Self::Port => "port",
            Self::SingleLabel => "single_label",
            Self::LocalName => "local_name",
            Self::ReverseName => "reverse_name",
            Self::DeniedName => "denied_name",
            Self::UnlistedName => "unlisted_name",
            Self::Client => "client",
            Self::UnknownName => "unknown_name",
            Self::Unreachable => "unreachable",
            Self::Off => "off",
            Self::Worthless => "worthless",
            Self::Fresh => "fresh",
            Self::Duplicate => "duplicate",
            Self::NoPort => "no_port",
            Self::Breaker => "breaker",
            Self::ClientBudget => "client_budget",
            Self::Outbid => "outbid",
            Self::Expired => "expired",
            Self::Overtaken => "overtaken",
        }
    }
}

/// A counter for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; Refusal::ALL.len()]);

impl Refusals {
    /// Counts one.
    pub const fn add(&mut self, refusal: Refusal) {
        self.0[refusal as usize] += 1;
    }

    /// How many were counted for this reason.
    #[must_use]
    pub const fn get(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize]
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().map(|refusal| (refusal, self.get(refusal)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_one_of_the_counters() {
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, place, "{refusal}");
        }
        let labels: std::collections::HashSet<_> = Refusal::ALL.into_iter().map(Refusal::label).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
    }
}
