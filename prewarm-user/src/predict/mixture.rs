//! The model: contexts of several orders and windows, each asked what followed it, mixed into one calibrated
//! probability for each candidate.
//!
//! Experts are the contexts formed by the last access (alone, alone for this client, with the one before, with the two
//! before), the same for the earlier accesses of the burst, and the candidate's own rhythm. What an expert's counts are
//! worth is learnt (`rates`), what they say together is averaged in the logit domain by how much each has seen, and a
//! last table corrects the average (adaptive probability map, as in context-mixing compressors). A context seen too
//! rarely says little, so the mix falls back to the shorter one by itself: the escape of PPM.

use super::{
    ClientKey, Predictor,
    arcs::{self, Arcs, Handle, NOWHERE},
    lags::{self, Lags},
    rates::{self, Rate, Rates},
    recent::{BURST, CONTEXTS, Recent, Step},
    resources::{Ref, Resources},
    trials::{NONE, Trials},
};
use crate::{
    config::PredictSettings,
    model::{Prediction, ResourceId, Timestamp},
};

/// Experts: the contexts of the last access, those of the earlier ones, and the candidate's own rhythm.
const EXPERTS: usize = 2 * CONTEXTS + 1;
/// The candidate's own rhythm.
const RHYTHM: usize = 2 * CONTEXTS;
/// Accesses of the burst that are asked what follows them.
const ASKED: usize = 8;
/// Occurrences of the last access after which the earlier ones are not asked.
const WELL_KNOWN: f32 = 24.0;
/// Candidates looked at for one event.
const CANDIDATES: usize = 64;
/// Slots of the table that finds a candidate; at most half full.
const FINDER: usize = 256;
/// Candidates whose truth is learnt from, for one event.
const TRIALS: usize = 24;
/// Seconds for which what was accessed stays ready by itself: only colder candidates are worth a warm-up.
const KEPT: f64 = 60.0;
/// How much a learnt rate remembers at most.
const MEMORY: f32 = 250.0;
/// How much of the last correction is taken over.
const CORRECTION: f32 = 0.3;
/// No opinion.
const SILENT: u16 = u16::MAX;
/// No candidate.
const NOBODY: u8 = u8::MAX;

/// How far each expert is trusted, beside how much it has seen.
const TRUST: [f32; EXPERTS] = [1.0, 0.6, 1.0, 0.7, 0.5, 0.3, 0.4, 0.0, 0.2];

/// What the experts say of one candidate.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    resource: Ref,
    /// The best share so far, to choose among an expert's contexts.
    share: [f32; EXPERTS],
    seen: [f32; EXPERTS],
    state: [u16; EXPERTS],
    /// The arc that tells the time to use.
    lags: Lags,
    elapsed: f32,
    evidence: f32,
    logit: f32,
    cold: bool,
}

/// What is kept of a candidate until its truth is known.
#[derive(Clone, Copy, Debug)]
struct Said {
    state: [u16; EXPERTS],
    cold: bool,
    logit: f32,
}

/// Bytes that do not depend on the memory set: learnt rates and the workspace of one prediction.
const FIXED: usize = 2 * size_of::<[Rates; EXPERTS]>() + CANDIDATES * size_of::<Candidate>() + FINDER;

/// The model.
#[derive(Debug)]
pub struct Mixture {
    horizon: f64,
    lead: f64,
    limit: usize,
    floor: f64,
    arcs: Arcs,
    resources: Resources,
    recent: Recent,
    trials: Trials<Said>,
    /// Learnt rates of each expert, for cold candidates and for others.
    rates: [Box<[Rates; EXPERTS]>; 2],
    /// Corrections of the average.
    correction: [[Rate; 33]; 2],
    candidates: Vec<Candidate>,
    /// How often the last access's contexts occurred before.
    past: [f32; CONTEXTS],
    finder: Box<[u8; FINDER]>,
    /// The latest time seen, in seconds.
    now: f64,
}

impl Mixture {
    /// An empty model, with all its memory set aside.
    #[must_use]
    pub fn new(settings: &PredictSettings) -> Self {
        // The learnt rates and the workspace have a fixed size; the tables share the rest.
        let bytes = (settings.memory_mib as usize * 1024 * 1024).saturating_sub(FIXED);
        let share = |percent: usize, each: usize| bytes / 100 * percent / each;
        let table = |rates: Rates| -> Box<[Rates; EXPERTS]> { Box::new(std::array::from_fn(|_| rates.clone())) };
        let correction = std::array::from_fn(|bucket| Rate::new(rates::squash((bucket as f32 - 16.0) / 2.0), 20.0));
        Self {
            horizon: settings.horizon_seconds,
            lead: settings.lead_ms / 1000.0,
            limit: settings.candidates as usize,
            floor: settings.floor,
            arcs: Arcs::new(share(76, arcs::BYTES_EACH)),
            resources: Resources::new(share(8, Resources::BYTES_EACH)),
            recent: Recent::new(share(8, Recent::BYTES_EACH).min(4096)),
            trials: Trials::new(share(5, Trials::<Said>::BYTES_EACH).min(1 << 16)),
            rates: [table(Rates::new()), table(Rates::new())],
            correction: [correction; 2],
            candidates: Vec::with_capacity(CANDIDATES),
            past: [0.0; CONTEXTS],
            finder: Box::new([NOBODY; FINDER]),
            now: 0.0,
        }
    }

    /// Time never runs backwards in here.
    fn advance(&mut self, now: Timestamp) -> f64 {
        self.now = self.now.max(now.as_nanos() as f64 / 1e9);
        self.now
    }

    /// Learns from trials whose horizon has passed.
    fn settle(&mut self) {
        while let Some(trial) = self.trials.pop(self.now - self.horizon) {
            let hit = trial.hit();
            let warmth = usize::from(!trial.said.cold);
            for (expert, &state) in trial.said.state.iter().enumerate() {
                if state != SILENT {
                    self.rates[warmth][expert].0[usize::from(state)].learn(hit, 1.0, MEMORY);
                }
            }
            let (low, part) = correction_place(trial.said.logit);
            let table = &mut self.correction[warmth];
            table[low].learn(hit, (1.0 - part).max(0.01), 500.0);
            table[low + 1].learn(hit, part.max(0.01), 500.0);
        }
    }

    /// Gathers what every context of the client's burst says.
    fn gather(&mut self, client: ClientKey) {
        self.finder.fill(NOBODY);
        self.candidates.clear();
        self.past = [0.0; CONTEXTS];
        let Some(burst) = self.recent.get(client) else { return };
        for (place, step) in burst.steps().iter().take(ASKED).enumerate() {
            let elapsed = (self.now - step.at) as f32;
            // Where the last access is known well, what the earlier ones would add is not worth the time.
            if elapsed > lags::WINDOW || self.past[0] >= WELL_KNOWN {
                break;
            }
            // What came up to now, and what came later: the counts look as far ahead as they reach, because what they
            // are worth for the horizon is learnt.
            let (until, ahead) = (lags::shares_between(0.0, elapsed), lags::shares_between(elapsed, lags::WINDOW));
            let came = &burst.steps()[..place];
            for (context, &handle) in step.contexts.iter().enumerate() {
                let expert = if place == 0 { context } else { CONTEXTS + context };
                if TRUST[expert] == 0.0 {
                    continue;
                }
                let Some(node) = self.arcs.get(handle) else { continue };
                // The occurrence that brought us here has no outcome yet.
                let past = f32::from(node.count) - 1.0;
                if past < 1.0 {
                    continue;
                }
                if place == 0 {
                    self.past[context] = past;
                }
                for arc in node.arcs() {
                    // What has come since then is no longer due, and this very time is in the counts already.
                    if came.iter().any(|step| step.resource == arc.to) {
                        continue;
                    }
                    let before = lags::mass(arc.lags, &until);
                    let hits = lags::mass(arc.lags, &ahead);
                    let trials = (past - before).max(hits).max(1.0);
                    let Some(candidate) = find(&mut self.candidates, &mut self.finder, arc.to) else { continue };
                    let share = hits / (trials + 1.5);
                    if candidate.state[expert] == SILENT || share > candidate.share[expert] {
                        candidate.share[expert] = share;
                        candidate.seen[expert] = trials;
                        candidate.state[expert] = rates::state(hits, trials, arc.ago);
                        let evidence = share * TRUST[expert];
                        if evidence >= candidate.evidence {
                            (candidate.evidence, candidate.lags, candidate.elapsed) = (evidence, *arc.lags, elapsed);
                        }
                    }
                }
            }
        }
        // What the client accessed just now is no candidate.
        let current = burst.steps().first().map(|step| step.resource);
        self.candidates.retain(|candidate| Some(candidate.resource) != current);
    }

    /// Mixes what the experts said into one logit for each candidate.
    fn mix(&mut self) {
        let (now, resources, all, past) = (self.now, &self.resources, &self.rates, self.past);
        self.candidates.retain_mut(|candidate| {
            let Some(resource) = resources.get(candidate.resource) else { return false };
            candidate.cold = resource.kept_until <= now;
            if resource.interval > 0.0 {
                let age = (now - resource.last) as f32;
                let phase = (rates::fast_log2(age / resource.interval) * 2.0 + 8.0).clamp(0.0, 15.0) as u8;
                let pace = (rates::fast_log2(resource.interval) / 2.0).clamp(0.0, 7.0) as u8;
                candidate.state[RHYTHM] = u16::from(pace * 16 + phase);
                candidate.seen[RHYTHM] = f32::from(resource.count);
            }
            for (context, &trials) in past.iter().enumerate() {
                // A context that knows others only has a say as well: never, so far.
                if trials >= 1.0 && candidate.state[context] == SILENT {
                    candidate.state[context] = rates::state(0.0, trials, u8::MAX);
                    candidate.seen[context] = trials;
                }
            }
            let rates = &all[usize::from(!candidate.cold)];
            let (mut sum, mut weights) = (0.0, 0.0);
            for expert in 0..EXPERTS {
                let state = candidate.state[expert];
                if state == SILENT {
                    continue;
                }
                // The better the last access is known, the less the earlier ones add: the escape between them.
                let escape = if (CONTEXTS..RHYTHM).contains(&expert) { 1.0 / (1.0 + past[0]) } else { 1.0 };
                let weight = escape * TRUST[expert] * candidate.seen[expert] / (candidate.seen[expert] + 2.0);
                sum += weight * rates[expert].0[usize::from(state)].logit;
                weights += weight;
            }
            candidate.logit = if weights > 0.0 { sum / weights } else { -8.0 };
            true
        });
    }

    /// The probability behind a mixed logit.
    fn correct(&self, candidate: &Candidate) -> f64 {
        let (low, part) = correction_place(candidate.logit);
        let table = &self.correction[usize::from(!candidate.cold)];
        let learnt = table[low].probability() * (1.0 - part) + table[low + 1].probability() * part;
        f64::from(CORRECTION * learnt + (1.0 - CORRECTION) * rates::squash(candidate.logit)).clamp(0.0, 1.0)
    }
}

/// Where a logit stands in a correction table: between a bucket and the next, at which part of the way.
fn correction_place(logit: f32) -> (usize, f32) {
    let place = (logit * 2.0 + 16.0).clamp(0.0, 31.99);
    (place as usize, place.fract())
}

/// The candidate for a resource, made if there is room.
fn find<'a>(candidates: &'a mut Vec<Candidate>, finder: &mut [u8; FINDER], resource: Ref) -> Option<&'a mut Candidate> {
    let mut slot = (resource.wrapping_mul(0x9e37_79b9) >> 24) as usize % FINDER;
    loop {
        match finder[slot] {
            NOBODY => break,
            at if candidates[usize::from(at)].resource == resource => return candidates.get_mut(usize::from(at)),
            _ => slot = (slot + 1) % FINDER,
        }
    }
    if candidates.len() >= CANDIDATES {
        return None;
    }
    finder[slot] = candidates.len() as u8;
    candidates.push(Candidate {
        resource,
        share: [0.0; EXPERTS],
        seen: [0.0; EXPERTS],
        state: [SILENT; EXPERTS],
        lags: Lags::default(),
        elapsed: 0.0,
        evidence: 0.0,
        logit: 0.0,
        cold: true,
    });
    candidates.last_mut()
}

impl Predictor for Mixture {
    fn learn(&mut self, now: Timestamp, client: ClientKey, resource: ResourceId) {
        let now = self.advance(now);
        self.settle();
        let seconds = now as u32;
        let at = self.resources.intern(resource, now);
        if let Some(known) = self.resources.get_mut(at) {
            self.trials.hit(known.trial, at, now, self.lead);
            known.trial = NONE;
            if known.count > 0 {
                let interval = (now - known.last) as f32;
                known.interval = if known.interval > 0.0 {
                    // In the logarithm, so that one long night does not drown a short rhythm.
                    known.interval * (interval.max(0.05) / known.interval).powf(0.25)
                } else {
                    interval.max(0.05)
                };
            }
            known.last = now;
            known.count = known.count.saturating_add(1);
            if known.kept_until <= now {
                known.kept_until = now + KEPT;
            }
        }
        let burst = self.recent.get_mut(client);
        if burst.steps().first().is_some_and(|step| now - step.at > f64::from(lags::WINDOW)) {
            burst.clear();
        }
        // Whatever was accessed since this resource's last access is followed by it now.
        for step in burst.steps() {
            let lag = (now - step.at) as f32;
            if step.resource == at || lag > lags::WINDOW {
                break;
            }
            let bin = lags::bin(lag);
            for &context in &step.contexts {
                if context != NOWHERE {
                    self.arcs.followed(context, at, bin);
                }
            }
        }
        let mut others = burst.steps().iter().filter(|step| step.resource != at).take(2);
        let (before, earlier) = (others.next(), others.next());
        let current = u64::from(at);
        let mut contexts = [NOWHERE; CONTEXTS];
        contexts[0] = self.arcs.occurred(arcs::key(&[1, current]), seconds);
        contexts[1] = self.arcs.occurred(arcs::key(&[2, current, client.0 as u64, (client.0 >> 64) as u64]), seconds);
        // A longer context is worth a node only where the shorter one came before.
        let came_before = |arcs: &Arcs, handle: Handle| arcs.get(handle).is_some_and(|node| node.count >= 2);
        if let Some(before) = before
            && came_before(&self.arcs, contexts[0])
        {
            contexts[2] = self.arcs.occurred(arcs::key(&[3, current, before.resource.into()]), seconds);
            if let Some(earlier) = earlier
                && came_before(&self.arcs, contexts[2])
            {
                let key = arcs::key(&[4, current, before.resource.into(), earlier.resource.into()]);
                contexts[3] = self.arcs.occurred(key, seconds);
            }
        }
        burst.push(Step { resource: at, at: now, contexts });
    }

    fn predict(&mut self, now: Timestamp, client: ClientKey, out: &mut Vec<Prediction>) {
        out.clear();
        let now = self.advance(now);
        self.settle();
        self.gather(client);
        self.mix();
        self.candidates.sort_unstable_by(|a, b| b.logit.total_cmp(&a.logit).then(a.resource.cmp(&b.resource)));
        for candidate in self.candidates.iter().take(TRIALS) {
            let said = Said { state: candidate.state, cold: candidate.cold, logit: candidate.logit };
            if let Some(resource) = self.resources.get_mut(candidate.resource)
                && let Some(number) = self.trials.push(now, candidate.resource, resource.trial, said)
            {
                resource.trial = number;
            }
        }
        for candidate in self.candidates.iter().take(self.limit) {
            let probability = self.correct(candidate);
            if probability < self.floor {
                continue;
            }
            let Some(resource) = self.resources.id(candidate.resource) else { continue };
            let [earliest_in, expected_in, latest_in] =
                lags::quantiles(&candidate.lags, candidate.elapsed, [0.1, 0.5, 0.9]);
            out.push(Prediction { resource, probability, earliest_in, expected_in, latest_in });
        }
        out.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.resource.cmp(&b.resource)));
    }

    fn forget(&mut self, resource: ResourceId) {
        self.resources.forget(resource);
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.arcs.bytes()
            + self.resources.bytes()
            + self.recent.bytes()
            + self.trials.bytes()
            + FIXED
    }
}

const _: () = assert!(BURST >= ASKED && CANDIDATES < NOBODY as usize);
