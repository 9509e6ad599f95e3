//! What the daemon itself asks the servers on this host, and which answers belong to it.
//!
//! Comes in: what is to be asked, and datagrams. Goes out: datagrams, and answers to what was asked. Never here: a socket,
//! or anything believed of a datagram that answers no question of ours.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use super::{Answer, Asked, Unfit};
use crate::model::{ResourceId, Timestamp};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions under way at once.
const MOST: usize = 2048;

/// Why something is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Somebody asked twice.
    Wanted,
    /// It is expected to be asked.
    Expected,
    /// What is held gets old.
    Refresh,
    /// Another client was told something else.
    Doubt,
    /// To see whether records take turns.
    Order(Vec<std::net::IpAddr>),
}

/// A question under way.
#[derive(Clone, Debug)]
pub struct Pending {
    /// What.
    pub asked: Asked,
    /// The ID of its name.
    pub resource: ResourceId,
    /// Why.
    pub why: Why,
    /// The begin of the second in which it was asked: no later than the one in which it was answered.
    pub base: Timestamp,
    sent: Timestamp,
}

/// The questions under way.
#[derive(Debug, Default)]
pub struct Asking {
    pending: HashMap<u16, Pending>,
    asked: HashSet<Asked>,
    /// Datagrams that answered nothing.
    pub strays: u64,
    /// Questions without an answer in time.
    pub lost: u64,
}

impl Asking {
    /// Notes a question, and gives the datagram that asks it; `None` when it is under way already, or too many are.
    /// `second` is how much of the clock's second has passed, and `number` a random number.
    pub fn begin(
        &mut self,
        now: Timestamp,
        second: Duration,
        asked: &Asked,
        (resource, why): (ResourceId, Why),
        number: u16,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        if self.pending.len() >= MOST || self.asked.contains(asked) {
            return None;
        }
        let id = (0..=u16::MAX).map(|step| number.wrapping_add(step)).find(|id| !self.pending.contains_key(id))?;
        let base = now - second;
        self.asked.insert(asked.clone());
        self.pending.insert(id, Pending { asked: asked.clone(), resource, why, base, sent: now });
        Some((SocketAddr::new(asked.server.address, 53), asked.question.message(id)))
    }

    /// How many more may be asked now.
    #[must_use]
    pub fn room(&self) -> usize {
        MOST - self.pending.len()
    }

    /// Takes a datagram in. What answers no question of ours is counted, and changes nothing.
    pub fn take(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<(Pending, Result<Answer, Unfit>)> {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let id = datagram.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        let pending = id.and_then(|id| self.pending.get(&id));
        let Some((id, pending)) = id.zip(pending) else {
            self.strays += 1;
            return None;
        };
        let answer = Answer::read(&pending.asked.question, id, datagram);
        if from != SocketAddr::new(pending.asked.server.address, 53) || answer == Err(Unfit::Question) {
            self.strays += 1;
            return None;
        }
        let pending = self.pending.remove(&id)?;
        self.asked.remove(&pending.asked);
        Some((pending, answer))
    }

    /// Forgets all: what comes now answers nothing.
    pub fn forget(&mut self) {
        self.pending.clear();
        self.asked.clear();
    }

    /// Forgets what was not answered in time, and gives it.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Asked> {
        let is_late = |_: &u16, pending: &mut Pending| now.since(pending.sent) >= PATIENCE;
        let lost: Vec<Asked> = self.pending.extract_if(is_late).map(|(_, pending)| pending.asked).collect();
        for asked in &lost {
            self.asked.remove(asked);
        }
        self.lost += lost.len() as u64;
        lost
    }
}
