//! What is held, where, and until when.
//!
//! Comes in: answers with the time they were given at, and the passing of time. Goes out: slots and buckets of the kernel,
//! and what is to be asked again. Never here: a clock, a socket, or a slot written that may still be read.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
    time::Duration,
};

use prewarm_ebpf::answers::{self, AnswerSlot, AnswerUse, BUCKET, INDEX_ENTRIES, REST};

use super::{Answer, Question};
use crate::{
    kernel::{AnswerMaps, KernelError},
    model::{Name, ResourceId, Timestamp},
};

/// Of the slots, one in so many is kept for answers that are replaced while the old ones rest.
const SPARE: usize = 8;
/// How many answers are looked at to find the one that is missed least.
const SAMPLES: usize = 8;
/// Counters of how often something without an answer was wanted.
const WANTS: usize = 4096;

/// A server of this host, by the interface its clients come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// The interface's index.
    pub interface: u32,
}

/// A question at a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asked {
    /// Which server.
    pub server: Server,
    /// What.
    pub question: Question,
}

/// The kernel's maps, or a table in their place.
pub trait Table: Send {
    /// How many slots there are.
    fn entries(&self) -> u32;
    /// Writes a slot that nobody reads.
    ///
    /// # Errors
    /// When it can't be written.
    fn write(&mut self, slot: u32, answer: &AnswerSlot) -> Result<(), KernelError>;
    /// Says which slots a bucket names.
    ///
    /// # Errors
    /// When it can't be written.
    fn name(&mut self, bucket: u32, slots: [u64; BUCKET]) -> Result<(), KernelError>;
    /// How a slot is used.
    ///
    /// # Errors
    /// When it can't be read.
    fn uses(&self, slot: u32) -> Result<AnswerUse, KernelError>;
    /// Says how a slot is used.
    ///
    /// # Errors
    /// When it can't be written.
    fn set_use(&mut self, slot: u32, uses: AnswerUse) -> Result<(), KernelError>;
}

impl Table for AnswerMaps {
    fn entries(&self) -> u32 {
        Self::entries(self)
    }

    fn write(&mut self, slot: u32, answer: &AnswerSlot) -> Result<(), KernelError> {
        Self::write(self, slot, answer)
    }

    fn name(&mut self, bucket: u32, slots: [u64; BUCKET]) -> Result<(), KernelError> {
        Self::name(self, bucket, slots)
    }

    fn uses(&self, slot: u32) -> Result<AnswerUse, KernelError> {
        Self::uses(self, slot)
    }

    fn set_use(&mut self, slot: u32, uses: AnswerUse) -> Result<(), KernelError> {
        Self::set_use(self, slot, uses)
    }
}

/// An answer that is held.
#[derive(Debug)]
pub struct Held {
    slot: u32,
    place: u64,
    /// The ID of its name.
    pub resource: ResourceId,
    /// What it says.
    pub answer: Answer,
    /// The begin of the second that its TTLs were counted in.
    pub base: Timestamp,
    /// From when on it isn't given.
    pub expires: Timestamp,
    /// When it was laid ready.
    pub since: Timestamp,
    /// When it is looked at next.
    due: Timestamp,
    /// Uses of those before it for the same question.
    before: u64,
    /// Until when it is expected to be asked for.
    expected: Timestamp,
    /// The record that comes first; 0: they take turns.
    first: u64,
}

/// An answer to lay ready.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The ID of the name.
    pub resource: ResourceId,
    /// What it says.
    pub answer: Answer,
    /// The begin of the second that its TTLs were counted in.
    pub base: Timestamp,
    /// Until when somebody is expected to ask, if it is.
    pub expected: Timestamp,
    /// Whether the server lets records take turns.
    pub rotates: bool,
}

/// Why an answer is not held.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// All slots, or those of its bucket, hold answers that are used more.
    #[error("what is held is used more")]
    Full,
    /// It would be too old at once.
    #[error("too old")]
    Old,
    /// The kernel's maps can't be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What decides which record of an answer comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// Names and addresses that a ready lease leads to: such an address comes first.
    pub ready: BTreeSet<(Name, IpAddr)>,
    /// Servers that let records take turns, where no lease decides.
    pub turning: BTreeSet<IpAddr>,
}

/// All that is held.
#[derive(Debug)]
pub struct Store<T> {
    table: T,
    held: HashMap<Asked, Held>,
    /// What is held of a name: one question for each server, type and kind.
    of: HashMap<ResourceId, Vec<Asked>>,
    /// What records were ordered by, unless an answer came since whose records can be.
    led: Option<Lead>,
    slots: Vec<Option<Asked>>,
    buckets: Vec<[u64; BUCKET]>,
    due: BTreeMap<(Timestamp, u32), Asked>,
    /// Slots that nobody names, with the time from which they may be written.
    free: VecDeque<(Timestamp, u32)>,
    wants: Vec<(u64, u32)>,
    longest: Duration,
    random: u64,
}

impl<T: Table> Store<T> {
    /// An empty one, whose answers are held for at most `longest`.
    pub fn new(table: T, longest: Duration, seed: u64) -> Self {
        let entries = table.entries();
        Self {
            held: HashMap::new(),
            of: HashMap::new(),
            led: None,
            slots: vec![None; entries as usize],
            buckets: vec![[0; BUCKET]; INDEX_ENTRIES as usize],
            due: BTreeMap::new(),
            free: (0..entries).map(|slot| (Timestamp::ZERO, slot)).collect(),
            wants: vec![(0, 0); WANTS],
            longest,
            random: seed | 1,
            table,
        }
    }

    /// What is held for a question.
    pub fn get(&self, asked: &Asked) -> Option<&Held> {
        self.held.get(asked)
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = (&Asked, &Held)> {
        self.held.iter()
    }

    /// What is held of a name.
    pub fn of(&self, resource: ResourceId) -> impl Iterator<Item = (&Asked, &Held)> {
        self.of.get(&resource).into_iter().flatten().filter_map(|asked| self.held.get_key_value(asked))
    }

    /// How many answers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// How many there may be.
    #[must_use]
    pub fn room(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The maps.
    pub const fn table(&mut self) -> &mut T {
        &mut self.table
    }

    /// How often an answer was given since it was laid ready.
    pub fn hits(&self, held: &Held) -> u64 {
        self.table.uses(held.slot).map_or(0, |uses| uses.hits)
    }

    /// Notes that somebody asked what there was no answer to.
    pub fn wanted(&mut self, asked: &Asked, resource: ResourceId) {
        let place = place(asked, resource);
        let cell = &mut self.wants[place as usize % WANTS];
        if cell.0 == place {
            cell.1 = cell.1.saturating_add(1);
        } else {
            *cell = (place, 1);
        }
    }

    /// Says that a question is expected until then.
    pub fn expect(&mut self, asked: &Asked, until: Timestamp) {
        if let Some(held) = self.held.get_mut(asked) {
            held.expected = held.expected.max(until);
        }
    }

    /// Lays an answer ready, in the place of the one before where there is one.
    ///
    /// # Errors
    /// When there is no room for it, or it is not worth any.
    pub fn put(&mut self, now: Timestamp, asked: &Asked, fresh: Fresh) -> Result<(), Refused> {
        let life = Duration::from_secs(fresh.answer.ttl.into()).min(self.longest);
        let expires = fresh.base + life;
        if expires <= now {
            return Err(Refused::Old);
        }
        let place = place(asked, fresh.resource);
        let (before, expected) = match self.held.get(asked) {
            Some(old) => (self.hits(old) / 2 + old.before / 2, old.expected.max(fresh.expected)),
            None => {
                self.make_room(now, place)?;
                (0, fresh.expected)
            }
        };
        let Some(slot) = self.rested(now) else { return Err(Refused::Full) };
        let first = if fresh.rotates || fresh.answer.turns.is_none() { 0 } else { 1 };
        let mut words = fresh.answer.slot(&asked.question, fresh.resource);
        words.server = address(asked.server.address);
        words.interface = asked.server.interface;
        words.base = fresh.base.as_nanos();
        words.expires = expires.as_nanos();
        let written = self
            .table
            .write(slot, &words)
            .and_then(|()| self.table.set_use(slot, AnswerUse { hits: 0, first }))
            .and_then(|()| self.enter(place, slot, self.held.get(asked).map(|old| old.slot)));
        if let Err(error) = written {
            self.free.push_front((now, slot));
            return Err(error.into());
        }
        match self.held.remove(asked) {
            Some(old) => self.rest(now, &old),
            None => self.of.entry(fresh.resource).or_default().push(asked.clone()),
        }
        if fresh.answer.takes_turns() {
            self.led = None;
        }
        // Looked at when a tenth is left.
        let due = fresh.base + life.mul_f64(0.9);
        self.due.insert((due, slot), asked.clone());
        self.slots[slot as usize] = Some(asked.clone());
        let Fresh { resource, answer, base, .. } = fresh;
        let held = Held { slot, place, resource, answer, base, expires, since: now, due, before, expected, first };
        self.held.insert(asked.clone(), held);
        Ok(())
    }

    /// Lets go of an answer; the kernel gives it no more from now on.
    ///
    /// # Errors
    /// When the maps can't be used.
    pub fn remove(&mut self, now: Timestamp, asked: &Asked) -> Result<bool, KernelError> {
        let Some(held) = self.held.remove(asked) else { return Ok(false) };
        if let Entry::Occupied(mut of) = self.of.entry(held.resource) {
            of.get_mut().retain(|other| other != asked);
            if of.get().is_empty() {
                of.remove();
            }
        }
        let left = self.leave(&held);
        self.rest(now, &held);
        left.map(|()| true)
    }

    /// Lets go of all that the condition holds for, and gives how many those were.
    ///
    /// # Errors
    /// When the maps can't be used.
    pub fn flush(&mut self, now: Timestamp, is_it: impl Fn(&Asked) -> bool) -> Result<usize, KernelError> {
        let all: Vec<Asked> = self.held.keys().filter(|asked| is_it(asked)).cloned().collect();
        let mut result = Ok(all.len());
        for asked in all {
            if let Err(error) = self.remove(now, &asked) {
                result = Err(error);
            }
        }
        result
    }

    /// Lets time pass: what is too old is let go of; gives what is used and should be asked anew.
    ///
    /// # Errors
    /// When the maps can't be used.
    pub fn tick(&mut self, now: Timestamp) -> Result<Vec<Asked>, KernelError> {
        let mut again = Vec::new();
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let asked = entry.remove();
            let Some(held) = self.held.get_mut(&asked) else { continue };
            let uses = self.table.uses(held.slot).map_or(0, |uses| uses.hits);
            let is_used = uses > 0 || held.expected > now;
            if now >= held.expires {
                self.remove(now, &asked)?;
            } else {
                held.due = held.expires;
                let key = (held.due, held.slot);
                self.due.insert(key, asked.clone());
            }
            if is_used {
                again.push(asked);
            }
        }
        Ok(again)
    }

    /// When [`Self::tick`] is wanted next.
    #[must_use]
    pub fn next_tick(&self) -> Option<Timestamp> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// Lets the address that a lease waits for come first, or records take turns where none does and the server lets
    /// them. Costs nothing while neither leases nor answers have changed.
    ///
    /// # Errors
    /// When the maps can't be used.
    pub fn lead(&mut self, lead: Lead) -> Result<(), KernelError> {
        if self.led.as_ref() == Some(&lead) {
            return Ok(());
        }
        for (asked, held) in &mut self.held {
            if !held.answer.takes_turns() {
                continue;
            }
            let is_ready = |&address: &IpAddr| lead.ready.contains(&(asked.question.name.clone(), address));
            let ready = held.answer.addresses.iter().position(is_ready);
            let usual = if lead.turning.contains(&asked.server.address) { 0 } else { 1 };
            let first = ready.map_or(usual, |index| index as u64 + 1);
            if first != held.first {
                let hits = self.table.uses(held.slot)?.hits;
                self.table.set_use(held.slot, AnswerUse { hits, first })?;
                held.first = first;
            }
        }
        self.led = Some(lead);
        Ok(())
    }

    /// Sees that a slot is to be had for a newcomer, if need be in the place of what is used less.
    fn make_room(&mut self, now: Timestamp, place: u64) -> Result<(), Refused> {
        let wants = self.wants.get(place as usize % WANTS).filter(|cell| cell.0 == place).map_or(0, |cell| cell.1);
        let bucket = self.buckets[bucket(place)];
        let limit = self.slots.len() - self.slots.len() / SPARE;
        let mut candidates: Vec<u32> = Vec::new();
        if bucket.iter().all(|entry| *entry != 0) {
            candidates.extend(bucket.iter().map(|entry| *entry as u32 - 1));
        } else if self.held.len() >= limit {
            candidates.extend((0..SAMPLES).map(|_| self.random_slot()));
        } else {
            return Ok(());
        }
        let worth = |slot: &u32| {
            let asked = self.slots[*slot as usize].as_ref()?;
            let held = self.held.get(asked)?;
            Some((self.hits(held) + held.before, held.expected > now, asked.clone()))
        };
        let least = candidates.iter().filter_map(worth).min_by_key(|(uses, expected, _)| (*expected, *uses));
        match least {
            Some((uses, false, asked)) if uses < u64::from(wants) => {
                self.remove(now, &asked)?;
                Ok(())
            }
            _ => Err(Refused::Full),
        }
    }

    /// A slot that nobody reads any more.
    fn rested(&mut self, now: Timestamp) -> Option<u32> {
        let (from, slot) = *self.free.front()?;
        if from > now {
            return None;
        }
        self.free.pop_front();
        Some(slot)
    }

    fn rest(&mut self, now: Timestamp, held: &Held) {
        self.due.remove(&(held.due, held.slot));
        self.slots[held.slot as usize] = None;
        self.free.push_back((now + Duration::from_nanos(REST), held.slot));
    }

    /// Lets a bucket name a slot, in the place of another of the same question.
    fn enter(&mut self, place: u64, slot: u32, instead: Option<u32>) -> Result<(), KernelError> {
        let mut entries = self.buckets[bucket(place)];
        let old = instead.map(|old| answers::entry(place, old));
        let Some(free) = entries.iter_mut().find(|entry| old.map_or(**entry == 0, |old| **entry == old)) else {
            return Ok(());
        };
        *free = answers::entry(place, slot);
        self.rename(place, entries)
    }

    fn leave(&mut self, held: &Held) -> Result<(), KernelError> {
        let mut entries = self.buckets[bucket(held.place)];
        let named = answers::entry(held.place, held.slot);
        for entry in entries.iter_mut().filter(|entry| **entry == named) {
            *entry = 0;
        }
        self.rename(held.place, entries)
    }

    fn rename(&mut self, place: u64, entries: [u64; BUCKET]) -> Result<(), KernelError> {
        self.table.name(bucket(place) as u32, entries)?;
        self.buckets[bucket(place)] = entries;
        Ok(())
    }

    fn random_slot(&mut self) -> u32 {
        // xorshift64: nobody gains from guessing which answers are compared.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % self.slots.len() as u64) as u32
    }
}

const fn bucket(place: u64) -> usize {
    (place & (INDEX_ENTRIES as u64 - 1)) as usize
}

fn place(asked: &Asked, resource: ResourceId) -> u64 {
    let Asked { server, question } = asked;
    answers::place(resource.0, address(server.address), server.interface, question.qtype, question.kind)
}

/// An address as records have it.
#[must_use]
pub fn address(address: IpAddr) -> [u64; 2] {
    let v6 = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    bytemuck::cast(v6.octets())
}

#[cfg(test)]
mod tests;
