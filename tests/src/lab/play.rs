//! Playing visits: which page is next, and what its fetches took.
//!
//! Pages come in no order that could be learnt: each time one is drawn from those of which nothing is
//! cached anywhere any more, so cold is honest and a page never announces the next page. Of those, pages that were visited least come
//! first, so that every page is learnt.
//!
//! Of the followers one is fetched by the plain client, in turn, and the others, like the page, by curl.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::scenario::{Follower, Page, Scenario, Scheme};
use crate::visit::{Fetch, Hand, Visitor};
use crate::{clock, interrupt};

/// One fetch of a visit.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Of the page.
    pub scheme: Scheme,
    /// Or the page itself.
    pub follower: bool,
    /// What was fetched.
    pub name: String,
    /// What it took, or how it failed.
    pub fetch: Result<Fetch, String>,
}

/// The order of play, which goes on from phase to phase.
#[derive(Debug)]
pub(super) struct Player<'a> {
    scenario: &'a Scenario,
    chance: Chance,
    visited: Vec<Visited>,
}

/// What became of a page so far.
#[derive(Clone, Copy, Debug, Default)]
struct Visited {
    times: u32,
    /// When nothing of it is cached anywhere any more.
    free_at: Duration,
}

impl<'a> Player<'a> {
    /// A player whose order depends on the seed alone, as far as expiry allows.
    pub(super) fn new(scenario: &'a Scenario, seed: u64) -> Self {
        Self { scenario, chance: Chance(seed), visited: vec![Visited::default(); scenario.pages.len()] }
    }

    /// Plays this many visits, one after the other. `before` hears of each.
    ///
    /// # Errors
    /// When the user interrupts. A fetch that fails is a sample.
    pub(super) fn play(
        &mut self,
        visitor: &Visitor<'_>,
        visits: usize,
        mut before: impl FnMut(usize),
    ) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for visit in 0..visits {
            before(visit);
            let page = self.next_page()?;
            samples.extend(self.visit(visitor, page)?);
            let visited = &mut self.visited[page];
            *visited = Visited {
                times: visited.times + 1,
                free_at: clock::now() + self.scenario.forgotten_after(&self.scenario.pages[page]),
            };
            interrupt::check()?;
        }
        Ok(samples)
    }

    fn visit(&mut self, visitor: &Visitor<'_>, number: usize) -> Result<Vec<Sample>> {
        let page: &'a Page = &self.scenario.pages[number];
        let turn = self.visited[number].times as usize % page.followers.len();
        let fetch = |follower: bool, hand: Hand, name: &str, path: &str| Sample {
            scheme: page.scheme,
            follower,
            name: name.to_owned(),
            fetch: visitor.fetch(hand, page.scheme, name, path).map_err(|error| format!("{error:#}")),
        };
        let mut samples = vec![fetch(false, Hand::Curl, &page.name, "/")];
        let came = clock::now();
        let [shortest, longest] = self.scenario.plan.gap_milliseconds;
        let mut gap = || Duration::from_millis(shortest + self.chance.next() % (longest - shortest + 1));
        let hands = (0..).map(|place| if place == turn { Hand::Plain } else { Hand::Curl });
        let due: Vec<_> =
            page.followers.iter().zip(hands).map(|(follower, hand)| (follower, hand, came + gap())).collect();
        let fetch = &fetch;
        thread::scope(|scope| {
            let start = |(follower, hand, due): (&'a Follower, Hand, Duration)| {
                scope.spawn(move || {
                    clock::sleep_until(due);
                    fetch(true, hand, &follower.name, &follower.path)
                })
            };
            let running: Vec<_> = due.into_iter().map(start).collect();
            for fetched in running {
                samples.push(fetched.join().map_err(|_| anyhow!("a visitor panicked"))?);
            }
            Ok(samples)
        })
    }

    /// Draws among the pages that are forgotten everywhere, waiting for the first to be if none is.
    fn next_page(&mut self) -> Result<usize> {
        let first_free = self.visited.iter().map(|page| page.free_at).min().context("no pages")?;
        clock::sleep_until(first_free);
        let now = clock::now();
        let free = || self.visited.iter().enumerate().filter(|(_, page)| page.free_at <= now);
        let fewest = free().map(|(_, page)| page.times).min();
        let candidates: Vec<_> =
            free().filter(|(_, page)| Some(page.times) == fewest).map(|(number, _)| number).collect();
        let drawn = usize::try_from(self.chance.next())? % candidates.len();
        Ok(candidates[drawn])
    }
}

/// SplitMix64: an order that is the same in every run of a seed.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
