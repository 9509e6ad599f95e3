//! Leases on their way out of the ledger: to whoever asks, or to whoever claimed one elsewhere.
//!
//! Comes in: programs that ask, tokens, what became of what was given. Goes out: leases, each to one taker. Never here:
//! a dial.

use std::{net::SocketAddr, time::Duration};

use super::{Claimed, Death, Fate, Given, LeaseId, Ledger, Ready};
use crate::{
    lease::{
        offer::{Recalled, Token},
        taker::Taker,
    },
    model::{Origin, Timestamp, Verdict},
};

/// A greeting is handed over only on a connection younger than this: an older one may have been followed by a time-out
/// that is still on its way.
pub(super) const GREETING: Duration = Duration::from_secs(1);

/// What stands in a connection that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing.
    Silence,
    /// Bytes that nobody has read, and no end behind them.
    Words,
}

/// How a connection is found alive, or not.
pub(crate) trait Prove<C>: FnMut(&C) -> Result<Heard, Death> {}
impl<C, F: FnMut(&C) -> Result<Heard, Death>> Prove<C> for F {}

impl<C> Ledger<C> {
    /// Gives out the oldest lease to there that fits and that `prove` finds alive; those that it does not are buried.
    /// The oldest is the one that would be wasted first.
    pub(crate) fn take(
        &mut self,
        destination: SocketAddr,
        taker: &Taker,
        now: Timestamp,
        prove: impl Prove<C>,
    ) -> Option<Given<C>> {
        let candidates = self.by_destination.get(&destination).into_iter().flatten().copied().collect();
        let given = self.take_first(candidates, taker, now, prove);
        self.came(destination, given.is_some(), now);
        given
    }

    /// The same to any address of an origin.
    pub(crate) fn take_from(
        &mut self,
        origin: &Origin,
        taker: &Taker,
        now: Timestamp,
        prove: impl Prove<C>,
    ) -> Option<Given<C>> {
        let of_origin = self.ready.iter().filter(|(_, ready)| ready.order.origin == *origin);
        let mut candidates: Vec<(Timestamp, LeaseId)> = of_origin.map(|(&id, ready)| (ready.since, id)).collect();
        candidates.sort_unstable();
        let given = self.take_first(candidates.into_iter().map(|(_, id)| id).collect(), taker, now, prove);
        let destination = given.as_ref().map(|given| given.destination);
        if let Some(destination) = destination.or_else(|| self.origins.places.latest(origin)) {
            self.came(destination, given.is_some(), now);
        }
        given
    }

    /// A program came for a connection to there: demand, and a miss where there was none.
    pub(crate) fn came(&mut self, destination: SocketAddr, found: bool, now: Timestamp) {
        if !found && let Some(origin) = self.origins.places.origin(destination).cloned() {
            self.origins.missed(&origin, now);
        }
        self.arrived(destination, now);
    }

    fn take_first(
        &mut self,
        candidates: Vec<LeaseId>,
        taker: &Taker,
        now: Timestamp,
        mut prove: impl Prove<C>,
    ) -> Option<Given<C>> {
        for id in candidates {
            let fits = self.ready.get(&id).is_some_and(|ready| ready.local.fits(taker));
            if !fits || self.withdraw(id, now) == Recalled::Claimed {
                continue;
            }
            let Some(mut ready) = self.remove(id) else { continue };
            let found = prove(&ready.connection);
            match self.judge(&mut ready, found, now) {
                Ok(()) => return Some(self.give(id, ready)),
                Err(death) => drop(self.bury(ready, death, now)),
            }
        }
        None
    }

    fn give(&mut self, id: LeaseId, ready: Ready<C>) -> Given<C> {
        let (origin, intent) = (ready.order.origin.clone(), ready.order.intent.map(|(intent, _)| intent));
        let (connection, handed) = ready.split();
        let (destination, rtt) = (handed.destination, handed.rtt);
        self.tally.add(&handed.order.origin, Some(destination));
        self.handed.insert(id, handed);
        Given { id, connection, destination, rtt, origin, intent }
    }

    /// Whether a dial to there is in flight, so that whoever asked came too early. Its intent is decided by that.
    pub(crate) fn is_late(&mut self, destination: SocketAddr, now: Timestamp) -> bool {
        self.is_late_where(now, |_, destinations| destinations.contains(&destination))
    }

    /// The same to any address of an origin.
    pub(crate) fn is_late_to(&mut self, origin: &Origin, now: Timestamp) -> bool {
        self.is_late_where(now, |dialled, _| dialled == origin)
    }

    fn is_late_where(&mut self, now: Timestamp, leads_there: impl Fn(&Origin, &[SocketAddr]) -> bool) -> bool {
        let mut intents = Vec::new();
        let mut late = false;
        for dial in self.dials.values_mut().filter(|dial| leads_there(&dial.order.origin, &dial.destinations)) {
            late = true;
            if !dial.late {
                dial.late = true;
                self.counters.late += 1;
                intents.push(dial.order.intent.take());
            }
        }
        for intent in intents {
            self.report(intent, Verdict::Late, now);
        }
        late
    }

    /// Says what became of a lease that was given out.
    pub(crate) fn settle(&mut self, id: LeaseId, fate: Fate<C>, now: Timestamp) {
        let Some(handed) = self.handed.remove(&id) else { return };
        self.tally.subtract(&handed.order.origin, Some(handed.destination));
        match fate {
            Fate::Used => {
                self.counters.taken += 1;
                self.origins.taken(&handed.order.origin, handed.rtt, now);
                self.stirred |= self.is_short_at(&handed.order.origin, handed.destination, now);
                self.report(handed.order.intent, Verdict::Used { saved: handed.rtt }, now);
            }
            Fate::Unfit(connection) => {
                self.counters.given_back += 1;
                // It expires some time.
                self.stirred = true;
                self.keep(id, handed.with(connection));
            }
            Fate::Lost => {
                self.counters.lost += 1;
                self.origins.wasted(&handed.order.origin, now);
                self.stirred |= self.is_short_at(&handed.order.origin, handed.destination, now);
                self.report(handed.order.intent, Verdict::Wasted, now);
            }
        }
    }

    /// Gives a lease to whoever claimed it elsewhere and comes with its token. A token that names a lease which nobody
    /// has claimed was guessed: it is worth nothing, and the lease goes on under another.
    pub(crate) fn redeem(&mut self, token: Token, now: Timestamp, mut prove: impl Prove<C>) -> Option<Given<C>> {
        let id = self.stall.lease(token)?;
        if self.ready.contains_key(&id) && self.withdraw(id, now) == Recalled::Ours {
            self.counters.guessed += 1;
            self.show(id);
            return None;
        }
        let Claimed { mut ready, .. } = self.claimed.remove(&id)?;
        self.tally.subtract(&ready.order.origin, Some(ready.destination));
        self.stall.forget(token);
        let found = prove(&ready.connection);
        let verdict = self.judge(&mut ready, found, now);
        self.came(ready.destination, verdict.is_ok(), now);
        match verdict {
            Ok(()) => Some(self.give(id, ready)),
            Err(death) => {
                drop(self.bury(ready, death, now));
                None
            }
        }
    }

    /// What was claimed and not fetched in time waits again, if it is still alive. The dead, to be closed.
    pub(super) fn take_back(&mut self, now: Timestamp, prove: &mut impl Prove<C>) -> Vec<C> {
        let due: Vec<LeaseId> =
            self.claimed.iter().filter(|(_, claimed)| claimed.until <= now).map(|(&id, _)| id).collect();
        let mut dead = Vec::new();
        for id in due {
            let Some(Claimed { mut ready, token, .. }) = self.claimed.remove(&id) else { continue };
            self.tally.subtract(&ready.order.origin, Some(ready.destination));
            self.stall.forget(token);
            self.counters.unredeemed += 1;
            let found = prove(&ready.connection);
            match self.judge(&mut ready, found, now) {
                Ok(()) => self.keep(id, ready),
                Err(death) => dead.push(self.bury(ready, death, now)),
            }
        }
        dead
    }

    /// Something happened to a waiting connection, and this was found in it. What is to be closed.
    pub(crate) fn looked(&mut self, id: LeaseId, found: Result<Heard, Death>, now: Timestamp) -> Option<C> {
        let mut ready = self.ready.remove(&id)?;
        let verdict = self.judge(&mut ready, found, now);
        self.ready.insert(id, ready);
        self.died(id, verdict.err()?, now)
    }

    /// Whether a connection in which this was found can be handed over. Where the server speaks first, its greeting is
    /// what a program expects, while it is young; anything else that was said unasked, and what has a close behind it, is
    /// for nobody.
    fn judge(&mut self, ready: &mut Ready<C>, found: Result<Heard, Death>, now: Timestamp) -> Result<(), Death> {
        if found? == Heard::Silence || self.talkers.contains(&ready.order.origin) {
            return Ok(());
        }
        if now.since(ready.since) >= GREETING {
            return Err(Death::Spoke);
        }
        if !ready.greeted {
            ready.greeted = true;
            self.origins.places.greeted(ready.destination, true);
        }
        if !self.origins.places.speaks_first(ready.destination) {
            return Err(Death::Spoke);
        }
        ready.expires = ready.expires.min(ready.since + GREETING);
        Ok(())
    }

    /// Whether a lease to there is of no use a second after it was established, because of a greeting.
    pub(super) fn must_be_fresh(&self, origin: &Origin, destination: SocketAddr) -> bool {
        !self.talkers.contains(origin) && self.origins.places.speaks_first(destination)
    }

    /// Takes a waiting lease off offer. One that somebody has claimed is out of reach from then on.
    pub(super) fn withdraw(&mut self, id: LeaseId, now: Timestamp) -> Recalled {
        let Some(ready) = self.ready.get_mut(&id) else { return Recalled::Ours };
        let Some(offer) = ready.offer.take() else { return Recalled::Ours };
        if self.stall.recall(offer, ready.destination) == Recalled::Ours {
            return Recalled::Ours;
        }
        if let Some(ready) = self.remove(id) {
            self.counters.claimed += 1;
            self.stirred = true;
            self.tally.add(&ready.order.origin, Some(ready.destination));
            self.claimed.insert(id, Claimed { ready, token: offer.token, until: now + super::CLAIM });
        }
        Recalled::Claimed
    }

    /// Puts a waiting lease on offer, where it is one that anybody may have who connects without a mark.
    pub(super) fn show(&mut self, id: LeaseId) {
        if let Some(ready) = self.ready.get_mut(&id)
            && ready.offer.is_none()
            && ready.local.mark == 0
        {
            ready.offer = self.stall.offer(id, ready.destination);
        }
    }
}
