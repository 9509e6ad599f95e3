//! Candidates for one event, and what they look like.
//!
//! Comes in: the tables, as they stand after the event. Goes out: at most 40 candidates with their features: what
//! followed the last access, what followed the earlier ones of the burst and has not come yet, what followed the
//! latest accesses of others, what anyone accessed lately, and what went cold lately. Never here: changes to the
//! tables.

use super::{
    arcs::{Arcs, Node},
    features::{
        BLANK, EARLIER, EARLIER_GROUP, FEATURES, Features, HABIT, HABIT_GROUP, LAST, LATELY, LEDGER, LEDGER_GROUP,
        OTHERS, OTHERS_GROUP, RESOURCE, RESOURCE_GROUP, SITUATION, VOTES, VOTES_GROUP, amount, fast_log2, lately,
        phase, stretch,
    },
    habits::Habits,
    host::{Host, Latest},
    lags::{self, BINS, Lags},
    recent::{Burst, CONTEXTS},
    resources::{Ledger, Ref, Resource, Resources},
};

/// Candidates of one event.
pub(super) const CANDIDATES: usize = 40;
/// Accesses of the burst that are asked what follows them.
pub(super) const ASKED: usize = 6;
/// Contexts of the earlier ones that are asked: of the nearest, and of the rest.
const EARLIER_CONTEXTS: usize = 3;
const NEAREST: usize = 4;
/// Accesses of others that are asked.
const OTHERS_ASKED: usize = 4;
/// Seconds for which they are.
const OTHERS_WINDOW: f32 = 10.0;
/// Time constant in seconds by which what follows later counts less.
const PATIENCE: f32 = 20.0;
/// Slots of the table that finds a candidate; at most a quarter full.
const FINDER: usize = 256;
/// No candidate.
const NOBODY: u8 = u8::MAX;
/// What an earlier access, or another client's, says with less than this logit is not heard.
const WEAK: f32 = -3.5;
/// Less than any logit.
const NEVER: f32 = -99.0;

/// One candidate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) resource: Ref,
    pub(super) features: Features,
    /// Which groups of features say more than the base.
    pub(super) touched: u32,
    /// Whether no copy of it would be there without prewarm.
    pub(super) cold: bool,
    /// The arc that tells the time to use, and how long ago its context began.
    pub(super) lags: Lags,
    pub(super) elapsed: f32,
    /// How well that arc speaks for it.
    evidence: f32,
    /// The best logit so far: three contexts of earlier accesses, and others.
    best: [f32; EARLIER_CONTEXTS + 1],
    votes: f32,
    sum: f32,
}

/// A candidate nothing is known of.
const UNKNOWN: Candidate = Candidate {
    resource: Ref::MAX,
    features: BLANK,
    touched: RESOURCE_GROUP,
    cold: true,
    lags: [0; BINS],
    elapsed: 0.0,
    evidence: NEVER,
    best: [NEVER; EARLIER_CONTEXTS + 1],
    votes: 0.0,
    sum: 0.0,
};

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) now: f64,
    pub(super) lead: f32,
    /// The client's number and burst.
    pub(super) client: u32,
    pub(super) burst: &'a Burst,
    pub(super) arcs: &'a Arcs,
    pub(super) resources: &'a Resources,
    pub(super) habits: &'a Habits,
    pub(super) host: &'a Host,
    pub(super) ledger: &'a Ledger,
}

/// The candidates of the event at hand.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) candidates: Vec<Candidate>,
    /// A candidate that nothing speaks for.
    blank: Candidate,
    finder: Box<[u8; FINDER]>,
    /// What is expected to follow the last access, all together.
    flow: f32,
    /// Earlier accesses with a past, and the evidence if none of them spoke for a candidate.
    asked: f32,
    silence: f32,
}

impl Gathering {
    /// Bytes it takes.
    pub(super) const BYTES: usize = CANDIDATES * size_of::<Candidate>() + FINDER;

    pub(super) fn new() -> Self {
        Self {
            candidates: Vec::with_capacity(CANDIDATES),
            finder: Box::new([NOBODY; FINDER]),
            blank: UNKNOWN,
            flow: 0.0,
            asked: 0.0,
            silence: 0.0,
        }
    }

    /// What is known of a candidate that nothing speaks for.
    pub(super) fn base(&self) -> &Features {
        &self.blank.features
    }

    /// No candidates.
    pub(super) fn clear(&mut self) {
        self.candidates.clear();
        self.finder.fill(NOBODY);
        self.blank.features = BLANK;
        (self.flow, self.asked, self.silence) = (0.0, 0.0, 0.0);
    }

    /// Gathers the candidates and describes them.
    pub(super) fn gather(&mut self, view: &View<'_>) {
        self.clear();
        let Some(last) = view.burst.steps().first() else { return };
        let current = last.resource;
        for (context, &handle) in last.contexts.iter().enumerate() {
            let Some((_, past)) = view.arcs.get(handle).and_then(occurred) else { continue };
            // A context that knows others only has a say as well: never, so far.
            let never = stretch(0.0, past);
            self.blank.features[LAST + context * 4..][..3].copy_from_slice(&[never, never, amount(past)]);
        }
        self.ask_last(view);
        // What nobody asked for before says nothing of what the host does: a flood of it must not make anything ready.
        let known = view.resources.get(current).is_some_and(|resource| resource.count > 1);
        for resource in view.host.cold().filter(|&resource| known && resource != current) {
            self.find(resource);
        }
        self.ask_earlier(view);
        if known {
            self.ask_others(view, current);
        }
        for latest in view.host.latest().iter().filter(|latest| known && latest.resource != current) {
            // A copy that is there needs no other, unless an access speaks for it.
            if view.resources.get(latest.resource).is_some_and(|resource| resource.kept_until <= view.now) {
                self.find(latest.resource);
            }
        }
        let situation = self.situation(view);
        self.blank.features[SITUATION..].copy_from_slice(&situation);
        let (asked, silence) = (self.asked, self.silence);
        self.blank.features[VOTES + 3] = silence / (asked + 1.0);
        self.candidates.retain_mut(|candidate| {
            let Some(resource) = view.resources.get(candidate.resource) else { return false };
            candidate.features[VOTES + 2] = candidate.votes / asked.max(1.0);
            candidate.features[VOTES + 3] = (silence + candidate.sum) / (asked + 1.0);
            candidate.describe(resource, view);
            candidate.features[SITUATION..].copy_from_slice(&situation);
            true
        });
    }

    /// Takes in a resource that may be no candidate, described as the others; if there is no room, for the last one.
    pub(super) fn include(&mut self, resource: Ref, view: &View<'_>) {
        if self.candidates.iter().any(|candidate| candidate.resource == resource) {
            return;
        }
        let Some(known) = view.resources.get(resource) else { return };
        let mut candidate = Candidate { resource, ..self.blank };
        candidate.describe(known, view);
        self.candidates.truncate(CANDIDATES - 1);
        self.candidates.push(candidate);
    }

    /// What followed the last access.
    fn ask_last(&mut self, view: &View<'_>) {
        let last = view.burst.steps()[0];
        let elapsed = (view.now - last.at) as f32;
        let shares = lags::shares(elapsed, view.lead, PATIENCE);
        for (context, &handle) in last.contexts.iter().enumerate() {
            let Some((node, past)) = view.arcs.get(handle).and_then(occurred) else { continue };
            for arc in node.arcs().filter(|arc| arc.to != last.resource) {
                let [before, worth, near] = lags::masses(arc.lags, &shares);
                // What has not come in its time speaks against it: half of the trials stay at least.
                let trials = (past - before).max(past * 0.5).max(1.0);
                if context == 0 {
                    self.flow += worth / trials;
                }
                let Some(candidate) = self.find(arc.to) else { continue };
                let score = stretch(worth, trials);
                candidate.features[LAST + context * 4..][..4].copy_from_slice(&[
                    score,
                    stretch(near, trials),
                    amount(trials),
                    1.0 / (1.0 + f32::from(arc.ago)),
                ]);
                candidate.features[LATELY + context] = lately(arc.history, past);
                candidate.touched |= 1 << context;
                candidate.timed(score + 0.5, arc.lags, elapsed);
            }
        }
    }

    /// What followed the earlier accesses of the burst and has not come since.
    fn ask_earlier(&mut self, view: &View<'_>) {
        for (place, step) in view.burst.steps().iter().enumerate().take(ASKED).skip(1) {
            let elapsed = (view.now - step.at) as f32;
            if elapsed > lags::WINDOW {
                break;
            }
            let shares = lags::shares(elapsed, view.lead, PATIENCE);
            let came = &view.burst.steps()[..place];
            for (context, &handle) in step.contexts.iter().take(contexts_asked(place)).enumerate() {
                let Some((node, past)) = view.arcs.get(handle).and_then(occurred) else { continue };
                if context == 0 {
                    self.asked += 1.0;
                    self.silence += stretch(0.0, past);
                }
                for arc in node.arcs() {
                    // What has come since then is no longer due, and this very time is in the counts already.
                    if came.iter().any(|step| step.resource == arc.to) {
                        continue;
                    }
                    let [before, worth, near] = lags::masses(arc.lags, &shares);
                    let trials = (past - before).max(1.0);
                    let score = stretch(worth, trials);
                    if score < WEAK {
                        continue;
                    }
                    let Some(candidate) = self.find(arc.to) else { continue };
                    candidate.heard(context, score, [stretch(near, trials), amount(trials)]);
                    if context == 0 {
                        candidate.votes += 1.0;
                        candidate.sum += score - stretch(0.0, trials);
                        if worth > 0.3 {
                            candidate.features[VOTES] += 0.25;
                            candidate.features[VOTES + 1] += 0.1 * (worth / (trials + 1.0));
                        }
                    }
                    candidate.timed(score, arc.lags, elapsed);
                }
            }
        }
    }

    /// What followed the latest accesses of other clients.
    fn ask_others(&mut self, view: &View<'_>, current: Ref) {
        for (_, latest) in others(view) {
            let elapsed = (view.now - latest.at) as f32;
            let Some((node, past)) = view.arcs.get(latest.context).and_then(occurred) else { continue };
            let shares = lags::shares(elapsed, view.lead, PATIENCE);
            for arc in node.arcs().filter(|arc| arc.to != current) {
                let [before, worth, _] = lags::masses(arc.lags, &shares);
                let trials = (past - before).max(1.0);
                let score = stretch(worth, trials);
                if score < WEAK {
                    continue;
                }
                let Some(candidate) = self.find(arc.to) else { continue };
                if score > candidate.best[EARLIER_CONTEXTS] {
                    candidate.best[EARLIER_CONTEXTS] = score;
                    candidate.touched |= OTHERS_GROUP;
                    candidate.features[OTHERS..][..3].copy_from_slice(&[score, amount(trials), amount(elapsed)]);
                }
            }
        }
    }

    /// What is the same for all candidates.
    fn situation(&self, view: &View<'_>) -> [f32; FEATURES - SITUATION] {
        let steps = view.burst.steps();
        let gap = steps.get(1).map_or(lags::WINDOW, |step| (view.now - step.at) as f32);
        let burst = steps.iter().take(ASKED).filter(|step| view.now - step.at <= f64::from(lags::WINDOW)).count();
        let count = view.resources.get(steps[0].resource).map_or(0, |resource| resource.count);
        [
            amount(gap * 10.0),
            burst as f32 / ASKED as f32,
            view.burst.pace * 0.2,
            amount(view.burst.count as f32),
            view.burst.novelty * 2.0,
            view.host.pace * 0.2,
            amount(view.host.count as f32) * 0.5,
            amount(f32::from(count)),
            self.flow.min(6.0) * 0.4,
            view.ledger.luck(),
            stretch(view.ledger.came, view.ledger.tried),
        ]
    }

    /// The candidate for a resource, made if there is room.
    fn find(&mut self, resource: Ref) -> Option<&mut Candidate> {
        let mut slot = (resource.wrapping_mul(0x9e37_79b9) >> 24) as usize % FINDER;
        loop {
            match self.finder[slot] {
                NOBODY => break,
                at if self.candidates[usize::from(at)].resource == resource => {
                    return self.candidates.get_mut(usize::from(at));
                }
                _ => slot = (slot + 1) % FINDER,
            }
        }
        if self.candidates.len() >= CANDIDATES {
            return None;
        }
        self.finder[slot] = self.candidates.len() as u8;
        self.candidates.push(self.blank);
        if let Some(candidate) = self.candidates.last_mut() {
            candidate.resource = resource;
        }
        self.candidates.last_mut()
    }
}

impl Candidate {
    /// An earlier access's context of this kind speaks for it.
    fn heard(&mut self, context: usize, score: f32, rest: [f32; 2]) {
        self.touched |= EARLIER_GROUP << context | VOTES_GROUP;
        let best = &mut self.best[context];
        let features = &mut self.features[EARLIER + context * 4..][..4];
        // The second best counts from three below even odds on, which is nothing.
        if score > *best {
            features[3] = if *best > NEVER { *best + 3.0 } else { 0.0 };
            *best = score;
            features[..3].copy_from_slice(&[score, rest[0], rest[1]]);
        } else {
            features[3] = features[3].max(score + 3.0);
        }
    }

    /// An arc that tells when; the one with the best score is believed.
    fn timed(&mut self, score: f32, lags: &Lags, elapsed: f32) {
        if score >= self.evidence {
            (self.evidence, self.lags, self.elapsed) = (score, *lags, elapsed);
        }
    }

    /// What is known of the resource itself, and of the client's use of it.
    fn describe(&mut self, resource: &Resource, view: &View<'_>) {
        let now = view.now;
        self.cold = resource.kept_until <= now;
        let rhythm = &resource.rhythm;
        let age = (now - resource.last).max(0.0) as f32;
        let cold_for = (now - resource.kept_until).max(0.0) as f32;
        let f = &mut self.features[RESOURCE..];
        f[0] = amount(age);
        f[1] = amount(f32::from(resource.count));
        f[2] = fast_log2((f32::from(resource.count) + 0.5) / (view.host.count as f32 + 10.0)) * 0.3;
        if resource.count > 1 {
            (f[3], f[4], f[5]) = (rhythm.pace * 0.15, phase(age, rhythm.pace), rhythm.spread * 0.4);
        }
        f[6] = f32::from(u8::from(self.cold));
        f[7] = amount(cold_for);
        f[8] = stretch(f32::from(rhythm.renewed), f32::from(rhythm.fetched));
        f[9] = amount(f32::from(rhythm.fetched));
        f[10] = rhythm.cold_pace * 0.2;
        f[11] = if self.cold { (fast_log2(cold_for.clamp(0.1, 1e6)) - rhythm.cold_pace) * 0.2 } else { 0.0 };
        if let Some(habit) = view.habits.get(view.client, self.resource) {
            let age = habit.age(now);
            self.touched |= HABIT_GROUP;
            let f = &mut self.features[HABIT..];
            f[0] = 1.0;
            f[1] = amount(age);
            f[2] = amount(f32::from(habit.count));
            f[3] = f32::from(habit.soon) / f32::from(habit.count);
            if habit.count > 1 {
                (f[4], f[5], f[6]) = (habit.pace * 0.15, phase(age, habit.pace), habit.spread * 0.4);
            }
            if rhythm.gaps > 0 {
                let age = fast_log2(1.0 + age);
                f[7] = (age - rhythm.short).clamp(-8.0, 8.0) * 0.3;
                f[8] = (age - rhythm.middling).clamp(-8.0, 8.0) * 0.3;
                f[9] = amount(f32::from(rhythm.gaps));
            }
        }
        let ledger = &resource.ledger;
        if ledger.tried == 0.0 {
            return;
        }
        self.touched |= LEDGER_GROUP;
        self.features[LEDGER..][..3].copy_from_slice(&[
            ledger.luck(),
            amount(ledger.tried),
            stretch(ledger.came, ledger.tried),
        ]);
    }
}

/// Contexts that are asked of the access at this place of the burst.
#[inline]
pub(super) const fn contexts_asked(place: usize) -> usize {
    match place {
        0 => CONTEXTS,
        1..NEAREST => EARLIER_CONTEXTS,
        _ => 1,
    }
}

/// Accesses of others that are asked, each with its place.
#[inline]
pub(super) fn others<'a>(view: &View<'a>) -> impl Iterator<Item = (usize, &'a Latest)> {
    let (client, now) = (view.client, view.now);
    let others = view.host.latest().iter().filter(move |latest| latest.client != client).take(OTHERS_ASKED);
    others.take_while(move |latest| (now - latest.at) as f32 <= OTHERS_WINDOW).enumerate()
}

/// A context with a past, and how often it occurred before: what goes on now has no outcome yet.
fn occurred(node: &Node) -> Option<(&Node, f32)> {
    (node.count > 1).then(|| (node, f32::from(node.count) - 1.0))
}

const _: () = assert!(CANDIDATES < NOBODY as usize && CANDIDATES * 4 <= FINDER);
