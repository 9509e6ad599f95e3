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

/// How dense and how regular a course of page visits is.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// What it is made from: the same number, the same course.
    pub seed: u64,
    /// Pages, and followers of each.
    pub pages: u64,
    /// See above.
    pub followers: u64,
    /// In how many of ten visits each follower comes.
    pub of_ten: u64,
    /// Clients, each by itself.
    pub clients: u64,
    /// Mean seconds from one visit of a client to its next.
    pub think: f64,
    /// In how many of ten visits something comes that never came before.
    pub noise_of_ten: u64,
}

/// Courses of many kinds, unlike those recorded: from one page after the other to one every few minutes.
#[must_use]
pub fn courses() -> Vec<Course> {
    let mut courses = Vec::new();
    for (seed, think) in (1u64..).zip([0.3, 1.0, 3.0, 6.0, 15.0, 40.0, 120.0]) {
        let course = Course { seed, pages: 16, followers: 3, of_ten: 10, clients: 1, think, noise_of_ten: 0 };
        courses.push(course);
        courses.push(Course {
            seed: seed + 20,
            pages: 40,
            followers: 1 + seed * 2,
            of_ten: 8,
            noise_of_ten: 3,
            ..course
        });
        courses.push(Course {
            seed: seed + 40,
            pages: 10,
            followers: 6,
            of_ten: 5,
            clients: 4,
            noise_of_ten: 1,
            ..course
        });
    }
    courses
}

impl Course {
    /// The first `visits` visits of each client.
    #[must_use]
    pub fn events(&self, visits: u64) -> Vec<Event> {
        let mut random = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 11) % below
        };
        let (mut events, mut fresh) = (Vec::new(), 1_000_000u32);
        for client in 0..self.clients as u32 {
            let mut at = next(1000) as f64 / 1000.0 * self.think;
            let mut last = 0;
            for _ in 0..visits {
                // No page twice in a row.
                let page = (last + 1 + next(self.pages - 1)) % self.pages;
                last = page;
                let mut push = |lag: f64, resource: u32| events.push(Event { at: at + lag, client, resource });
                let first = (page * (self.followers + 1)) as u32;
                push(0.0, first);
                let mut longest = 0.0f64;
                for follower in 0..self.followers as u32 {
                    if next(10) < self.of_ten {
                        let lag = 0.2 + next(1000) as f64 / 4000.0 * f64::from(1 + follower / 3);
                        longest = longest.max(lag);
                        push(lag, first + 1 + follower);
                    }
                }
                if next(10) < self.noise_of_ten {
                    fresh += 1;
                    push(longest + 0.1, fresh);
                }
                at += longest + self.think * (0.5 + next(1000) as f64 / 1000.0);
            }
        }
        dense(events)
    }
}

/// In their order, with dense numbers.
fn dense(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by(|a, b| a.at.total_cmp(&b.at));
    let mut numbers = std::collections::HashMap::new();
    for event in &mut events {
        let next = numbers.len() as u32;
        event.resource = *numbers.entry(event.resource).or_insert(next);
    }
    events
}

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
    dense(events)
}
