//! The host as a whole: what anyone accessed lately, which copies went cold, how busy it is.
//!
//! Comes in: accesses and fetches of what was known before. Goes out: resources that may be wanted again, whoever asks.
//! Never here: more than three short rings.

use std::collections::VecDeque;

use super::{arcs::Handle, features::fast_log2, resources::Ref};

/// Resources kept as the latest.
pub(super) const LATEST: usize = 32;
/// Copies whose end is watched; what is fetched while all are taken is not.
const COPIES: usize = 8192;
/// Copies kept that went cold last.
pub(super) const COLD: usize = 16;

/// One access by anyone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latest {
    pub(super) resource: Ref,
    /// The client's number.
    pub(super) client: u32,
    /// In seconds.
    pub(super) at: f64,
    /// The context that the resource forms alone.
    pub(super) context: Handle,
}

/// The state.
#[derive(Debug)]
pub(super) struct Host {
    latest: Vec<Latest>,
    /// When copies go cold; in order, because each is kept equally long.
    copies: VecDeque<(f64, Ref)>,
    cold: [Option<Ref>; COLD],
    next: usize,
    /// Accesses to what was known.
    pub(super) count: u32,
    /// Mean logarithm (base 2) of the time between accesses in seconds.
    pub(super) pace: f32,
    last: f64,
}

impl Host {
    /// Bytes that the rings take.
    pub(super) const BYTES: usize = LATEST * size_of::<Latest>() + COPIES * size_of::<(f64, Ref)>();

    pub(super) fn new() -> Self {
        Self {
            latest: Vec::with_capacity(LATEST),
            copies: VecDeque::with_capacity(COPIES),
            cold: [None; COLD],
            next: 0,
            count: 0,
            pace: 0.0,
            last: 0.0,
        }
    }

    /// The latest, newest first, each resource once.
    pub(super) fn latest(&self) -> &[Latest] {
        &self.latest
    }

    /// What went cold last.
    pub(super) fn cold(&self) -> impl Iterator<Item = Ref> + '_ {
        self.cold.iter().copied().flatten()
    }

    /// Someone accessed something that was known before. What is new has no place here: a flood of it would push out
    /// what matters and make all else look rare.
    pub(super) fn accessed(&mut self, latest: Latest) {
        if self.count > 0 {
            let weight = (1.0 / (self.count.min(100) as f32 + 1.0)).max(0.02);
            self.pace += (fast_log2(((latest.at - self.last) as f32).max(0.001)) - self.pace) * weight;
        }
        self.count = self.count.saturating_add(1);
        self.last = latest.at;
        match self.latest.iter().position(|known| known.resource == latest.resource) {
            Some(end) => self.latest.copy_within(0..end, 1),
            None if self.latest.len() < LATEST => self.latest.insert(0, latest),
            None => self.latest.copy_within(0..LATEST - 1, 1),
        }
        self.latest[0] = latest;
    }

    /// A copy was fetched and goes cold at `until`.
    pub(super) fn fetched(&mut self, resource: Ref, until: f64) {
        if self.copies.len() < COPIES {
            self.copies.push_back((until, resource));
        }
    }

    /// Notes what has gone cold.
    pub(super) fn advance(&mut self, now: f64) {
        while let Some(&(until, resource)) = self.copies.front()
            && until <= now
        {
            self.copies.pop_front();
            self.cold[self.next] = Some(resource);
            self.next = (self.next + 1) % COLD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_stay_short() {
        let mut host = Host::new();
        for n in 0..100_000u32 {
            let at = f64::from(n) / 100.0;
            host.accessed(Latest { resource: n % 70, client: 1, at, context: 0 });
            host.fetched(n, at + 60.0);
            host.advance(at);
        }
        assert_eq!((host.latest().len(), host.cold().count()), (LATEST, COLD));
        assert_eq!(host.latest()[0].resource, 99_999 % 70);
        assert!((host.pace + 6.6).abs() < 0.2, "{}", host.pace);
    }
}
