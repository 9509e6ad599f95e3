//! Leases that are on offer elsewhere: each goes to exactly one of pool and claimer.

use std::{collections::HashMap, io, sync::Mutex};

use super::*;

/// A market with a few places.
#[derive(Default)]
pub(super) struct Market {
    places: usize,
    offers: Mutex<HashMap<Token, SocketAddr>>,
}

impl Market {
    pub(super) fn with(places: usize) -> Arc<Self> {
        Arc::new(Self { places, offers: Mutex::default() })
    }

    /// Claims any offer to there.
    pub(super) fn claim(&self, destination: SocketAddr) -> Option<Token> {
        let mut offers = self.offers.lock().unwrap();
        let token = offers.iter().find(|(_, offered)| **offered == destination).map(|(&token, _)| token)?;
        offers.remove(&token);
        Some(token)
    }

    fn tokens(&self) -> Vec<Token> {
        self.offers.lock().unwrap().keys().copied().collect()
    }
}

impl Offers for Market {
    fn offer(&self, token: Token, destination: SocketAddr) -> io::Result<()> {
        let mut offers = self.offers.lock().unwrap();
        if offers.len() >= self.places {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert!(offers.insert(token, destination).is_none(), "a token that is in use");
        Ok(())
    }

    fn recall(&self, token: Token, _destination: SocketAddr) -> Recalled {
        if self.offers.lock().unwrap().remove(&token).is_some() { Recalled::Ours } else { Recalled::Claimed }
    }
}

fn with_market(places: usize) -> (Ledger<u32>, Arc<Market>) {
    let market = Market::with(places);
    let mut ledger = ledger(|settings| settings.per_origin = 64);
    ledger.limits.per_address = 64;
    ledger.offer_to(market.clone(), at(0));
    (ledger, market)
}

#[test]
fn what_was_claimed_is_redeemed_once() {
    let (mut ledger, market) = with_market(9);
    let id = ready(&mut ledger, "a.example", 1, at(0), at(9000));
    let token = market.claim(here()).unwrap();
    assert!(token.0 < 1 << Token::BITS);
    let given = ledger.redeem(token, at(10), |_| Ok(Heard::Silence)).unwrap();
    assert_eq!((given.id, given.connection, given.destination), (id, 1, here()));
    assert!(ledger.redeem(token, at(10), |_| Ok(Heard::Silence)).is_none());
    ledger.settle(id, Fate::Used, at(11));
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Used { saved: RTT })]);
    assert_eq!((ledger.counters.claimed, ledger.counters.taken, ledger.counters.unredeemed), (1, 1, 0));
    assert_eq!(ledger.tally, Tally::default(), "nothing is counted that is gone");
}

#[test]
fn what_the_pool_gives_is_off_offer_first() {
    let (mut ledger, market) = with_market(9);
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    let token = market.tokens()[0];
    let given = ledger.take(here(), &from(None), at(1), |_| Ok(Heard::Silence)).unwrap();
    assert_eq!((market.tokens(), given.connection), (vec![], 1));
    assert!(ledger.redeem(token, at(2), |_| Ok(Heard::Silence)).is_none());
    // It comes back: on offer again, under another name.
    ledger.settle(given.id, Fate::Unfit(1), at(3));
    assert_eq!(market.tokens().len(), 1);
    assert_ne!(market.tokens(), [token]);
}

#[test]
fn a_claimed_lease_is_out_of_reach_and_comes_back_unfetched() {
    let (mut ledger, market) = with_market(9);
    ready(&mut ledger, "a.example", 1, at(0), at(60_000));
    let token = market.claim(here()).unwrap();
    assert!(ledger.take(here(), &from(None), at(100), |_| Ok(Heard::Silence)).is_none());
    assert_eq!(ledger.view(at(100))[0].state, LeaseState::Claimed);
    assert_eq!(ledger.next_due(at(0)), Some(at(2100)));
    assert_eq!(ledger.expire(at(2099), |_| Ok(Heard::Silence)), (vec![], vec![]));
    assert!(ledger.take(here(), &from(None), at(2099), |_| Ok(Heard::Silence)).is_none());
    assert_eq!(ledger.expire(at(2100), |_| Ok(Heard::Silence)), (vec![], vec![]));
    assert!(ledger.redeem(token, at(2101), |_| Ok(Heard::Silence)).is_none(), "too late");
    assert_eq!(market.tokens().len(), 1, "on offer again");
    assert_ne!(market.tokens(), [token]);
    assert!(ledger.take(here(), &from(None), at(2102), |_| Ok(Heard::Silence)).is_some());
    assert_eq!((ledger.counters.claimed, ledger.counters.unredeemed), (1, 1));
}

#[test]
fn a_claimed_lease_that_died_is_nobodys() {
    let (mut ledger, market) = with_market(9);
    let id = ready(&mut ledger, "a.example", 1, at(0), at(60_000));
    let token = market.claim(here()).unwrap();
    assert_eq!(ledger.died(id, Death::Closed, at(50)), None, "it may be on its way");
    assert!(ledger.redeem(token, at(60), |_| Err(Death::Closed)).is_none());
    assert_eq!(verdicts(&mut ledger), [(1, Verdict::Wasted)]);
    // The same when nobody comes.
    let id = ready(&mut ledger, "a.example", 2, at(100), at(60_000));
    market.claim(here()).unwrap();
    assert_eq!(ledger.died(id, Death::Closed, at(150)), None);
    assert_eq!(ledger.expire(at(2150), |_| Err(Death::Closed)), (vec![2], vec![]));
    assert_eq!((ledger.counters.dead, ledger.claimed.len(), ledger.ready.len()), (2, 0, 0));
    assert_eq!(ledger.tally, Tally::default());
}

#[test]
fn guessed_tokens_are_worth_nothing() {
    let (mut ledger, market) = with_market(9);
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    let token = market.tokens()[0];
    assert!(ledger.redeem(Token(token.0 ^ 1), at(1), |_| Ok(Heard::Silence)).is_none());
    assert!(ledger.redeem(token, at(1), |_| Ok(Heard::Silence)).is_none(), "nobody has claimed it");
    assert_eq!(ledger.counters.guessed, 1);
    assert_ne!(market.tokens(), [token], "a name that was guessed is a name no more");
    let token = market.claim(here()).unwrap();
    assert!(ledger.redeem(token, at(2), |_| Ok(Heard::Silence)).is_some());
}

#[test]
fn what_does_not_fit_an_outlet_stays_with_the_pool() {
    let (mut ledger, market) = with_market(1);
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    ready(&mut ledger, "a.example", 2, at(1), at(9000));
    assert_eq!(market.tokens().len(), 1);
    market.claim(here()).unwrap();
    let given = ledger.take(here(), &from(None), at(2), |_| Ok(Heard::Silence)).unwrap();
    assert_eq!(given.connection, 2, "the one that was not on offer is not taken for claimed");
    // One with a mark is for nobody who has none.
    let start = ledger.order(order("b.example", 3, at(9000)), at(3)).unwrap();
    let mut marked = to(here(), 3);
    marked.local.mark = 5;
    ledger.dialled(start.id, marked, at(4));
    assert_eq!(market.tokens(), []);
}

#[test]
fn several_outlets_have_one_token() {
    let (mut ledger, first) = with_market(9);
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    let second = Market::with(9);
    ledger.offer_to(second.clone(), at(1));
    assert_eq!(first.tokens(), second.tokens());
    let token = second.claim(here()).unwrap();
    assert!(ledger.take(here(), &from(None), at(2), |_| Ok(Heard::Silence)).is_none());
    assert_eq!(first.tokens(), [], "a claim at one ends the offer at the other");
    assert!(ledger.redeem(token, at(3), |_| Ok(Heard::Silence)).is_some());
}

#[test]
fn draining_ends_offers_and_claims() {
    let (mut ledger, market) = with_market(9);
    ready(&mut ledger, "a.example", 1, at(0), at(9000));
    ready(&mut ledger, "a.example", 2, at(0), at(9000));
    let token = market.claim(here()).unwrap();
    let mut closed = ledger.drain(at(1));
    closed.sort_unstable();
    assert_eq!((closed, market.tokens()), (vec![1, 2], vec![]));
    assert!(ledger.redeem(token, at(2), |_| Ok(Heard::Silence)).is_none());
    assert_eq!(ledger.tally, Tally::default());
    assert_eq!(verdicts(&mut ledger).len(), 2);
}

#[test]
fn any_address_of_an_origin_will_do() {
    let mut ledger = ledger(|_| {});
    let origin: Origin = "a.example:80".parse().unwrap();
    let there: SocketAddr = "192.0.2.2:80".parse().unwrap();
    let addresses = vec![here().ip(), there.ip()];
    let start = ledger.order(LeaseOrder { addresses, ..order("a.example", 1, at(9000)) }, at(0)).unwrap();
    assert!(ledger.take_from(&origin, &from(None), at(0), |_| Ok(Heard::Silence)).is_none());
    assert!(ledger.is_late_to(&origin, at(0)) && !ledger.is_late_to(&"b.example:80".parse().unwrap(), at(0)));
    ledger.dialled(start.id, to(there, 1), at(1));
    ready(&mut ledger, "b.example", 2, at(2), at(9000));
    assert!(ledger.take_from(&origin, &from(Some(8)), at(3), |_| Ok(Heard::Silence)).is_none());
    let given = ledger.take_from(&origin, &from(Some(7)), at(3), |_| Ok(Heard::Silence)).unwrap();
    assert_eq!((given.destination, given.connection), (there, 1));
    assert!(ledger.take_from(&origin, &from(Some(7)), at(3), |_| Ok(Heard::Silence)).is_none());
}
