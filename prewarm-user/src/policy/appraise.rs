//! What would be done for a prediction, and why not: the decision, told instead of taken.

use super::{Known, Policy, Refusal};
use crate::model::{Action, Prediction, Timestamp};

/// What one action for a predicted resource comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Appraisal {
    /// What would be done.
    pub action: Action,
    /// What it saves if it is used, in milliseconds.
    pub saved_ms: f64,
    /// What it costs if it is not, at today's price, in milliseconds.
    pub cost_ms: f64,
    /// What it is worth, all in all, in milliseconds.
    pub value_ms: f64,
    /// The worth of a prediction from which on it is done.
    pub break_even: f64,
    /// What comes of it.
    pub verdict: Verdict,
}

/// What comes of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would be done, if the budgets allow.
    Done,
    /// It waits for its time or for a budget.
    Waiting,
    /// It is under way, or what it made waits for its use.
    UnderWay,
    /// It is not done.
    Refused(Refusal),
}

impl Policy {
    /// What each action for a prediction comes to, if it were made now. Changes nothing.
    #[must_use]
    pub fn appraise(&self, now: Timestamp, prediction: &Prediction, known: Known<'_>) -> Vec<Appraisal> {
        let verdict = |key| {
            if self.open.by_key(key).is_some() {
                return Verdict::UnderWay;
            }
            if self.queue.find(key).is_some() {
                return Verdict::Waiting;
            }
            let permitted = self
                .draft(now, now, prediction, known, key)
                .and_then(|draft| self.permit(now, now, prediction, known, key, draft.start));
            permitted.map_or_else(Verdict::Refused, |()| Verdict::Done)
        };
        let appraise = |key| {
            let (saved_ms, cost_ms) = (self.saved_ms(key), self.priced_ms(key.kind));
            Appraisal {
                action: self.action(key, known.name),
                saved_ms,
                cost_ms,
                value_ms: self.value_ms(self.times(now, now, prediction, known, key).1, key),
                break_even: cost_ms / (saved_ms + cost_ms),
                verdict: verdict(key),
            }
        };
        self.keys(prediction.resource, known).0.into_iter().map(appraise).collect()
    }
}
