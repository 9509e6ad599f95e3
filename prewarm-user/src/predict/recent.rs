//! What each client accessed lately, with the places of the contexts this formed.
//!
//! Comes in: accesses. Goes out: a client's burst, newest first. Never here: more clients than set aside; in a full set
//! the one silent for longest is forgotten.

use super::{
    ClientKey,
    arcs::{Handle, NOWHERE},
    features::fast_log2,
    resources::Ref,
};

/// Distinct resources kept of a burst.
pub(super) const BURST: usize = 16;
/// Contexts that one access forms: alone, alone for this client, with the one before, with the two before.
pub(super) const CONTEXTS: usize = 4;
const WAYS: usize = 4;

/// One access.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) resource: Ref,
    /// In seconds.
    pub(super) at: f64,
    pub(super) contexts: [Handle; CONTEXTS],
}

/// A client's latest accesses, each resource once, newest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    client: ClientKey,
    used: bool,
    length: u8,
    /// Accesses, all of them.
    pub(super) count: u32,
    /// Mean logarithm (base 2) of the time between them in seconds.
    pub(super) pace: f32,
    /// Share of them to what nobody had accessed before.
    pub(super) novelty: f32,
    /// When the last was, in seconds.
    last: f64,
    steps: [Step; BURST],
}

impl Burst {
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps[..usize::from(self.length)]
    }

    /// Another access begins, to something new or not: what is more than `window` seconds old no longer belongs to the
    /// burst.
    pub(super) fn begin(&mut self, now: f64, window: f64, new: bool) {
        let gap = now - self.last;
        if gap > window {
            self.length = 0;
        }
        let weight = (1.0 / (self.count.min(100) as f32 + 1.0)).max(0.04);
        if self.count > 0 {
            self.pace += (fast_log2((gap as f32).max(0.001)) - self.pace) * weight;
        }
        self.novelty += (f32::from(u8::from(new)) - self.novelty) * weight;
        self.count = self.count.saturating_add(1);
        self.last = now;
    }

    /// Drops the latest steps: as it was before them, but for older accesses of the same resources.
    pub(super) fn step_back(&mut self, accesses: usize) {
        let length = usize::from(self.length);
        let dropped = accesses.min(length);
        self.steps.copy_within(dropped..length, 0);
        self.length -= dropped as u8;
    }

    /// Puts a step first and drops the older one of the same resource.
    pub(super) fn push(&mut self, step: Step) {
        let length = usize::from(self.length);
        let end = match self.steps[..length].iter().position(|known| known.resource == step.resource) {
            Some(known) => known,
            None => {
                let end = length.min(BURST - 1);
                self.length = end as u8 + 1;
                end
            }
        };
        self.steps.copy_within(0..end, 1);
        self.steps[0] = step;
    }
}

/// All clients.
#[derive(Debug)]
pub(super) struct Recent {
    bursts: Vec<Burst>,
}

impl Recent {
    pub(super) const BYTES_EACH: usize = size_of::<Burst>();

    /// Room for about `count` clients.
    pub(super) fn new(count: usize) -> Self {
        let step = Step { resource: 0, at: 0.0, contexts: [NOWHERE; CONTEXTS] };
        let empty = Burst {
            client: ClientKey(0),
            used: false,
            length: 0,
            count: 0,
            pace: 0.0,
            novelty: 0.5,
            last: 0.0,
            steps: [step; BURST],
        };
        Self { bursts: vec![empty; count.max(WAYS) / WAYS * WAYS] }
    }

    pub(super) fn get(&self, client: ClientKey) -> Option<&Burst> {
        let first = self.set(client);
        self.bursts[first..first + WAYS].iter().find(|burst| burst.used && burst.client == client)
    }

    /// The client's burst, made if there is none.
    pub(super) fn get_mut(&mut self, client: ClientKey) -> &mut Burst {
        let first = self.set(client);
        let set = &mut self.bursts[first..first + WAYS];
        let at = set.iter().position(|burst| burst.used && burst.client == client).unwrap_or_else(|| {
            let last = |burst: &Burst| if burst.used { burst.last } else { f64::NEG_INFINITY };
            let silent = (0..WAYS).min_by(|&a, &b| last(&set[a]).total_cmp(&last(&set[b]))).unwrap_or(0);
            set[silent] = Burst { client, used: true, length: 0, count: 0, pace: 0.0, novelty: 0.5, ..set[silent] };
            silent
        });
        &mut set[at]
    }

    pub(super) fn bytes(&self) -> usize {
        self.bursts.capacity() * size_of::<Burst>()
    }

    fn set(&self, client: ClientKey) -> usize {
        let sets = (self.bursts.len() / WAYS) as u64;
        let hash = super::arcs::key(&[client.0 as u64, (client.0 >> 64) as u64]);
        (((hash >> 32) * sets) >> 32) as usize * WAYS
    }
}
