//! HTTP connections that are kept between requests: a second request to an origin costs one round trip.
//!
//! Comes in: connections after an answer was read whole. Goes out: one that still stands. Never here: a connection
//! beyond its time (the race between a request and the close of an idle connection is lost by requests), or more of them
//! than stated.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Version;
use tokio::time::{Instant, sleep_until};

use super::channel::Channel;
use crate::model::Origin;

/// Connections held, over all origins; the one that waits longest goes first.
const TOTAL: usize = 64;
/// Connections held to one origin. Of HTTP/2 there is one, which carries many requests.
const PER_ORIGIN: usize = 4;
/// Origins whose patience is remembered.
const REMEMBERED: usize = 1024;
/// How long a connection that has carried a request waits for the next one: Apache closes after 5 s, Node and lighttpd
/// soon after.
const AFTER_HTTP1: Duration = Duration::from_millis(3500);
/// The same for HTTP/2, which servers keep for a minute or more and end with a word (GOAWAY).
const AFTER_HTTP2: Duration = Duration::from_secs(30);
/// What a server promises (`Keep-Alive: timeout`) is believed up to here, less [`MARGIN`].
const LONGEST: Duration = Duration::from_secs(60);
/// A close that is under way can't be seen.
const MARGIN: Duration = Duration::from_millis(1500);
/// No lifetime below this is learnt.
const SHORTEST: Duration = Duration::from_millis(500);

/// Whom a connection is to: what goes over TLS never goes without.
type Key = (Origin, bool);

/// The connections that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Vec<Waiting>,
    /// Learnt lifetimes, of origins that closed sooner than expected.
    patience: HashMap<Key, Duration>,
}

#[derive(Debug)]
struct Waiting {
    key: Key,
    channel: Channel,
    since: Instant,
    until: Instant,
}

impl Held {
    /// A connection that stands, for one request: HTTP/2 stays for others too.
    pub(super) fn take(&self, origin: &Origin, tls: bool) -> Option<Channel> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.bury(now);
        // The one used last is the likeliest to stand.
        let is_ours = |waiting: &Waiting| waiting.key.1 == tls && waiting.key.0 == *origin;
        let place = inner.waiting.iter().rposition(is_ours)?;
        if let Some(shared) = inner.waiting[place].channel.share() {
            let waiting = &mut inner.waiting[place];
            // It is in use, so it is not idle: whoever uses it says how long it may wait afterwards.
            waiting.until = waiting.until.max(now + AFTER_HTTP2);
            return Some(shared);
        }
        Some(inner.waiting.remove(place).channel)
    }

    /// Keeps a connection for as long as the origin may be trusted to keep it; `promised` is what it says itself.
    pub(super) fn put(&self, origin: &Origin, tls: bool, channel: Channel, promised: Option<Duration>) {
        let key = (origin.clone(), tls);
        let now = Instant::now();
        let mut inner = self.lock();
        inner.bury(now);
        let usual = if channel.version() == Version::HTTP_2 { AFTER_HTTP2 } else { AFTER_HTTP1 };
        let promised = promised.map(|promised| promised.min(LONGEST).saturating_sub(MARGIN));
        let patience = inner.patience.get(&key).copied().unwrap_or(Duration::MAX);
        let until = now + promised.unwrap_or(usual).min(patience);
        if channel.is_closed() || until <= now {
            return;
        }
        if channel.version() == Version::HTTP_2
            && let Some(same) = inner.waiting.iter_mut().find(|waiting| waiting.key == key)
            && same.channel.version() == Version::HTTP_2
        {
            // One is enough; the other ends with its last answer.
            (same.since, same.until) = (now, until);
            drop(inner);
            return self.expire(until);
        }
        let full = inner.waiting.iter().filter(|waiting| waiting.key == key).count() >= PER_ORIGIN;
        if full || inner.waiting.len() >= TOTAL {
            let oldest = inner.waiting.iter().position(|waiting| !full || waiting.key == key);
            oldest.map(|oldest| inner.waiting.remove(oldest));
        }
        inner.waiting.push(Waiting { key, channel, since: now, until });
        drop(inner);
        self.expire(until);
    }

    /// Closes all connections to an origin, after one of them fell silent.
    pub(super) fn forget(&self, origin: &Origin, tls: bool) {
        let mut inner = self.lock();
        for gone in inner.waiting.extract_if(.., |waiting| waiting.key.1 == tls && waiting.key.0 == *origin) {
            gone.channel.abort();
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        let mut inner = self.lock();
        inner.bury(Instant::now());
        inner.waiting.len()
    }

    /// Lets go of what waits no longer at that time.
    fn expire(&self, until: Instant) {
        let held = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            sleep_until(until).await;
            if let Some(held) = held.upgrade() {
                // Whose time was moved is looked at again then.
                Self(held).lock().bury(until);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Lets go of what is closed, and learns how patient its origin was.
    fn bury(&mut self, now: Instant) {
        for gone in self.waiting.extract_if(.., |waiting| waiting.channel.is_closed()) {
            if self.patience.len() >= REMEMBERED && !self.patience.contains_key(&gone.key) {
                self.patience.clear();
            }
            // When it was closed is not known, only that it was by now: half of that is a guess on the safe side.
            let learnt = (now.saturating_duration_since(gone.since) / 2).max(SHORTEST);
            let patience = self.patience.entry(gone.key).or_insert(Duration::MAX);
            *patience = learnt.min(*patience);
        }
        for outlived in self.waiting.extract_if(.., |waiting| waiting.until <= now) {
            // It stood to its end: a little longer next time.
            if let Some(patience) = self.patience.get_mut(&outlived.key) {
                *patience = patience.mul_f64(1.25).min(LONGEST);
            }
        }
    }
}
