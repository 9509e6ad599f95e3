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
    /// Only for cases of this scheme.
    scheme: Option<&'static str>,
    /// Whether a case without the metric breaks the promise.
    needed: bool,
}

const PROMISES: &[Promise] = &[
    Promise {
        metric: "connect_ms_p50",
        text: "connecting takes less than 1 ms",
        holds: |ms| ms < 1.0,
        scheme: None,
        needed: true,
    },
    Promise {
        metric: "saved_rtt",
        text: "a lease saves at least 0.95 round trips",
        holds: |saved| saved >= 0.95,
        scheme: Some("http"),
        needed: true,
    },
    Promise {
        metric: "lease_share",
        text: "at least 80 % of the followers ride on leases",
        holds: |share| share >= 80.0,
        scheme: None,
        needed: true,
    },
    Promise { metric: "failed", text: "no request fails", holds: |failed| failed == 0.0, scheme: None, needed: true },
    Promise {
        metric: "name_cached",
        text: "at least 80 % of the followers' names come from the resolver's cache",
        holds: |share| share >= 80.0,
        scheme: None,
        needed: true,
    },
    Promise {
        metric: "far_cache_hit",
        text: "at least half of the first requests behind the far cache are hits",
        holds: |share| share >= 50.0,
        scheme: None,
        needed: false,
    },
];

/// Judges every case that prewarm took part in.
pub fn judge(report: &Report) -> Vec<Verdict> {
    let mut cases: Vec<_> = report.results.iter().map(|row| row.case.as_str()).collect();
    cases.dedup();
    let mut verdicts = Vec::new();
    for case in cases {
        for promise in PROMISES {
            let value = report.value(case, PREWARM, promise.metric);
            let concerned = promise.scheme.is_none_or(|scheme| case.ends_with(scheme));
            if concerned && (promise.needed || value.is_some()) {
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

    #[test]
    fn a_missing_figure_breaks_its_promise() {
        let mut report = Report::new("lab");
        let row = |metric: &str, value| Row {
            case: "exec/40/tls".into(),
            subject: "prewarm".into(),
            metric: metric.into(),
            value,
            unit: String::new(),
        };
        report.results = vec![row("connect_ms_p50", 0.2), row("failed", 1.0)];
        let verdicts = judge(&report);
        let kept: Vec<_> = verdicts.iter().map(|verdict| verdict.kept).collect();
        // Connect, leases, failures, names; the saving is promised for plain HTTP only.
        assert_eq!(kept, [true, false, false, false]);
    }
}
