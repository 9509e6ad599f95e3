//! What the lab has to show, judged on the report alone: pure.

use std::fmt;

use super::figures::PREWARM;
use crate::report::Report;

/// One judged promise.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The case it is about.
    pub case: String,
    /// What is promised.
    pub promise: String,
    /// What was measured; nothing when there was nothing to measure it on.
    pub value: Option<f64>,
    /// Whether it holds.
    pub kept: bool,
}

/// A promise about a metric of a case.
struct Promise {
    metric: &'static str,
    text: &'static str,
    holds: fn(f64) -> bool,
    /// Whether the promise is made for this way and scheme.
    made_for: fn(&str, &str) -> bool,
    /// Whether a case without the metric breaks the promise.
    needed: bool,
}

const PROMISES: &[Promise] = &[
    Promise {
        metric: "connect_ms_p50",
        text: "connecting takes less than 0.1 ms",
        holds: |ms| ms < 0.1,
        made_for: |way, _| matches!(way, "exec" | "fd"),
        needed: true,
    },
    Promise {
        metric: "connect_ms_p50",
        text: "connecting takes less than 0.3 ms",
        holds: |ms| ms < 0.3,
        made_for: |way, _| matches!(way, "redirect" | "socks" | "connect" | "tproxy"),
        needed: true,
    },
    // Two processes more on the way, neither of them ours.
    Promise {
        metric: "connect_ms_p50",
        text: "connecting takes less than 1 ms",
        holds: |ms| ms < 1.0,
        made_for: |way, _| way == "gateway",
        needed: true,
    },
    Promise {
        metric: "saved_rtt",
        text: "a lease saves at least 0.98 round trips",
        holds: |saved| saved >= 0.98,
        made_for: |way, _| way != "gateway",
        needed: true,
    },
    Promise {
        metric: "saved_rtt",
        text: "a lease saves at least 0.95 round trips",
        holds: |saved| saved >= 0.95,
        made_for: |way, scheme| way == "gateway" && scheme == "http",
        needed: true,
    },
    Promise {
        metric: "lease_share",
        text: "at least 80 % of the followers ride on leases",
        holds: |share| share >= 80.0,
        made_for: |_, _| true,
        needed: true,
    },
    Promise {
        metric: "failed",
        text: "no request fails",
        holds: |failed| failed == 0.0,
        made_for: |_, _| true,
        needed: true,
    },
    Promise {
        metric: "name_cached",
        text: "at least 80 % of the followers' names come from the resolver's cache",
        holds: |share| share >= 80.0,
        // Who leaves the name to a proxy asks nobody for it.
        made_for: |way, _| way != "socks",
        needed: true,
    },
    Promise {
        metric: "far_cache_hit",
        text: "at least half of the first requests behind the far cache are hits",
        holds: |share| share >= 50.0,
        made_for: |_, _| true,
        needed: false,
    },
];

/// Judges every case that prewarm took part in.
pub fn judge(report: &Report) -> Vec<Verdict> {
    let mut cases: Vec<_> = report.results.iter().map(|row| row.case.as_str()).collect();
    cases.dedup();
    let mut verdicts = Vec::new();
    for case in cases {
        let way = case.split('/').next().unwrap_or(case).trim_end_matches('6');
        let scheme = case.rsplit('/').next().unwrap_or(case);
        for promise in PROMISES.iter().filter(|promise| (promise.made_for)(way, scheme)) {
            let value = report.value(case, PREWARM, promise.metric);
            if promise.needed || value.is_some() {
                verdicts.push(Verdict {
                    case: case.to_owned(),
                    promise: promise.text.to_owned(),
                    value,
                    kept: value.is_some_and(promise.holds),
                });
            }
        }
    }
    verdicts
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.kept { "kept  " } else { "BROKEN" };
        write!(formatter, "{mark}  {}: {}", self.case, self.promise)?;
        match self.value {
            Some(value) => write!(formatter, " ({value})"),
            None => formatter.write_str(" (nothing measured)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::report::{Report, Row};

    fn report(case: &str, values: &[(&str, f64)]) -> Report {
        let mut report = Report::new("lab");
        report.results = values.iter().map(|(metric, value)| Row::new(case, "prewarm", metric, *value, "")).collect();
        report
    }

    #[test]
    fn a_missing_figure_breaks_its_promise() {
        let verdicts = judge(&report("gateway/40/tls", &[("connect_ms_p50", 0.2), ("failed", 1.0)]));
        let kept: Vec<_> = verdicts.iter().map(|verdict| verdict.kept).collect();
        // Connect, leases, failures, names; behind the gateway's proxy the saving is promised for plain HTTP only.
        assert_eq!(kept, [true, false, false, false]);
    }

    #[test]
    fn each_way_is_held_to_its_own_promise() {
        let holds = |case: &str, ms| judge(&report(case, &[("connect_ms_p50", ms)]))[0].kept;
        assert!(holds("exec6/10/tls", 0.09) && !holds("exec6/10/tls", 0.11));
        assert!(holds("redirect/10/http", 0.29) && !holds("redirect/10/http", 0.31));
        assert!(holds("gateway6/100/http", 0.9) && !holds("gateway/100/http", 1.1));
    }
}
