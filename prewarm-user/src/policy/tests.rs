//! The policy against its rules.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::model::{Name, Prediction, Timing};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7));
const PUBLIC: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8))];

fn at(ms: u64) -> Timestamp {
    Timestamp::from_origin(Duration::from_millis(ms))
}

fn policy(change: impl FnOnce(&mut PolicySettings)) -> Policy {
    let mut settings = PolicySettings::default();
    change(&mut settings);
    settings.check().unwrap();
    Policy::new(&settings, &["10.0.0.1/24".parse().unwrap()], Timestamp::ZERO)
}

fn name(n: u64) -> Name {
    format!("n{n}.example").parse().unwrap()
}

fn soon(n: u64, probability: f64) -> Prediction {
    Prediction {
        worth: probability,
        resource: ResourceId(n),
        probability,
        earliest_in: Duration::from_millis(100),
        expected_in: Duration::from_millis(300),
        latest_in: Duration::from_secs(1),
        timing: Timing::at(0.5),
    }
}

fn known<'a>(name: &'a Name, ports: &'a [u16]) -> Known<'a> {
    Known { name, addresses: &PUBLIC, fresh_until: Timestamp::ZERO, ttl: None, rcode: 0, ports }
}

/// Proposes and takes what is due, by kind.
fn propose(policy: &mut Policy, now: u64, prediction: &Prediction, known: Known<'_>) -> Vec<ActionKind> {
    policy.propose(at(now), at(now), CLIENT, prediction, Some(known));
    due(policy, now).iter().map(|intent| intent.action.kind()).collect()
}

fn due(policy: &mut Policy, now: u64) -> Vec<Intent> {
    let mut intents = Vec::new();
    policy.due(at(now), &mut intents);
    intents
}

fn outcome(intent: &Intent, ms: u64, verdict: Verdict) -> Outcome {
    Outcome { intent: intent.id, resource: intent.resource, kind: intent.action.kind(), at: at(ms), verdict }
}

#[test]
fn the_value_rule_decides() {
    use ActionKind::{Lease, Resolve};
    // Saved 30 and 40 ms, cost 2 and 10 ms: worth it from p = 2/32 and p = 10/50.
    for (probability, expected) in [
        (0.0, &[][..]),
        (0.05, &[]),
        (0.06, &[]),
        (0.07, &[Resolve]),
        (0.19, &[Resolve]),
        (0.21, &[Resolve, Lease]),
        (1.0, &[Resolve, Lease]),
        (f64::NAN, &[]),
    ] {
        let mut policy = policy(|_| ());
        assert_eq!(propose(&mut policy, 0, &soon(1, probability), known(&name(1), &[443])), expected, "{probability}");
    }
}

#[test]
fn a_measured_round_trip_changes_what_is_saved() {
    let mut policy = policy(|s| s.resolve = false);
    policy.measured(at(0), ResourceId(1), 443, Duration::from_millis(2));
    policy.measured(at(0), ResourceId(2), 443, Duration::from_millis(200));
    assert!(propose(&mut policy, 0, &soon(1, 0.6), known(&name(1), &[443])).is_empty());
    assert_eq!(propose(&mut policy, 0, &soon(2, 0.1), known(&name(2), &[443])), [ActionKind::Lease]);
}

#[test]
fn what_is_refused_is_counted_by_its_reason() {
    let local: Name = "printer.local".parse().unwrap();
    let name = name(1);
    let private = [IpAddr::from([10, 9, 9, 9])];
    let base = known(&name, &[443]);
    let later = at(100_000);
    for (refusal, probability, known) in [
        (Refusal::Worthless, 0.001, base),
        (Refusal::NoPort, 0.9, Known { ports: &[], ..base }),
        (Refusal::Port, 0.9, Known { ports: &[22], ..base }),
        (Refusal::Fresh, 0.9, Known { fresh_until: later, ..base }),
        (Refusal::Unreachable, 0.9, Known { rcode: 3, ..base }),
        (Refusal::Unreachable, 0.9, Known { addresses: &[], ..base }),
        (Refusal::Private, 0.9, Known { addresses: &private, ..base }),
        (Refusal::LocalName, 0.9, Known { name: &local, ..base }),
    ] {
        let mut policy = policy(|_| ());
        policy.propose(at(0), at(0), CLIENT, &soon(1, probability), Some(known));
        assert!(policy.counters().refusals.get(refusal) > 0, "{refusal}");
    }
    let mut policy = policy(|s| s.lease = false);
    policy.propose(at(0), at(0), CLIENT, &soon(1, 0.9), None);
    policy.propose(at(0), at(0), [8, 8, 4, 4].into(), &soon(1, 0.9), Some(base));
    policy.propose(at(0), at(0), CLIENT, &soon(1, 0.9), Some(base));
    policy.propose(at(0), at(0), CLIENT, &soon(1, 0.9), Some(base));
    for refusal in [Refusal::UnknownName, Refusal::Client, Refusal::Off, Refusal::Duplicate] {
        assert!(policy.counters().refusals.get(refusal) > 0, "{refusal}");
    }
    assert_eq!(due(&mut policy, 0).len(), 1);
}

#[test]
fn what_is_told_is_what_is_done() {
    use AppraisalVerdict::{Done, Refused, UnderWay, Waiting};
    let (name, fresh) = (name(1), at(100_000));
    let mut policy = policy(|_| ());
    for (worth, known, told) in [
        (0.9, known(&name, &[443]), [Done, Done]),
        (0.1, known(&name, &[443]), [Done, Refused(Refusal::Worthless)]),
        (0.9, Known { fresh_until: fresh, ..known(&name, &[22]) }, [Refused(Refusal::Fresh), Refused(Refusal::Port)]),
    ] {
        let appraisals = policy.appraise(at(0), &soon(1, worth), known);
        assert_eq!(appraisals.iter().map(|a| a.verdict).collect::<Vec<_>>(), told, "{worth}");
        for appraisal in &appraisals {
            let p = appraisal.break_even;
            assert!((p * appraisal.saved_ms - (1.0 - p) * appraisal.cost_ms).abs() < 1e-9, "{appraisal:?}");
            assert_eq!(appraisal.value_ms > 0.0, worth > p, "{appraisal:?}");
        }
    }
    let known = known(&name, &[443]);
    policy.propose(at(0), at(0), CLIENT, &soon(1, 0.9), Some(known));
    let verdicts =
        |policy: &Policy| policy.appraise(at(0), &soon(1, 0.9), known).iter().map(|a| a.verdict).collect::<Vec<_>>();
    assert_eq!(verdicts(&policy), [Waiting, Waiting]);
    due(&mut policy, 0);
    assert_eq!(verdicts(&policy), [UnderWay, UnderWay]);
    assert_eq!(policy.appraise(at(0), &soon(1, 0.9), Known { ports: &[], ..known }).len(), 1, "no port, no connection");
}

#[test]
fn one_good_address_is_enough() {
    let mixed = [IpAddr::from([10, 9, 9, 9]), IpAddr::from([8, 8, 8, 8])];
    let mut policy = policy(|s| s.resolve = false);
    let name = name(1);
    let known = Known { addresses: &mixed, ..known(&name, &[443]) };
    assert_eq!(propose(&mut policy, 0, &soon(1, 0.9), known), [ActionKind::Lease]);
}

#[test]
fn what_lasts_is_made_at_once_and_what_lasts_a_moment_in_time() {
    let far = Prediction { timing: Timing::at(40.0), ..soon(1, 0.9) };
    let name = name(1);
    let known = known(&name, &[443]);
    let mut policy_at_once = policy(|s| s.resolve = false);
    assert_eq!(propose(&mut policy_at_once, 0, &far, known), [ActionKind::Lease]);

    let mut policy = policy(|s| (s.resolve, s.hold_seconds, s.cost.lease_ms) = (false, 2.0, 1.0));
    assert!(propose(&mut policy, 0, &far, known).is_empty(), "it would be closed long before it is used");
    let next = policy.next_due(at(0)).unwrap();
    assert!(next > at(27_000) && next < at(60_000), "{next:?}");
    assert!(due(&mut policy, next.as_nanos() / 1_000_000 - 1).is_empty());
    let started = due(&mut policy, next.as_nanos() / 1_000_000 + 1);
    assert_eq!(started.len(), 1);
    // Of the accesses between 30 and 60 s only those within two seconds find it.
    assert!((0.05..0.07).contains(&started[0].probability), "{:?}", started[0]);
    assert_eq!(
        started[0].deadline,
        started[0].start + Duration::from_millis(2080),
        "twice the round trip, and the hold"
    );
    assert_eq!(policy.pending().len(), 1);
}

#[test]
fn a_name_is_held_as_long_as_its_answers_last() {
    let name = name(1);
    let far = Prediction { timing: Timing::at(40.0), ..soon(1, 0.9) };
    for (ttl, at_once) in [(None, true), (Some(300), true), (Some(2), false)] {
        let mut policy = policy(|s| s.lease = false);
        let known = Known { ttl: ttl.map(Duration::from_secs), ..known(&name, &[]) };
        assert_eq!(propose(&mut policy, 0, &far, known).len(), usize::from(at_once), "{ttl:?}");
    }
}

#[test]
fn assumed_ports_stand_in_for_learnt_ones() {
    let mut policy = policy(|s| (s.resolve, s.assume_ports) = (false, vec![443]));
    assert_eq!(propose(&mut policy, 0, &soon(1, 0.9), known(&name(1), &[])), [ActionKind::Lease]);
    policy.propose(at(0), at(0), CLIENT, &soon(2, 0.9), Some(known(&name(2), &[80])));
    let Action::Lease { origin } = &due(&mut policy, 0)[0].action else { panic!("a lease") };
    assert_eq!(origin.port, 80, "a learnt port goes before");
}

#[test]
fn configured_paths_are_warmed() {
    let mut policy = policy(|s| (s.resolve, s.lease) = (false, false));
    let origin: crate::model::Origin = "n1.example:443".parse().unwrap();
    policy.set_warm([(origin.clone(), "/a".to_owned()), (origin, "/b".to_owned())]);
    policy.propose(at(0), at(0), CLIENT, &soon(1, 0.9), Some(known(&name(1), &[])));
    policy.propose(at(0), at(0), CLIENT, &soon(2, 0.9), Some(known(&name(2), &[])));
    let intents = due(&mut policy, 0);
    let paths: Vec<_> = intents
        .iter()
        .map(|intent| match &intent.action {
            Action::Warm { origin, path } => (origin.to_string(), path.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(paths, [("n1.example:443".into(), "/a"), ("n1.example:443".into(), "/b")]);
}

#[test]
fn the_budget_of_dials_is_kept_and_the_best_go_first() {
    let mut policy = policy(|s| (s.resolve, s.dials_per_second) = (false, 2.0));
    for n in 1..=9 {
        let p = n as f64 / 10.0 + 0.05;
        policy.propose(at(0), at(0), CLIENT, &soon(n, p), Some(known(&name(n), &[443])));
    }
    let order = |intents: Vec<Intent>| intents.iter().map(|intent| intent.resource.0).collect::<Vec<_>>();
    assert_eq!(order(due(&mut policy, 0)), [9, 8]);
    assert_eq!(order(due(&mut policy, 500)), [7]);
    assert_eq!(policy.next_due(at(500)), Some(at(520)));
    assert_eq!(policy.waiting(), 5, "of nine, the least probable was not worth it");
    assert!(order(due(&mut policy, 60_000)).is_empty());
    assert_eq!(policy.counters().refusals.get(Refusal::Expired), 5);
}

#[test]
fn leases_under_way_are_limited() {
    let mut policy = policy(|s| (s.resolve, s.max_leases) = (false, 3));
    for n in 1..=5 {
        policy.propose(at(0), at(0), CLIENT, &soon(n, 0.9), Some(known(&name(n), &[443])));
    }
    let open = due(&mut policy, 0);
    assert_eq!(open.len(), 3);
    policy.outcome(&outcome(&open[0], 10, Verdict::Used { saved: Duration::from_millis(40) }));
    assert_eq!(due(&mut policy, 10).len(), 1);
    assert_eq!(policy.counters().kind(ActionKind::Lease).used, 1);
}

#[test]
fn a_client_has_its_share() {
    let mut policy = policy(|s| (s.lease, s.intents_per_client_per_second) = (false, 5.0));
    for n in 0..20 {
        policy.propose(at(0), at(0), CLIENT, &soon(n, 0.9), Some(known(&name(n), &[])));
    }
    let other = [192, 168, 1, 8].into();
    policy.propose(at(0), at(0), other, &soon(99, 0.9), Some(known(&name(99), &[])));
    assert_eq!(due(&mut policy, 0).len(), 6);
    assert_eq!(policy.counters().refusals.get(Refusal::ClientBudget), 15);
}

#[test]
fn an_origin_that_says_so_is_left_alone() {
    let mut policy = policy(|s| s.resolve = false);
    let name = name(1);
    let known = known(&name, &[443]);
    policy.propose(at(0), at(0), CLIENT, &soon(1, 0.9), Some(known));
    let intent = due(&mut policy, 0).remove(0);
    policy.outcome(&outcome(&intent, 0, Verdict::PushedBack { retry_after: Some(Duration::from_secs(60)) }));
    assert!(propose(&mut policy, 59_000, &soon(1, 0.9), known).is_empty());
    assert_eq!((policy.breakers_tripped(), policy.counters().refusals.get(Refusal::Breaker)), (1, 1));
    assert_eq!(propose(&mut policy, 61_000, &soon(1, 0.9), known), [ActionKind::Lease]);
}

#[test]
fn names_end_when_they_are_asked_for_or_their_time_is_over() {
    let mut policy = policy(|s| s.lease = false);
    let mut settled = Vec::new();
    for n in 1..=3 {
        policy.propose(at(0), at(0), CLIENT, &soon(n, 0.9), Some(known(&name(n), &[])));
    }
    assert_eq!(due(&mut policy, 0).len(), 3);
    policy.accessed(at(5), ResourceId(1), false, false, &mut settled);
    policy.accessed(at(500), ResourceId(2), true, false, &mut settled);
    policy.accessed(at(600), ResourceId(2), true, false, &mut settled);
    policy.tick(at(100_000), &mut settled);
    let verdicts: Vec<_> = settled.iter().map(|outcome| outcome.verdict.clone()).collect();
    let saved = Duration::from_millis(30);
    assert_eq!(verdicts, [Verdict::Late, Verdict::Used { saved }, Verdict::Wasted]);
    let counters = policy.counters().kind(ActionKind::Resolve);
    assert_eq!((counters.late, counters.used, counters.wasted, counters.saved), (1, 1, 1, saved));
    assert_eq!(policy.counters().unknown_outcomes, 0);
}

#[test]
fn what_comes_before_its_warm_up_makes_that_needless() {
    let mut policy = policy(|s| s.lease = false);
    let far = Prediction { earliest_in: Duration::from_secs(5), latest_in: Duration::from_secs(9), ..soon(1, 0.9) };
    policy.propose(at(0), at(0), CLIENT, &far, Some(known(&name(1), &[])));
    policy.accessed(at(10), ResourceId(1), false, false, &mut Vec::new());
    assert!(due(&mut policy, 10_000).is_empty());
    assert_eq!(policy.counters().refusals.get(Refusal::Overtaken), 1);
}

#[test]
fn a_question_of_our_own_is_known_once() {
    let mut policy = policy(|s| s.lease = false);
    policy.propose(at(0), at(0), CLIENT, &soon(1, 0.9), Some(known(&name(1), &[])));
    assert!(!policy.caused(at(0), ResourceId(1)), "nothing was started yet");
    due(&mut policy, 0);
    assert!(policy.caused(at(10), ResourceId(1)));
    assert!(!policy.caused(at(11), ResourceId(1)));
}

#[test]
fn waste_raises_the_price_and_misses_lower_it() {
    let mut policy = policy(|s| s.lease = false);
    for n in 0..60 {
        let ms = n * 100;
        policy.propose(at(ms), at(ms), CLIENT, &soon(n, 0.9), Some(known(&name(n), &[])));
        for intent in due(&mut policy, ms) {
            policy.outcome(&outcome(&intent, ms, Verdict::Wasted));
        }
    }
    let dear = policy.price(ActionKind::Resolve);
    assert!(dear > 10.0, "{dear}");
    assert!(propose(&mut policy, 10_000, &soon(999, 0.2), known(&name(999), &[])).is_empty());
    for n in 0..100 {
        policy.accessed(at(10_000), ResourceId(5000 + n), false, false, &mut Vec::new());
    }
    assert!(policy.price(ActionKind::Resolve) < dear / 8.0);
    assert_eq!(policy.price(ActionKind::Lease), 1.0, "each kind has its own");
}

#[test]
fn an_outcome_nobody_waits_for_changes_nothing() {
    let mut policy = policy(|_| ());
    policy.propose(at(0), at(0), CLIENT, &soon(1, 0.9), Some(known(&name(1), &[443])));
    let lease = due(&mut policy, 0).pop().unwrap();
    for _ in 0..3 {
        policy.outcome(&outcome(&lease, 1, Verdict::Failed));
    }
    assert_eq!(policy.counters().unknown_outcomes, 2);
    assert_eq!(policy.breakers_tripped(), 0, "one failure is one failure");
    policy.propose(at(0), at(0), CLIENT, &soon(2, 0.9), Some(known(&name(2), &[443])));
    due(&mut policy, 0);
    policy.tick(at(3_600_000), &mut Vec::new());
    assert_eq!((policy.counters().lost, policy.pending().len()), (1, 0), "a lease nobody tells of is given up");
}

proptest! {
    /// Whatever happens, in whatever order of time: every intent has one end, budgets hold, and nothing panics.
    #[test]
    fn every_intent_has_one_end(
        steps in prop::collection::vec((0u8..6, 0u64..12, 0.0f64..1.0, 0u64..90_000, 0u8..6), 1..300),
    ) {
        let mut policy = policy(|s| (s.queue, s.max_leases, s.max_resolves, s.origins) = (8, 4, 4, 16));
        policy.set_warm([("n3.example:443".parse().unwrap(), "/".to_owned())]);
        let names: Vec<_> = (0..12).map(name).collect();
        let mut open: Vec<Intent> = Vec::new();
        let mut ids = std::collections::HashSet::new();
        let mut latest = 0;
        for (step, n, p, ms, verdict) in steps {
            let mut settled = Vec::new();
            latest = ms.max(latest);
            match step {
                0 | 1 => {
                    let prediction = Prediction { earliest_in: Duration::from_millis(ms), ..soon(n, p) };
                    let known = known(&names[n as usize], &[80, 443]);
                    policy.propose(at(ms), at(ms / 2), CLIENT, &prediction, Some(known));
                }
                2 => {
                    for intent in due(&mut policy, ms) {
                        prop_assert!(ids.insert(intent.id), "handed out once");
                        prop_assert!(intent.start <= at(latest) && intent.value > 0.0);
                        prop_assert!((0.0..=1.0).contains(&intent.probability));
                        open.push(intent);
                    }
                }
                3 => policy.tick(at(ms), &mut settled),
                4 => policy.accessed(at(ms), ResourceId(n), p < 0.5, p < 0.7, &mut settled),
                _ => {
                    if let Some(intent) = open.get(n as usize) {
                        let verdict = match verdict {
                            0 => Verdict::Used { saved: Duration::from_millis(1) },
                            1 => Verdict::Wasted,
                            2 => Verdict::Late,
                            3 => Verdict::Failed,
                            4 => Verdict::PushedBack { retry_after: None },
                            _ => Verdict::Refused,
                        };
                        policy.outcome(&outcome(intent, ms, verdict));
                    }
                }
            }
            for outcome in &settled {
                prop_assert!(ids.contains(&outcome.intent));
            }
            let counters = policy.counters();
            let mut under_way = 0;
            for kind in KINDS {
                let c = counters.kind(kind);
                let ended = c.used + c.wasted + c.late + c.failed + c.refused;
                let lost = if kind == ActionKind::Lease { counters.lost } else { 0 };
                under_way += c.started - ended - lost;
                prop_assert!(c.queued >= c.started + c.dropped);
            }
            prop_assert_eq!(under_way as usize, policy.pending().iter().filter(|p| p.started).count());
            prop_assert!(policy.waiting() <= 8);
            let leases = policy.pending().iter().filter(|p| p.started && p.intent.action.kind() == ActionKind::Lease).count();
            prop_assert!(leases <= 4);
        }
    }
}
