//! What each client asked for lately.
//!
//! Comes in: who asked for what, and when. Goes out: the client's recent questions, newest first. Never here: more
//! clients or questions than set; the client that was silent for longest is forgotten first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use crate::model::{ResourceId, Timestamp};

/// One client's session: questions with no long silence between them.
#[derive(Clone, Debug, Default)]
pub struct Client {
    asked: VecDeque<(Timestamp, ResourceId)>,
    /// Where it stands in the order of silence.
    turn: u64,
}

impl Client {
    /// Its questions, newest first.
    pub fn recent(&self) -> impl Iterator<Item = (Timestamp, ResourceId)> {
        self.asked.iter().rev().copied()
    }

    /// When it asked last.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        self.asked.back().map_or(Timestamp::ZERO, |(at, _)| *at)
    }
}

/// All clients.
#[derive(Debug)]
pub struct Clients {
    capacity: usize,
    length: usize,
    idle: Duration,
    turn: u64,
    clients: HashMap<IpAddr, Client>,
    /// The order of silence: the first has been silent for longest.
    silence: BTreeMap<u64, IpAddr>,
}

impl Clients {
    pub(super) fn new(capacity: usize, length: usize, idle: Duration) -> Self {
        Self { capacity, length, idle, turn: 0, clients: HashMap::new(), silence: BTreeMap::new() }
    }

    pub(super) fn asked(&mut self, at: Timestamp, client: IpAddr, resource: ResourceId) {
        if self.clients.len() >= self.capacity
            && !self.clients.contains_key(&client)
            && let Some((_, silent)) = self.silence.pop_first()
        {
            self.clients.remove(&silent);
        }
        self.turn += 1;
        let known = self.clients.entry(client).or_default();
        self.silence.remove(&known.turn);
        self.silence.insert(self.turn, client);
        known.turn = self.turn;
        if at.since(known.last()) > self.idle {
            known.asked.clear();
        }
        if known.asked.len() >= self.length {
            known.asked.pop_front();
        }
        known.asked.push_back((at, resource));
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        // A silent client's session can say nothing any more, but its place is cheap: keep it for a while.
        let idle = self.idle * 10;
        while let Some((&turn, &client)) = self.silence.first_key_value() {
            if self.clients.get(&client).is_some_and(|known| now.since(known.last()) <= idle) {
                break;
            }
            self.silence.remove(&turn);
            self.clients.remove(&client);
        }
    }

    /// What the client asked in its session, newest first.
    pub fn recent(&self, client: IpAddr) -> impl Iterator<Item = (Timestamp, ResourceId)> {
        self.clients.get(&client).into_iter().flat_map(Client::recent)
    }

    /// All clients, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&IpAddr, &Client)> {
        self.clients.iter()
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        let rings: usize =
            self.clients.values().map(|c| c.asked.capacity() * size_of::<(Timestamp, ResourceId)>()).sum();
        rings
            + self.clients.capacity() * (size_of::<(IpAddr, Client)>() + 1) * 8 / 7
            + self.silence.len() * size_of::<(u64, IpAddr)>() * 3 / 2
    }
}
