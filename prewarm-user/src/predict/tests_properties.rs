//! What holds of the model whatever is fed to it.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::config::PredictSettings;

const CLIENT: ClientKey = ClientKey(1);

fn settings(memory_mib: u32) -> PredictSettings {
    PredictSettings { memory_mib, candidates: 64, floor: 0.0, ..Default::default() }
}

fn id(n: u64) -> ResourceId {
    ResourceId(arcs::key(&[n]))
}

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_origin(Duration::from_secs_f64(seconds))
}

/// One access: seconds since the one before, client, resource.
type Access = (f64, u128, u64);

fn accesses(most: usize) -> impl Strategy<Value = Vec<Access>> {
    // Gaps of a burst, of a pause, and of a night.
    let gap = prop_oneof![4 => 0.0..0.5, 3 => 0.5..20.0, 1 => 20.0..400.0, 1 => 400.0..50_000.0];
    prop::collection::vec((gap, 1u128..4, 0u64..25), 1..most)
}

/// Feeds a model; returns the time of the last access.
fn feed(model: &mut Mixture, accesses: &[Access], from: f64) -> f64 {
    let mut now = from;
    for &(gap, client, resource) in accesses {
        now += gap;
        model.learn(at(now), ClientKey(client), id(resource));
        model.predict(at(now), ClientKey(client), &mut Vec::new());
        model.due(at(now), &mut Vec::new());
    }
    now
}

/// What is said at a time: probability and worth.
fn said(model: &mut Mixture, now: f64, client: ClientKey) -> HashMap<ResourceId, (f64, f64)> {
    let mut out = Vec::new();
    model.predict(at(now), client, &mut out);
    let worths: HashMap<_, _> = model.outlooks().iter().map(|outlook| (outlook.resource, outlook.worth)).collect();
    let worth = |resource| worths.get(&resource).copied().map_or(0.0, f64::from);
    out.iter().map(|p| (p.resource, (p.probability, worth(p.resource)))).collect()
}

/// Whether the numbers are what their names say.
fn sound(model: &Mixture, out: &[Prediction]) -> Result<(), TestCaseError> {
    for p in out {
        prop_assert!((0.0..=1.0).contains(&p.probability), "{p:?}");
        prop_assert!(p.earliest_in <= p.expected_in && p.expected_in <= p.latest_in, "{p:?}");
        prop_assert!(p.latest_in <= Duration::from_secs(61), "{p:?}");
    }
    for outlook in model.outlooks() {
        prop_assert!((0.0..=1.0).contains(&outlook.worth), "{outlook:?}");
        for hold in [0, 1, 20, 1_000_000] {
            let (start, share) = outlook.timing.plan(Duration::from_millis(20), Duration::from_secs(hold));
            prop_assert!((0.0..=1.0).contains(&share) && start <= Duration::from_secs(61), "{outlook:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Saved and loaded, the model says the same of what comes next, bit for bit, whatever it was fed, though its clock
    /// begins anew.
    #[test]
    fn a_model_that_was_loaded_says_the_same(before in accesses(400), after in accesses(60)) {
        let mut model = Mixture::new(&settings(1));
        let now = feed(&mut model, &before, 100.0);
        let mut bytes = Vec::new();
        model.save(&mut bytes).unwrap();
        let mut loaded = Mixture::load(&settings(1), &mut bytes.as_slice()).unwrap();
        let mut again = Mixture::load(&settings(1), &mut bytes.as_slice()).unwrap();
        prop_assert_eq!(loaded.bytes(), model.bytes());
        let mut resaved = Vec::new();
        loaded.save(&mut resaved).unwrap();
        prop_assert!(resaved == bytes, "nothing lost, nothing added");
        // Two that were loaded alike go on alike, from whatever time.
        feed(&mut loaded, &after, now);
        feed(&mut again, &after, now);
        let last = now + after.iter().map(|access| access.0).sum::<f64>();
        prop_assert_eq!(said(&mut loaded, last, CLIENT), said(&mut again, last, CLIENT));
        // The one that went on without a break differs in nothing but the burst of the last minute and what was still
        // open: after a silence, contexts, rhythms and habits say the same.
        let mut fresh = Mixture::load(&settings(1), &mut bytes.as_slice()).unwrap();
        let votes = |model: &mut Mixture| {
            model.learn(at(now + 0.0), ClientKey(9), id(before[0].2));
            let explained = model.explain(at(now), ClientKey(9), None, None);
            let of = |reason: &Reason| (reason.resource, reason.votes.iter().filter(|vote| vote.order != Order::Other)
                .map(|vote| (vote.hits, vote.trials, vote.lately)).collect::<Vec<_>>());
            let mut votes: Vec<_> = explained.candidates.iter().map(of).filter(|(_, votes)| !votes.is_empty()).collect();
            votes.sort();
            votes
        };
        prop_assert_eq!(votes(&mut fresh), votes(&mut model));
    }

    /// While nothing happens, nothing becomes more probable, but for what its own rhythm, or its habit with this client,
    /// says is due. Defined so, for the probability before the last correction, which is a map learnt from few trials here
    /// and need not rise with what it corrects: one at a time is asked of at growing times after the last access of its client; a
    /// probability may rise above the least one before by no more than `SLACK`, unless the resource has come at least
    /// twice with a mean gap that has not passed before the earlier question but may have by the later one.
    #[test]
    fn what_does_not_come_fades(fed in accesses(300), client in 1u128..4) {
        /// What the steps of tables, and features that look at the clock through logarithms, may add.
        const SLACK: f64 = 0.10;
        let mut model = Mixture::new(&settings(1));
        let now = feed(&mut model, &fed, 100.0);
        let client = ClientKey(client);
        let mut least: HashMap<ResourceId, f64> = HashMap::new();
        let mut saved = Vec::new();
        model.save(&mut saved).unwrap();
        for wait in [61.0, 120.0, 300.0, 1000.0, 10_000.0, 100_000.0] {
            let explained = model.explain(at(now + wait), client, None, None);
            for reason in &explained.candidates {
                // A rhythm whose time is yet to come, with room for its spread.
                let coming = |rhythm: &Rhythm| rhythm.mean_gap_seconds.is_some_and(|gap| {
                    let spread = rhythm.spread.unwrap_or(1.0);
                    (gap / spread / 4.0..gap * spread * 4.0).contains(&rhythm.age_seconds)
                });
                if coming(&reason.rhythm) || reason.habit.as_ref().is_some_and(coming) {
                    continue;
                }
                let least = least.entry(reason.resource).or_insert(reason.uncorrected);
                prop_assert!(reason.uncorrected <= *least + SLACK, "{wait} s: {} after {least}: {reason:?}", reason.uncorrected);
                *least = least.min(reason.uncorrected);
            }
        }
        let mut after = Vec::new();
        model.save(&mut after).unwrap();
        prop_assert!(saved == after, "questions change nothing");
    }

    /// Any times at all, to the ends of what a clock can say and back, any clients, any resources, forgetting between:
    /// no panic, sound numbers, not a byte more.
    #[test]
    fn no_input_is_too_much(
        events in prop::collection::vec(
            (prop_oneof![Just(0u64), Just(u64::MAX), Just(u64::MAX / 2), any::<u64>(), 0..1_000_000_000_000u64],
             any::<u128>(), prop_oneof![0u64..20, any::<u64>()], 0u8..8), 1..300),
        wall in any::<u64>(), zone in any::<i32>(),
    ) {
        let mut model = Mixture::new(&settings(1));
        let bytes = model.bytes();
        let (mut out, mut due) = (Vec::new(), Vec::new());
        for (step, (time, client, resource, what)) in events.into_iter().enumerate() {
            let (now, client, resource) = (Timestamp::from_nanos(time), ClientKey(client % 5), ResourceId(resource));
            if step == 3 {
                model.set_wall_clock(Duration::from_secs(wall), zone);
            }
            match what {
                0 => model.forget(resource),
                1 => {
                    let explained = model.explain(now, client, Some(usize::from(what)), Some(resource));
                    prop_assert!(explained.candidates.iter().all(|reason| (0.0..=1.0).contains(&reason.uncorrected)));
                }
                2 => {
                    model.due(now, &mut due);
                    prop_assert!(due.iter().all(|due| (0.0..=1.0).contains(&due.prediction.probability)
                        && (0.0..=1.0).contains(&due.prediction.worth)
                        && due.prediction.earliest_in <= due.prediction.latest_in), "{due:?}");
                    model.next_due(now);
                }
                _ => {
                    model.learn(now, client, resource);
                    model.predict(now, client, &mut out);
                    sound(&model, &out)?;
                }
            }
        }
        let mut saved = Vec::new();
        model.save(&mut saved).unwrap();
        prop_assert!(Mixture::load(&settings(1), &mut saved.as_slice()).is_ok());
        prop_assert_eq!(model.bytes(), bytes);
    }
}

#[test]
fn random_names_leave_what_was_learnt_as_it_was() {
    // Two models learn the same; one is then flooded by other clients.
    let (mut quiet, mut flooded) = (Mixture::new(&settings(32)), Mixture::new(&settings(32)));
    let mut time = 1000.0;
    let page = |page: u64, time: f64| [0.0, 0.3, 0.7, 1.5].map(|lag| (time + lag, page * 10 + (lag * 10.0) as u64));
    for visit in 0..600u64 {
        time += 40.0;
        for (time, resource) in page(visit * 7 % 30, time) {
            for model in [&mut quiet, &mut flooded] {
                model.learn(at(time), CLIENT, id(resource));
                model.predict(at(time), CLIENT, &mut Vec::new());
            }
        }
    }
    let bytes = flooded.bytes();
    // Without optimisation a tenth shows the same in a tenth of the time.
    let names = if cfg!(debug_assertions) { 100_000 } else { 1_000_000u64 };
    for n in 0..names {
        let now = at(time + 100.0 + n as f64 / 1000.0);
        let client = ClientKey(100 + u128::from(n % 20));
        flooded.learn(now, client, id(1 << 40 | n));
        flooded.predict(now, client, &mut Vec::new());
        // A few are everyday life; in their course what was still open is learnt.
        if n < 1000 {
            quiet.learn(now, client, id(1 << 40 | n));
        }
    }
    assert_eq!(flooded.bytes(), bytes, "not a byte more");
    time += 2000.0 + names as f64 / 1000.0;
    let (mut off, mut count, mut most) = (0.0, 0, 0.0f64);
    for visit in 0..30u64 {
        time += 100.0;
        for model in [&mut quiet, &mut flooded] {
            model.learn(at(time), CLIENT, id(visit * 10));
        }
        let (before, after) = (said(&mut quiet, time, CLIENT), said(&mut flooded, time, CLIENT));
        for (_, resource) in &page(visit, time)[1..] {
            let of = |said: &HashMap<ResourceId, (f64, f64)>| said.get(&id(*resource)).copied().unwrap_or_default();
            let ((p, worth), (p_after, worth_after)) = (of(&before), of(&after));
            assert!(p > 0.5, "{resource} was learnt: {p}");
            let here = (p - p_after).abs().max((worth - worth_after).abs());
            (off, count, most) = (off + here, count + 1, most.max(here));
        }
    }
    assert!(
        off / f64::from(count) < 0.02 && most < 0.15,
        "off by {} in the mean, {most} at most",
        off / f64::from(count)
    );
}
