//! The daemon's end of the task that keeps answers laid ready.
//!
//! Comes in: what is expected and told, and what a person asks. Goes out: commands to the task, and its numbers. Never
//! here: a wait for the task by whoever reads packets.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use prewarm_ebpf::answers::{A, AAAA, AnswerCounter};
use tokio::sync::{mpsc, oneshot};

use super::numbers::{AnswerView, Numbers};
use crate::{
    kernel::AnswerCounters,
    model::{Name, Observation, ResourceId, Seen, Timestamp},
};

/// What is asked of the task.
#[derive(Debug)]
pub enum Command {
    /// A name is expected to be asked for.
    Expect(Name),
    /// A server answered a client.
    Told(Told),
    /// List answers, at most so many.
    List(usize, oneshot::Sender<Vec<AnswerView>>),
    /// Let go of answers; gives how many.
    Flush(Flush, oneshot::Sender<usize>),
}

/// What a server told a client.
#[derive(Clone, Debug)]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// The ID of the name.
    pub resource: ResourceId,
    /// The type.
    pub qtype: u16,
    /// The response code.
    pub rcode: u8,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// Whom.
    pub client: IpAddr,
}

/// Which answers are let go of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Those of a name.
    Name(Name),
    /// Those of a zone.
    Zone(Name),
    /// All.
    All,
}

/// The daemon's end of the task.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    numbers: Arc<Mutex<Numbers>>,
    counters: Arc<AnswerCounters>,
}

impl Handle {
    /// The daemon's end, and the task's.
    #[must_use]
    pub fn new(counters: AnswerCounters) -> (Self, mpsc::Receiver<Command>, Arc<Mutex<Numbers>>) {
        let (commands, receiver) = mpsc::channel(1024);
        let numbers = Arc::<Mutex<Numbers>>::default();
        let handle = Self { commands, numbers: Arc::clone(&numbers), counters: Arc::new(counters) };
        (handle, receiver, numbers)
    }

    /// Says that a name is expected, unless the task is busy.
    pub fn expect(&self, name: &Name) {
        drop(self.commands.try_send(Command::Expect(name.clone())));
    }

    /// Tells what a server told a client, unless the task is busy.
    pub fn told(&self, observation: &Observation) {
        if let Seen::Answer { resource, qtype: qtype @ (A | AAAA), rcode, addresses, .. } = &observation.seen {
            let told = Told {
                at: observation.at,
                resource: *resource,
                qtype: *qtype,
                rcode: *rcode,
                addresses: addresses.clone(),
                client: observation.client,
            };
            drop(self.commands.try_send(Command::Told(told)));
        }
    }

    /// The answers, at most so many.
    pub async fn list(&self, limit: usize) -> Vec<AnswerView> {
        let (to, answer) = oneshot::channel();
        let sent = self.commands.send(Command::List(limit, to)).await;
        if sent.is_err() { Vec::new() } else { answer.await.unwrap_or_default() }
    }

    /// Lets go of answers, and gives how many.
    pub async fn flush(&self, what: Flush) -> usize {
        let (to, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Flush(what, to)).await;
        if sent.is_err() { 0 } else { answer.await.unwrap_or_default() }
    }

    /// What is counted, here and in the kernel.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Ok(counts) = self.counters.read() {
            numbers.answered = counts.get(AnswerCounter::Answered);
            let named = |counter: &AnswerCounter| (counter.name().to_owned(), counts.get(*counter));
            numbers.kernel = AnswerCounter::ALL.iter().map(named).collect();
        }
        numbers
    }
}
