//! What comes by the clock: generated series of accesses that nothing announces, and what the model tells of them.

use super::*;
use crate::config::PredictSettings;

const CLIENT: ClientKey = ClientKey(1);
const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;
/// The clock of these tests began on a Monday at midnight, UTC; local time is two hours ahead.
const MONDAY: u64 = 19_723 * 86_400;
const AHEAD: i32 = 7200;

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_origin(Duration::from_secs_f64(seconds))
}

fn id(n: u64) -> ResourceId {
    ResourceId(arcs::key(&[n]))
}

fn model() -> Mixture {
    let mut model = Mixture::new(&PredictSettings { memory_mib: 4, ..Default::default() });
    model.set_wall_clock(Duration::from_secs(MONDAY - 7200), AHEAD);
    model
}

/// Numbers between -1 and 1, the same each time.
fn jitter(n: u64) -> f64 {
    arcs::key(&[n, 77]) as f64 / u64::MAX as f64 * 2.0 - 1.0
}

/// Told: when, of what, how probable, worth how much, expected when.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: f64,
    resource: ResourceId,
    probability: f64,
    worth: f64,
    expected: f64,
}

/// Runs the model over accesses in order, asked when it wants to be, from the first one to `until`.
fn run(model: &mut Mixture, accesses: &[(f64, u64)], until: f64) -> Vec<Told> {
    let (mut told, mut out) = (Vec::new(), Vec::new());
    let mut now = accesses.first().map_or(0.0, |access| access.0);
    let mut rest = accesses.iter().peekable();
    while now < until {
        while let Some(&&(time, resource)) = rest.peek().filter(|access| access.0 <= now) {
            model.learn(at(time), CLIENT, id(resource));
            model.predict(at(time), CLIENT, &mut Vec::new());
            rest.next();
        }
        model.due(at(now), &mut out);
        told.extend(out.iter().map(|due| Told {
            at: now,
            resource: due.prediction.resource,
            probability: due.prediction.probability,
            worth: due.prediction.worth,
            expected: now + due.prediction.expected_in.as_secs_f64(),
        }));
        // Asked again when it says so, and a little after, as timers do.
        let next = model.next_due(at(now)).map_or(f64::INFINITY, |next| next.as_nanos() as f64 / 1e9 + 0.2);
        let access = rest.peek().map_or(f64::INFINITY, |access| access.0);
        now = next.max(now + 0.5).min(access.max(now + 1e-6)).min(until);
    }
    told
}

/// What was told of a resource within a minute before `time`.
fn before(told: &[Told], resource: u64, time: f64) -> Option<Told> {
    told.iter().copied().find(|told| told.resource == id(resource) && (time - MINUTE..=time - 0.02).contains(&told.at))
}

#[test]
fn a_poll_is_told_shortly_before_its_time() {
    let mut model = model();
    let polls: Vec<(f64, u64)> = (0..60).map(|n| (1000.0 + n as f64 * 300.0 + 6.0 * jitter(n), 5)).collect();
    let end = polls[59].0 + HOUR * 2.0;
    let told = run(&mut model, &polls, end);
    let hits = polls[10..].iter().filter(|poll| before(&told, 5, poll.0).is_some()).count();
    assert!(hits >= 45, "{hits} of 50 polls");
    // Not one more than there were, but for the one that never came.
    let late = told.iter().filter(|told| told.at > polls[10].0).count();
    assert!(late <= 51, "{late}");
    let last = told.iter().rfind(|told| told.at < polls[59].0).expect("told");
    assert!(last.worth > 0.85 && last.probability > 0.3, "{last:?}");
    assert!((last.expected - polls[59].0).abs() < 10.0, "{last:?} {}", polls[59].0);
}

#[test]
fn what_is_told_comes_true_as_often_as_is_said() {
    let mut model = model();
    // Every second poll is left out at random: after a gap of two the rhythm is doubted, not believed.
    let polls: Vec<(f64, u64)> = (0..400)
        .filter(|&n| jitter(n + 9000) > -0.6)
        .map(|n| (1000.0 + n as f64 * 120.0 + 3.0 * jitter(n), 5))
        .collect();
    let told = run(&mut model, &polls, polls[polls.len() - 1].0);
    let said: f64 = told.iter().map(|told| told.worth).sum();
    let came = told.iter().filter(|told| polls.iter().any(|poll| (told.at..told.at + MINUTE).contains(&poll.0))).count()
        as f64;
    assert!(told.len() > 100, "{}", told.len());
    assert!((said - came).abs() / (told.len() as f64) < 0.1, "said {said}, came {came} of {}", told.len());
}

#[test]
fn what_has_no_rhythm_is_never_told() {
    let mut model = model();
    let mut time = 0.0;
    let accesses: Vec<(f64, u64)> = (0..2000)
        .map(|n| {
            // Gaps between 10 s and half an hour, any length of time as likely as any other.
            time += 10.0 * (180f64).powf(f64::midpoint(jitter(n), 1.0));
            (time, n % 3)
        })
        .collect();
    let told = run(&mut model, &accesses, time);
    assert!(told.len() < 100, "{} of 2000", told.len());
    let said: f64 = told.iter().map(|told| told.worth).sum();
    assert!(said < 20.0, "{said}");
}

#[test]
fn the_nightly_backup_is_told_before_it_runs() {
    let mut model = model();
    let time = |day: u64| day as f64 * DAY + 3.0 * HOUR + 40.0 * jitter(day);
    // A run asks for it for ten minutes, now and then.
    let accesses: Vec<(f64, u64)> = (0..8)
        .flat_map(|day| (0..6).map(move |n| (time(day) + n as f64 * 100.0 + 30.0 * jitter(n + day * 10), 9)))
        .collect();
    let told = run(&mut model, &accesses, 8.0 * DAY);
    for day in 4..8 {
        let told =
            told.iter().find(|told| (time(day) - 10.0 * MINUTE..accesses[day as usize * 6].0).contains(&told.at));
        assert!(told.is_some_and(|told| told.worth > 0.2), "day {day}: {told:?}");
    }
}

#[test]
fn the_weekly_report_is_told_on_its_day() {
    let mut model = model();
    let time = |week: u64| week as f64 * 7.0 * DAY + 9.0 * HOUR + 5.0 * jitter(week);
    let accesses: Vec<(f64, u64)> = (0..6).map(|week| (time(week), 11)).collect();
    let told = run(&mut model, &accesses, 6.0 * 7.0 * DAY);
    for week in 3..6 {
        let monday = before(&told, 11, time(week)).expect("told on Monday");
        assert!(monday.worth > 0.6, "week {week}: {monday:?}");
        // On other days it is hardly worth a word.
        let others = told
            .iter()
            .filter(|told| (time(week) + HOUR..time(week + 1) - HOUR).contains(&told.at) && told.worth > 0.2);
        assert_eq!(others.count(), 0, "week {week}");
    }
}

#[test]
fn the_office_opens_on_working_days() {
    let mut model = model();
    let opens = |day: u64| day as f64 * DAY + 8.0 * HOUR + 10.0 * jitter(day);
    let accesses: Vec<(f64, u64)> = (0..35)
        .filter(|day| day % 7 < 5)
        .flat_map(|day| (0..120).map(move |n| (opens(day) + n as f64 * 300.0 + 4.0 * jitter(n + day * 200), 13)))
        .collect();
    let told = run(&mut model, &accesses, 35.0 * DAY);
    // The fifth week: each morning is told, though it has been silent for 14 hours or a weekend.
    for day in 28..33 {
        let first = before(&told, 13, opens(day) - 4.0);
        assert!(first.is_some_and(|told| told.worth > 0.5), "day {day}: {first:?}");
        let polls = accesses.iter().filter(|access| (opens(day)..opens(day) + 11.0 * HOUR).contains(&access.0));
        let foreseen = polls.clone().filter(|poll| before(&told, 13, poll.0).is_some()).count();
        assert!(foreseen * 10 >= polls.count() * 9, "day {day}: {foreseen}");
        let night = told.iter().filter(|told| (opens(day) + 11.0 * HOUR..opens(day + 1) - HOUR).contains(&told.at));
        assert!(night.count() <= 1, "day {day}");
    }
    for day in 33..35 {
        let weekend = told.iter().filter(|told| (opens(day) - HOUR..opens(day) + 12.0 * HOUR).contains(&told.at));
        assert!(weekend.clone().all(|told| told.worth < 0.25), "{:?}", weekend.collect::<Vec<_>>());
    }
}

#[test]
fn times_of_day_outlive_a_restart_and_need_a_wall_clock() {
    let settings = PredictSettings { memory_mib: 4, ..Default::default() };
    let mut model = model();
    let accesses: Vec<(f64, u64)> = (0..6).map(|day| (day as f64 * DAY + 3.0 * HOUR + 2.0 * jitter(day), 9)).collect();
    run(&mut model, &accesses, 6.0 * DAY);
    let mut bytes = Vec::new();
    model.save(&mut bytes).unwrap();
    for wall in [true, false] {
        let mut again = Mixture::load(&settings, &mut bytes.as_slice()).unwrap();
        // The host was started anew on Sunday at one o'clock.
        if wall {
            again.set_wall_clock(Duration::from_secs(MONDAY - 7200 + 6 * 86_400 + 3600), AHEAD);
        }
        let told = run(&mut again, &[(0.0, 1)], 4.0 * HOUR);
        let found = before(&told, 9, 2.0 * HOUR).is_some_and(|told| told.worth > 0.5);
        assert_eq!(found, wall, "{told:?}");
    }
}

#[test]
fn strangers_by_the_thousand_leave_what_comes_by_the_clock_alone() {
    let mut model = model();
    let bytes = model.bytes();
    let mut accesses: Vec<(f64, u64)> = (0..200).map(|n| (1000.0 + n as f64 * 300.0, 5)).collect();
    accesses.extend((0..60_000).map(|n| (20_000.0 + n as f64 * 0.5, 1_000_000 + n)));
    accesses.sort_by(|a, b| a.0.total_cmp(&b.0));
    let told = run(&mut model, &accesses, 60_000.0);
    assert!(told.iter().all(|told| told.resource == id(5)), "{told:?}");
    let foreseen = (20..190u64).filter(|&n| before(&told, 5, 1000.0 + n as f64 * 300.0).is_some()).count();
    assert!(foreseen >= 165, "{foreseen} of 170");
    assert_eq!(model.bytes(), bytes);
}

#[test]
fn looking_when_it_wants_comes_to_an_end() {
    // Times of recordings count from 1970 or from their beginning; a daemon's count from its start.
    for (start, wall) in [(600.0, None), (700.0, Some(0)), (1.7e9, Some(0)), (50_000.0, Some(MONDAY))] {
        let mut model = Mixture::new(&PredictSettings { memory_mib: 4, ..Default::default() });
        if let Some(wall) = wall {
            model.set_wall_clock(Duration::from_secs(wall), 0);
        }
        let (mut looks, mut out) = (0u32, Vec::new());
        for n in 0..600u32 {
            let now = start + f64::from(n) * 600.0 + 3.0 * jitter(u64::from(n));
            // Whatever is wanted before the next access, each time at the very moment.
            let mut wanted = model.next_due(at(now - 590.0));
            while let Some(time) = wanted.filter(|time| *time < at(now)) {
                model.due(time, &mut out);
                wanted = model.next_due(time);
                assert!(wanted.is_none_or(|next| next > time), "{wanted:?}");
                looks += 1;
            }
            model.learn(at(now), CLIENT, id(u64::from(n % 3)));
            model.predict(at(now), CLIENT, &mut Vec::new());
        }
        assert!(looks <= 3 * 600, "{looks} looks for 600 accesses, from {start}");
    }
}
