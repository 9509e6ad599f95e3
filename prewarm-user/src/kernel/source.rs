//! Where events come from: the port, and its fake.

use std::collections::VecDeque;

use super::KernelError;
use crate::model::Observation;

/// A source of observations.
pub trait EventSource: Send {
    /// Waits until there is something, and appends all of it to `batch`. Safe to drop while it waits.
    ///
    /// # Errors
    /// When there will be nothing more.
    fn read(&mut self, batch: &mut Vec<Observation>) -> impl Future<Output = Result<(), KernelError>> + Send;
}

/// A scripted source, for tests: gives batch after batch, then waits for ever.
#[derive(Clone, Debug, Default)]
pub struct Script(pub VecDeque<Vec<Observation>>);

impl EventSource for Script {
    async fn read(&mut self, batch: &mut Vec<Observation>) -> Result<(), KernelError> {
        match self.0.pop_front() {
            Some(next) => {
                batch.extend(next);
                Ok(())
            }
            None => std::future::pending().await,
        }
    }
}
