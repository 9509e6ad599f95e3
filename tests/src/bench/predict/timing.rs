//! Just in time against at once: the replay metric with copies that are made now, and with copies that are made shortly
//! before they are expected.
//!
//! Comes in: events. Goes out: rows, for copies that stay ready for 60 s (names) and for 2, 10 and 30 s (connections).
//! A plan that a later event of the client changes its mind about is changed or dropped.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use prewarm_user::{
    config::PredictSettings,
    predict::{ClientKey, Mixture, Outlook, Predictor as _},
};

use super::{Event, Row, metric, since, spread, unspread};

/// How long copies stay ready, in seconds.
const HOLDS: [f64; 4] = [60.0, 30.0, 10.0, 2.0];
const LEAD: Duration = Duration::from_millis(20);
/// Copies for one event at most.
const MOST: usize = 5;

/// A copy to be made: of what, how good that is, how many seconds from now.
#[derive(Clone, Copy, Debug)]
struct Plan {
    resource: u32,
    score: f32,
    delay: f64,
}

/// What the threshold is held against, and how many seconds to wait, for copies that last for so long.
type Way = fn(&Outlook, Duration) -> (f32, f64);

/// When copies are made.
const WAYS: [(&str, Way); 6] = [
    // Now; the worth of a copy that lasts a minute.
    ("at-once", |outlook, _| (outlook.worth, 0.0)),
    // Now; the worth times the share that comes while the copy lasts.
    ("at-once-held", |outlook, hold| (outlook.worth * outlook.timing.share(LEAD, LEAD + hold), 0.0)),
    // When a twentieth and a tenth of the accesses that come would have come, less the lead and a tenth.
    ("in-time-5", |outlook, _| (outlook.worth, quantile(outlook, 0.05))),
    ("in-time-10", |outlook, _| (outlook.worth, quantile(outlook, 0.10))),
    // When most accesses find it, and then only.
    ("in-time-best", |outlook, hold| {
        let (start, share) = outlook.timing.best_start(LEAD, hold);
        (outlook.worth * share, start.as_secs_f64())
    }),
    // What the outlook itself proposes.
    ("planned", |outlook, hold| {
        let (start, share) = outlook.timing.plan(LEAD, hold);
        (outlook.worth * share, start.as_secs_f64())
    }),
];

/// Seconds until shortly before this share has come; zero for less than half a second.
fn quantile(outlook: &Outlook, share: f32) -> f64 {
    let (mut low, mut high) = (0.0f64, 60.0f64);
    for _ in 0..16 {
        let middle = f64::midpoint(low, high);
        if outlook.timing.share(Duration::ZERO, Duration::from_secs_f64(middle)) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    let start = low * 0.9 - LEAD.as_secs_f64();
    if start < 0.5 { 0.0 } else { start }
}

/// The rows of one trace.
#[must_use]
pub fn trace(case: &str, events: &[Event]) -> Vec<Row> {
    let mut model = Mixture::new(&PredictSettings { candidates: 64, ..Default::default() });
    let first = events.first().map_or(0.0, |event| event.at);
    let mut out = Vec::new();
    let outlooks: Vec<Vec<Outlook>> = events
        .iter()
        .map(|event| {
            let (now, client) = (since(first, event.at), ClientKey(u128::from(event.client)));
            model.learn(now, client, spread(event.resource));
            model.predict(now, client, &mut out);
            model.outlooks().to_vec()
        })
        .collect();
    let mut rows = Vec::new();
    for hold in HOLDS {
        let without = metric::replay(events, None, hold, 0.0).misses as f64;
        for (way, judge) in WAYS {
            let plans: Vec<Vec<Plan>> = outlooks
                .iter()
                .map(|outlooks| {
                    let plan = |outlook: &Outlook| {
                        let (score, delay) = judge(outlook, Duration::from_secs_f64(hold));
                        Plan { resource: unspread(outlook.resource), score, delay }
                    };
                    let mut plans: Vec<Plan> = outlooks.iter().map(plan).collect();
                    plans.sort_by(|a, b| b.score.total_cmp(&a.score));
                    plans
                })
                .collect();
            let coverage = metric::sweep_with(without, &|threshold| replay(events, &plans, hold, threshold)).coverage;
            for (cost, coverage) in metric::COSTS.iter().zip(coverage) {
                let metric = format!("net_coverage_{cost}");
                rows.push(Row::new(&format!("{case}@{hold}"), way, &metric, coverage, "percent"));
            }
        }
    }
    rows
}

/// Replays the events; `hold` is how long a copy lasts.
fn replay(events: &[Event], plans: &[Vec<Plan>], hold: f64, threshold: f32) -> metric::Replay {
    #[derive(Clone, Copy)]
    struct Copy {
        ready: f64,
        expire: f64,
        /// When one is planned to be made, infinite if none is, and for which client.
        planned: f64,
        client: u32,
    }
    let lead = LEAD.as_secs_f64();
    let names = events.iter().map(|event| event.resource as usize + 1).max().unwrap_or(0);
    let mut copies =
        vec![Copy { ready: 0.0, expire: f64::NEG_INFINITY, planned: f64::INFINITY, client: u32::MAX }; names];
    // Plans by their time, in nanoseconds from the first event; one that no longer is its resource's is passed over.
    let mut due = BinaryHeap::new();
    let first = events.first().map_or(0.0, |event| event.at);
    let mut of_client = HashMap::<u32, Vec<u32>>::new();
    let mut result = metric::Replay::default();
    for (event, plans) in events.iter().zip(plans) {
        let now = event.at;
        while let Some(&Reverse((_, resource, planned))) = due.peek() {
            let planned = f64::from_bits(planned);
            if planned > now {
                break;
            }
            due.pop();
            let copy: &mut Copy = &mut copies[resource as usize];
            if copy.planned.to_bits() != planned.to_bits() {
                continue;
            }
            copy.planned = f64::INFINITY;
            if copy.expire <= planned {
                (copy.ready, copy.expire) = (planned + lead, planned + lead + hold);
                result.prefetches += 1;
            }
        }
        let copy = &mut copies[event.resource as usize];
        copy.planned = f64::INFINITY;
        if copy.expire > now {
            result.misses += usize::from(copy.ready > now);
        } else {
            result.misses += 1;
            (copy.ready, copy.expire) = (now, now + hold);
        }
        // What was planned for this client is planned anew, or no longer.
        let planned = of_client.entry(event.client).or_default();
        for resource in planned.drain(..) {
            let copy = &mut copies[resource as usize];
            let still = plans.iter().any(|plan| plan.resource == resource && plan.score >= threshold);
            if copy.client == event.client && !still && plans.iter().any(|plan| plan.resource == resource) {
                copy.planned = f64::INFINITY;
            }
        }
        let mut made = 0;
        for plan in plans.iter().take_while(|plan| plan.score >= threshold) {
            if made >= MOST {
                break;
            }
            let copy = &mut copies[plan.resource as usize];
            let at = now + plan.delay;
            if plan.resource == event.resource || copy.expire > at {
                continue;
            }
            made += 1;
            if plan.delay == 0.0 {
                (copy.ready, copy.expire, copy.planned) = (now + lead, now + lead + hold, f64::INFINITY);
                result.prefetches += 1;
            } else {
                (copy.planned, copy.client) = (at, event.client);
                planned.push(plan.resource);
                due.push(Reverse((((at - first) * 1e9) as u64, plan.resource, at.to_bits())));
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_copy_is_made_when_it_is_wanted() {
        // The same follower 4 s after each page: a copy that lasts for 2 s is too early if made with the page.
        let visits = (0..60u32).flat_map(|visit| {
            let at = f64::from(visit) * 120.0;
            [Event { at, client: 0, resource: 0 }, Event { at: at + 4.0, client: 0, resource: 1 }]
        });
        let events: Vec<Event> = visits.collect();
        let rows = trace("visits", &events);
        let covered = |hold: f64, way: &str| {
            let case = format!("visits@{hold}");
            let row = rows.iter().find(|r| r.case == case && r.subject == way && r.metric == "net_coverage_1");
            row.map_or(f64::NAN, |row| row.value)
        };
        assert!(covered(30.0, "at-once") > 40.0 && covered(30.0, "planned") > 40.0, "{rows:?}");
        assert!(covered(2.0, "at-once") < 1.0, "{}", covered(2.0, "at-once"));
        assert!(covered(2.0, "in-time-best") > 15.0, "{}", covered(2.0, "in-time-best"));
        assert_eq!(covered(2.0, "planned"), covered(2.0, "in-time-best"));
    }
}
