//! Accesses made up, for where no recorded ones are at hand.
//!
//! Comes in: nothing. Goes out: the same events each time: page visits with followers, some of them shared between
//! pages, some missing; polling; and names that never come again.

use super::Event;

/// Pages, their followers, and clients.
const PAGES: u64 = 40;
const FOLLOWERS: u64 = 6;
const CLIENTS: u64 = 8;
/// Visits in all.
const VISITS: u64 = 2500;

/// A few hours of made-up traffic.
#[must_use]
pub fn events() -> Vec<Event> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: u64| {
        // xorshift64 (Marsaglia 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let (mut events, mut at) = (Vec::new(), 0.0);
    let mut fresh = 1_000_000u32;
    for _ in 0..VISITS {
        at += next(10_000) as f64 / 1000.0;
        let client = next(CLIENTS) as u32;
        // Low pages are visited more often.
        let page = next(PAGES) * next(PAGES) / PAGES;
        let mut push = |lag: f64, resource: u64| events.push(Event { at: at + lag, client, resource: resource as u32 });
        push(0.0, page);
        let mut lag = 0.0;
        for follower in 0..FOLLOWERS {
            lag += next(400) as f64 / 1000.0;
            if next(5) > 0 {
                // Every third follower belongs to all pages.
                push(lag, if follower % 3 == 0 { 100 + follower } else { 200 + page * FOLLOWERS + follower });
            }
        }
        if next(3) == 0 {
            fresh += 1;
            push(lag + 1.0, u64::from(fresh));
        }
    }
    for client in 0..CLIENTS as u32 {
        let period = 90.0 + 30.0 * f64::from(client);
        let polls = (at / period) as u32;
        events.extend((0..polls).map(|poll| Event { at: f64::from(poll) * period, client, resource: 900 + client }));
    }
    events.sort_by(|a, b| a.at.total_cmp(&b.at));
    // Numbers are dense.
    let mut numbers = std::collections::HashMap::new();
    for event in &mut events {
        let next = numbers.len() as u32;
        event.resource = *numbers.entry(event.resource).or_insert(next);
    }
    events
}
