//! What is due by the clock, as the predictor tells it.
//!
//! Comes in: the time. Goes out: predictions of what the agenda and the seasons say is due, each with its worth. Never
//! here: what follows an access.

use std::time::Duration;

use super::{Due, Mixture, mixture::APPOINTMENTS};
use crate::model::{Prediction, Timestamp, Timing};

/// Seconds to the next look at least: what is told a moment late is told in time, and rounding must not make anyone ask
/// again and again at the same time.
const SOONEST: f64 = 0.001;

impl Mixture {
    /// Replaces `out` with what is due by the clock.
    pub(super) fn tell_due(&mut self, now: Timestamp, out: &mut Vec<Due>) {
        out.clear();
        let local = self.local(now);
        let now = self.advance(now);
        let mut appointments = std::mem::take(&mut self.appointments);
        appointments.clear();
        let mut tell = |appointment| {
            if appointments.len() < APPOINTMENTS {
                appointments.push(appointment);
            }
        };
        self.agenda.due(now, self.horizon, &mut tell);
        if let Some(local) = local {
            self.seasons.due(local, self.horizon, &mut tell);
        }
        for appointment in &appointments {
            // Between two restarts of the clock a place may have changed hands.
            let Some(resource) = self.resources.id(appointment.resource) else { continue };
            let probability = f64::from(appointment.probability);
            if probability < self.floor && f64::from(appointment.worth) < self.floor {
                continue;
            }
            let [earliest_in, expected_in, latest_in] =
                [-2.0, 0.0, 2.0].map(|by| appointment.expected_in + by * appointment.deviation);
            let duration = |seconds: f32| Duration::from_secs_f32(seconds.max(0.0));
            let prediction = Prediction {
                resource,
                probability,
                worth: f64::from(appointment.worth),
                earliest_in: duration(earliest_in),
                expected_in: duration(expected_in),
                latest_in: duration(latest_in),
                timing: Timing::at(appointment.expected_in),
            };
            out.push(Due { client: appointment.client, prediction });
        }
        self.appointments = appointments;
    }

    /// When something is due next.
    pub(super) fn next_appointment(&self, now: Timestamp) -> Option<Timestamp> {
        let by_rhythm = self.agenda.next() - self.time(now);
        let by_season = self.local(now).map_or(f64::INFINITY, |local| self.seasons.next() - local);
        let wait = by_rhythm.min(by_season).max(SOONEST);
        Duration::try_from_secs_f64(wait).ok().map(|wait| now + wait)
    }
}
