//! Servers that speak first: whose words are handed over, and whose lease is buried for them.

use super::*;

fn speaks(ledger: &mut Ledger<u32>, id: LeaseId, ms: u64) -> Option<u32> {
    ledger.looked(id, Ok(Heard::Words), at(ms))
}

fn take(ledger: &mut Ledger<u32>, ms: u64) -> Option<Given<u32>> {
    ledger.take(here(), &from(None), at(ms), |_| Ok(Heard::Words))
}

#[test]
fn a_greeting_is_learnt_and_handed_over_young() {
    let mut ledger = ledger(|_| {});
    let id = ready(&mut ledger, "a.example", 1, at(0), at(60_000));
    assert_eq!(speaks(&mut ledger, id, 50), Some(1), "once may be an accident");
    let id = ready(&mut ledger, "a.example", 2, at(100), at(60_000));
    assert_eq!(speaks(&mut ledger, id, 150), None, "now it is known");
    assert_eq!(speaks(&mut ledger, id, 160), None);
    assert_eq!(ledger.next_due(at(0)), Some(at(1100)), "of use for a second");
    let given = take(&mut ledger, 900).unwrap();
    ledger.settle(given.id, Fate::Used, at(900));
    // From then on a lease lives a second, spoken on or not, and is not renewed.
    ready(&mut ledger, "a.example", 3, at(2000), at(60_000));
    assert!(take(&mut ledger, 3000).is_none(), "a second old");
    let id = ready(&mut ledger, "a.example", 4, at(4000), at(60_000));
    assert_eq!(speaks(&mut ledger, id, 4050), None);
    let (closed, again) = ledger.expire(at(5000), |_| Ok(Heard::Words));
    assert_eq!((closed, again), (vec![4], vec![]));
    assert!(ledger.origins.view(at(5000))[0].speaks_first);
    assert_eq!(ledger.counters.dead_spoke, 2);
}

#[test]
fn silence_unlearns_it() {
    let mut ledger = ledger(|_| {});
    for intent in 1..3 {
        let id = ready(&mut ledger, "a.example", intent, at(intent), at(60_000));
        speaks(&mut ledger, id, intent + 1);
        drop(take(&mut ledger, intent + 2));
    }
    assert!(ledger.origins.places.speaks_first(here()));
    ready(&mut ledger, "a.example", 3, at(10), at(60_000));
    ledger.expire(at(1010), |_| Ok(Heard::Silence));
    assert!(!ledger.origins.places.speaks_first(here()));
}

#[test]
fn words_before_a_close_are_no_greeting() {
    let mut ledger = ledger(|_| {});
    for intent in 1..5 {
        let id = ready(&mut ledger, "a.example", intent, at(intent * 10), at(60_000));
        speaks(&mut ledger, id, intent * 10 + 1);
        ledger.looked(id, Err(Death::Closed), at(intent * 10 + 2));
        // The first of each pair is buried at its words, the second at its close, which unlearns them.
        assert!(!ledger.origins.places.speaks_first(here()) || intent % 2 == 1, "{intent}");
    }
    // Words of an old connection stand before a close: its age is remembered.
    let mut ledger = super::ledger(|_| {});
    let id = ready(&mut ledger, "b.example", 1, at(0), at(60_000));
    assert_eq!(speaks(&mut ledger, id, 10_000), Some(1));
    assert_eq!(ledger.origins.idle(&"b.example:80".parse().unwrap()), Duration::from_secs(5));
    assert!(take(&mut ledger, 10_001).is_none());
}

#[test]
fn the_operator_knows_better() {
    let mut ledger = ledger(|settings| settings.speaks_first = vec!["A.example:80".to_owned()]);
    let id = ready(&mut ledger, "a.example", 1, at(0), at(60_000));
    assert_eq!(speaks(&mut ledger, id, 50), None);
    assert!(take(&mut ledger, 20_000).is_some(), "however old");
}
