//! The port between whoever sees observations and whoever takes them, and its fake.

use std::{collections::VecDeque, future::Future};

use super::KernelError;
use crate::model::Observation;

/// Where observations come from.
pub trait EventSource: Send {
    /// Waits until there are observations and appends those that are there, oldest first, to `batch`; at most a
    /// few thousand at once. Gives how many, zero when the source has ended. Cancelling the future loses nothing.
    fn fill(&mut self, batch: &mut Vec<Observation>) -> impl Future<Output = Result<usize, KernelError>> + Send;
}

/// Observations from a list: the fake for tests and benches.
#[derive(Debug, Default)]
pub struct Scripted {
    batches: VecDeque<Vec<Observation>>,
}

impl Scripted {
    /// A source that gives these batches one by one and then ends.
    #[must_use]
    pub fn new(batches: impl IntoIterator<Item = Vec<Observation>>) -> Self {
        Self { batches: batches.into_iter().filter(|batch| !batch.is_empty()).collect() }
    }
}

impl EventSource for Scripted {
    async fn fill(&mut self, batch: &mut Vec<Observation>) -> Result<usize, KernelError> {
        let Some(mut next) = self.batches.pop_front() else { return Ok(0) };
        let count = next.len();
        batch.append(&mut next);
        Ok(count)
    }
}
