//! A predictor that says what it is told to.

use std::collections::HashMap;

use super::{ClientKey, Predictor};
use crate::model::{Prediction, ResourceId, Timestamp};

/// After each resource, the predictions written down for it.
#[derive(Clone, Debug, Default)]
pub struct Scripted {
    script: HashMap<ResourceId, Vec<Prediction>>,
    last: HashMap<ClientKey, ResourceId>,
}

impl Scripted {
    /// Says `predictions` whenever a client's last access was `after`.
    pub fn say(&mut self, after: ResourceId, predictions: Vec<Prediction>) {
        self.script.insert(after, predictions);
    }
}

impl Predictor for Scripted {
    fn learn(&mut self, _: Timestamp, client: ClientKey, resource: ResourceId) {
        self.last.insert(client, resource);
    }

    fn predict(&mut self, _: Timestamp, client: ClientKey, out: &mut Vec<Prediction>) {
        out.clear();
        if let Some(predictions) = self.last.get(&client).and_then(|last| self.script.get(last)) {
            out.extend_from_slice(predictions);
        }
    }

    fn forget(&mut self, resource: ResourceId) {
        self.script.remove(&resource);
    }

    fn bytes(&self) -> usize {
        self.script.len() * size_of::<Prediction>() + self.last.len() * size_of::<(ClientKey, ResourceId)>()
    }
}
