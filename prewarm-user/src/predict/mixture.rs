//! The model: what contexts of several orders and windows, the resource's own rhythm and the client's habits say,
//! judged together.
//!
//! Comes in: accesses. Goes out: for each candidate a calibrated probability, the time to its use, and how much a copy
//! made now is worth. Contexts are formed by each access of the burst (alone, alone for this client, with the one
//! before, with the two before) and count what followed after how long (`arcs`); `gather` turns counts into features,
//! `network` judges them, `correction` makes what is said come true as often as is said. A context seen too rarely says
//! little, so the judgement falls back to the shorter one: the escape of PPM.

use std::time::Duration;

use super::{
    ClientKey, Due, Explanation, Follower, Outlook, Predictor,
    agenda::{Agenda, Appointment},
    arcs::{self, Arcs, Handle, NOWHERE, Node},
    correction::Correction,
    features::{EARLIER, Features, LAST, squash},
    gather::{ASKED, Candidate, Gathering, View},
    habits::{Habit, Habits},
    host::{Host, Latest},
    lags,
    network::{self, Logits, Network},
    recent::{BURST, CONTEXTS, Recent, Step},
    resources::{Ledger, Ref, Resource, Resources},
    seasons::{self, Season, Seasons},
    trials::{NONE, Trials},
};
use crate::{
    config::PredictSettings,
    model::{Prediction, ResourceId, Timestamp, Timing},
};

/// Seconds for which what was accessed stays ready by itself.
const KEPT: f64 = 60.0;
/// Candidates whose truth is learnt from, for one event: the leading ones for the ledgers, more for the correction.
const LEADING: usize = 10;
const TRIALS: usize = 16;
/// What leads has at least this logit in the counts.
const LEADS: f32 = -2.2;
/// Candidates of one event that the network learns from: the best cold ones.
const LESSONS: usize = 6;
/// Lessons learnt at one event at most: what is more waits, so that no event pays for a minute.
const LESSONS_LEARNT: usize = 5;
/// A use this many seconds, and this many further accesses of the client, later is worth a third.
const PATIENCE: f32 = 60.0;
const PATIENCE_ACCESSES: f32 = 20.0;
/// Appointments told at once at most; what is more is not told.
pub(super) const APPOINTMENTS: usize = 64;
/// Trials after which a ledger halves: a resource's, and that of all.
const LEDGERS: [f32; 2] = [100.0, 1000.0];

/// What is kept of a candidate until its truth is known.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// What the counts alone promised, if it was a leading candidate.
    hoped: Option<f32>,
    logits: Logits,
    cold: bool,
}

/// What is kept of a candidate until the network can learn from it.
#[derive(Clone, Copy, Debug)]
struct Lesson {
    sketch: network::Sketch,
    /// Whether a later moment was better: a threshold takes a candidate when it is passed for the first time, so only
    /// how the best moments turn out matters.
    beaten: bool,
    /// The logit of its worth.
    worth: f32,
    client: ClientKey,
    /// Accesses of the client until then, later until the use.
    accesses: u32,
}

/// A candidate that was judged.
#[derive(Clone, Copy, Debug)]
struct Judged {
    place: u8,
    logits: Logits,
    /// What the counts alone say, as a logit.
    counts: f32,
    /// The lower, the better its worth; then by resource, so that equals always stand in the same order.
    order: u64,
}

/// The model.
#[derive(Debug)]
pub struct Mixture {
    pub(super) horizon: f32,
    pub(super) lead: f32,
    limit: usize,
    pub(super) floor: f64,
    pub(super) arcs: Arcs,
    pub(super) resources: Resources,
    pub(super) recent: Recent,
    pub(super) habits: Habits,
    pub(super) host: Host,
    trials: Trials<Said>,
    lessons: Trials<Lesson>,
    pub(super) agenda: Agenda,
    pub(super) seasons: Seasons,
    /// Local seconds since 1970 when the clock began, if that was told.
    wall: Option<f64>,
    pub(super) appointments: Vec<Appointment>,
    pub(super) network: Network,
    pub(super) ledger: Ledger,
    /// For warm candidates and for cold ones.
    pub(super) soon: [Correction; 2],
    worth: Correction,
    pub(super) gathering: Gathering,
    judged: Vec<Judged>,
    outlooks: Vec<Outlook>,
    /// The latest time seen, in seconds.
    now: f64,
    /// What is added to the clock: after a restart, it may have begun anew. Unknown until the first event after one.
    offset: Option<f64>,
}

/// What outlives a restart.
#[derive(Debug)]
pub(super) struct Learnt<'a> {
    pub(super) now: f64,
    pub(super) ledger: &'a Ledger,
    pub(super) soon: &'a [Correction; 2],
    pub(super) worth: &'a Correction,
    pub(super) network: &'a Network,
    pub(super) resources: &'a [Resource],
    pub(super) nodes: &'a [Node],
    pub(super) habits: &'a [Habit],
    pub(super) seasons: &'a [Season],
}

/// The same, to be filled.
#[derive(Debug)]
pub(super) struct LearntMut<'a> {
    pub(super) ledger: &'a mut Ledger,
    pub(super) soon: &'a mut [Correction; 2],
    pub(super) worth: &'a mut Correction,
    pub(super) network: &'a mut Network,
    pub(super) resources: &'a mut [Resource],
    pub(super) nodes: &'a mut [Node],
    pub(super) habits: &'a mut [Habit],
    pub(super) seasons: &'a mut [Season],
}

/// Bytes that do not depend on the memory set.
const FIXED: usize = Gathering::BYTES
    + Host::BYTES
    + crate::predict::gather::CANDIDATES * (size_of::<Judged>() + size_of::<Outlook>())
    + Network::BYTES
    + Agenda::BYTES
    + Seasons::BYTES
    + APPOINTMENTS * size_of::<Appointment>()
    + size_of::<Mixture>();

impl Mixture {
    /// An empty model, with all its memory set aside.
    #[must_use]
    pub fn new(settings: &PredictSettings) -> Self {
        // The tables share what the fixed parts leave.
        let bytes = (settings.memory_mib as usize * 1024 * 1024).saturating_sub(FIXED);
        let share = |percent: usize, each: usize| bytes / 100 * percent / each;
        Self {
            horizon: settings.horizon_seconds as f32,
            lead: (settings.lead_ms / 1000.0) as f32,
            limit: settings.candidates as usize,
            floor: settings.floor,
            arcs: Arcs::new(share(64, arcs::BYTES_EACH)),
            resources: Resources::new(share(12, Resources::BYTES_EACH)),
            recent: Recent::new(share(8, Recent::BYTES_EACH).min(4096)),
            habits: Habits::new(share(4, Habits::BYTES_EACH)),
            host: Host::new(),
            trials: Trials::new(share(6, Trials::<Said>::BYTES_EACH).min(1 << 16)),
            lessons: Trials::new(share(4, Trials::<Lesson>::BYTES_EACH).min(1 << 16)),
            agenda: Agenda::new(),
            seasons: Seasons::new(),
            wall: None,
            appointments: Vec::with_capacity(APPOINTMENTS),
            network: Network::new(),
            ledger: Ledger::default(),
            soon: [Correction::new(), Correction::new()],
            worth: Correction::new(),
            gathering: Gathering::new(),
            judged: Vec::with_capacity(super::gather::CANDIDATES),
            outlooks: Vec::with_capacity(super::gather::CANDIDATES),
            now: 0.0,
            offset: Some(0.0),
        }
    }

    /// Time never runs backwards in here.
    pub(super) fn advance(&mut self, now: Timestamp) -> f64 {
        let clock = seconds(now);
        self.offset.get_or_insert(self.now - clock);
        self.now = self.time(now);
        self.now
    }

    /// Local seconds since 1970, if they are known.
    pub(super) fn local(&self, now: Timestamp) -> Option<f64> {
        self.wall.map(|wall| wall + seconds(now))
    }

    /// A time in the seconds of this model, never before the latest one.
    pub(super) fn time(&self, now: Timestamp) -> f64 {
        self.offset.map_or(self.now, |offset| self.now.max(seconds(now) + offset))
    }

    pub(super) fn learnt(&self) -> Learnt<'_> {
        Learnt {
            now: self.now,
            ledger: &self.ledger,
            soon: &self.soon,
            worth: &self.worth,
            network: &self.network,
            resources: &self.resources.places,
            nodes: &self.arcs.nodes,
            habits: &self.habits.places,
            seasons: &self.seasons.places,
        }
    }

    pub(super) fn learnt_mut(&mut self) -> LearntMut<'_> {
        LearntMut {
            ledger: &mut self.ledger,
            soon: &mut self.soon,
            worth: &mut self.worth,
            network: &mut self.network,
            resources: &mut self.resources.places,
            nodes: &mut self.arcs.nodes,
            habits: &mut self.habits.places,
            seasons: &mut self.seasons.places,
        }
    }

    /// Goes on at this time, whatever the clock says next.
    pub(super) fn resume(&mut self, now: f64) {
        (self.now, self.offset) = (now, None);
    }

    /// Learns from trials whose truth is known.
    fn settle(&mut self) {
        while let Some(trial) = self.trials.pop(self.now - f64::from(lags::WINDOW)) {
            let said = trial.said;
            if let Some(hoped) = said.hoped {
                let came = trial.came(self.lead, lags::WINDOW);
                self.ledger.note(came, hoped, LEDGERS[1]);
                if let Some(resource) = self.resources.get_mut(trial.resource) {
                    resource.ledger.note(came, hoped, LEDGERS[0]);
                }
                if said.cold {
                    self.worth.learn(said.logits.worth, came);
                }
            }
            self.soon[usize::from(said.cold)].learn(said.logits.soon, trial.came(0.0, self.horizon));
        }
    }

    /// The network learns from lessons whose truth is known; with an access only, so that asking twice says the same.
    fn learn_lessons(&mut self) {
        let mut learnt = 0;
        while learnt < LESSONS_LEARNT
            && let Some(trial) = self.lessons.pop(self.now - f64::from(lags::WINDOW))
        {
            let lesson = trial.said;
            if lesson.beaten {
                continue;
            }
            learnt += 1;
            // A use counts the less the later it comes.
            let worth = match trial.lag() {
                Some(lag) if (self.lead..lags::WINDOW).contains(&lag) => {
                    (-lag / PATIENCE - lesson.accesses as f32 / PATIENCE_ACCESSES).exp()
                }
                _ => 0.0,
            };
            self.network.learn(&lesson.sketch, worth);
        }
    }

    /// Gathers and judges the candidates for what the client does next, best worth first, and puts them to the trial.
    fn judge(&mut self, client: ClientKey) {
        self.judged.clear();
        let Some(burst) = self.recent.get(client) else { return self.gathering.clear() };
        self.gathering.gather(&View {
            now: self.now,
            lead: self.lead,
            client: number(client),
            burst,
            arcs: &self.arcs,
            resources: &self.resources,
            habits: &self.habits,
            host: &self.host,
            ledger: &self.ledger,
        });
        let (candidates, base) = (&self.gathering.candidates, self.gathering.base());
        let start = self.network.sums(base);
        self.judged.extend((0u8..).zip(candidates).map(|(place, candidate)| {
            let logits = self.network.judge(&candidate.features, candidate.touched, base, &start);
            Judged { place, logits, counts: counts(candidate), order: order(logits.worth, candidate.resource) }
        }));
        self.judged.sort_unstable_by_key(|judged| judged.order);
    }

    /// Keeps the best cold candidates until it is known what they were worth.
    fn take_lessons(&mut self, client: ClientKey) {
        let accesses = self.recent.get(client).map_or(0, |burst| burst.count);
        let candidates = &self.gathering.candidates;
        let cold = self.judged.iter().filter(|judged| candidates[usize::from(judged.place)].cold);
        for judged in cold.take(LESSONS) {
            let candidate = &candidates[usize::from(judged.place)];
            let Some(resource) = self.resources.get_mut(candidate.resource) else { continue };
            let worth = judged.logits.worth;
            let before = self.lessons.beat(resource.lesson, candidate.resource, self.now, |lesson| {
                lesson.beaten = lesson.worth < worth;
                lesson.beaten
            });
            let sketch = network::sketch(&candidate.features);
            let lesson = Lesson { sketch, beaten: false, worth, client, accesses };
            resource.lesson = self.lessons.push(self.now, candidate.resource, before, lesson).unwrap_or(before);
        }
    }

    /// Remembers what is said of the foremost candidates until it is known whether it came true.
    fn try_out(&mut self) {
        let candidates = &self.gathering.candidates;
        // The leading ones by their counts alone: cold, and the best ten of them.
        let mut bar = [f32::NEG_INFINITY; LEADING];
        for judged in self.judged.iter().filter(|judged| candidates[usize::from(judged.place)].cold) {
            if judged.counts > bar[LEADING - 1] {
                let at = bar.partition_point(|&known| known >= judged.counts);
                bar.copy_within(at..LEADING - 1, at + 1);
                bar[at] = judged.counts;
            }
        }
        let bar = bar[LEADING - 1].max(LEADS);
        for (rank, judged) in self.judged.iter().enumerate() {
            let candidate = &candidates[usize::from(judged.place)];
            let leads = candidate.cold && judged.counts >= bar;
            if !leads && (rank >= TRIALS || judged.logits.soon < -3.5) {
                continue;
            }
            let said =
                Said { hoped: leads.then(|| squash(judged.counts)), logits: judged.logits, cold: candidate.cold };
            if let Some(resource) = self.resources.get_mut(candidate.resource)
                && let Some(number) = self.trials.push(self.now, candidate.resource, resource.trial, said)
            {
                resource.trial = number;
            }
        }
    }

    /// The features of each candidate of the event just learnt, for fitting the network: resource, features, whether it
    /// is cold. Takes the place of `predict`.
    pub fn describe(&mut self, now: Timestamp, client: ClientKey, out: &mut Vec<(ResourceId, Features, bool)>) {
        out.clear();
        self.advance(now);
        self.settle();
        self.judge(client);
        self.try_out();
        out.extend(self.gathering.candidates.iter().filter_map(|candidate| {
            Some((self.resources.id(candidate.resource)?, candidate.features, candidate.cold))
        }));
    }

    /// The tables learn that a client accessed a resource: its rhythm, the client's habit, the host's.
    fn note(&mut self, at: Ref, client: ClientKey, local: Option<f64>) -> bool {
        let now = self.now;
        self.host.advance(now);
        let gap = self.habits.accessed(number(client), at, now);
        if let Some(gap) = gap {
            self.agenda.accessed(client, at, now, gap, self.horizon);
        }
        let Some(resource) = self.resources.get_mut(at) else { return false };
        if resource.count > 0 && now - resource.last >= seasons::SILENCE {
            if let Some(local) = local {
                self.seasons.accessed(client, at, local, now - f64::from(resource.began), self.horizon);
            }
            resource.began = now as u32;
        }
        self.trials.hit(resource.trial, at, now, |_| ());
        let recent = &self.recent;
        self.lessons.hit(resource.lesson, at, now, |lesson| {
            let accesses = recent.get(lesson.client).map_or(lesson.accesses, |burst| burst.count);
            lesson.accesses = accesses.saturating_sub(lesson.accesses);
        });
        (resource.trial, resource.lesson) = (NONE, NONE);
        let new = resource.count == 0;
        resource.accessed(now, gap);
        if resource.kept_until <= now {
            resource.fetched(now, now + KEPT);
            if !new {
                self.host.fetched(at, now + KEPT);
            }
        }
        new
    }
}

/// What the counts alone say of a candidate, as a logit.
fn counts(candidate: &Candidate) -> f32 {
    let f = &candidate.features;
    f[LAST].max(f[LAST + 4]).max(f[LAST + 8]).max(f[EARLIER])
}

/// Orders logits from the highest down, equals by resource.
fn order(logit: f32, resource: Ref) -> u64 {
    // The bits of a float, below zero all turned over and above it the sign, are in its order.
    let bits = logit.to_bits();
    let rank = !(if bits >> 31 == 1 { !bits } else { bits | 1 << 31 });
    u64::from(rank) << 32 | u64::from(resource)
}

/// The clock's reading in seconds.
fn seconds(now: Timestamp) -> f64 {
    now.as_nanos() as f64 / 1e9
}

/// A client as a number small enough for tables.
pub(super) fn number(client: ClientKey) -> u32 {
    (arcs::key(&[client.0 as u64, (client.0 >> 64) as u64]) >> 16) as u32
}

impl Predictor for Mixture {
    fn learn(&mut self, now: Timestamp, client: ClientKey, resource: ResourceId) {
        let local = self.local(now);
        let now = self.advance(now);
        self.settle();
        self.learn_lessons();
        let seconds = now as u32;
        let at = self.resources.intern(resource, now);
        let new = self.note(at, client, local);
        let burst = self.recent.get_mut(client);
        burst.begin(now, f64::from(lags::WINDOW), new);
        // Whatever was accessed since this resource's last access is followed by it now.
        for (place, step) in burst.steps().iter().enumerate() {
            let lag = (now - step.at) as f32;
            if step.resource == at || lag > lags::WINDOW {
                break;
            }
            let bin = lags::bin(lag);
            // What lies further back than is ever asked counts for the plain context only.
            let contexts = if place < ASKED { CONTEXTS } else { 1 };
            for &context in step.contexts.iter().take(contexts).filter(|&&context| context != NOWHERE) {
                self.arcs.followed(context, at, bin);
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
        if !new {
            self.host.accessed(Latest { resource: at, client: number(client), at: now, context: contexts[0] });
        }
    }

    fn predict(&mut self, now: Timestamp, client: ClientKey, out: &mut Vec<Prediction>) {
        out.clear();
        self.outlooks.clear();
        self.advance(now);
        self.settle();
        self.judge(client);
        self.try_out();
        self.take_lessons(client);
        for judged in &self.judged {
            let candidate = &self.gathering.candidates[usize::from(judged.place)];
            let soon = &self.soon[usize::from(candidate.cold)];
            let probability = f64::from(soon.probability(judged.logits.soon)).clamp(0.0, 1.0);
            let Some(resource) = self.resources.id(candidate.resource) else { continue };
            let worth = squash(judged.logits.worth);
            let timing = Timing::new(&candidate.lags, candidate.elapsed);
            if probability.max(worth.into()) >= self.floor {
                let [earliest_in, expected_in, latest_in] =
                    lags::quantiles(&candidate.lags, candidate.elapsed, [0.1, 0.5, 0.9]);
                out.push(Prediction {
                    resource,
                    probability,
                    worth: worth.into(),
                    earliest_in,
                    expected_in,
                    latest_in,
                    timing,
                });
            }
            self.outlooks.push(Outlook { resource, worth, timing });
        }
        out.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.resource.cmp(&b.resource)));
        out.truncate(self.limit);
    }

    fn outlooks(&self) -> &[Outlook] {
        &self.outlooks
    }

    fn explain(
        &mut self,
        now: Timestamp,
        client: ClientKey,
        last: Option<usize>,
        resource: Option<ResourceId>,
    ) -> Explanation {
        self.reasons(now, client, last, resource)
    }

    fn set_wall_clock(&mut self, since_1970: Duration, utc_offset_seconds: i32) {
        self.wall = Some(since_1970.as_secs_f64() + f64::from(utc_offset_seconds));
    }

    fn due(&mut self, now: Timestamp, out: &mut Vec<Due>) {
        self.tell_due(now, out);
    }

    fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.next_appointment(now)
    }

    fn followers(&self, resource: ResourceId) -> Vec<Follower> {
        self.followed(resource)
    }

    fn save(&self, to: &mut dyn std::io::Write) -> std::io::Result<()> {
        Self::save(self, to)
    }

    fn forget(&mut self, resource: ResourceId) {
        self.resources.forget(resource);
    }

    fn bytes(&self) -> usize {
        FIXED
            + self.arcs.bytes()
            + self.resources.bytes()
            + self.recent.bytes()
            + self.habits.bytes()
            + self.trials.bytes()
            + self.lessons.bytes()
    }
}

const _: () = assert!(BURST >= ASKED);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_bytes() {
        // Said in docs/prediction.md.
        let bytes = [
            arcs::BYTES_EACH,
            Resources::BYTES_EACH,
            Recent::BYTES_EACH,
            Trials::<Said>::BYTES_EACH,
            Trials::<Lesson>::BYTES_EACH,
            Habits::BYTES_EACH,
            Agenda::BYTES / 2048,
            Seasons::BYTES / 1024,
        ];
        assert_eq!(bytes, [384, 88, 560, 48, 144, 24, 48, 64]);
        let model = Mixture::new(&PredictSettings::default());
        assert!(model.bytes() <= 32 << 20, "{}", model.bytes());
        assert_eq!(
            (model.arcs.nodes.len(), model.resources.places.len(), model.habits.places.len()),
            (55_384, 45_312, 55_384)
        );
    }
}
