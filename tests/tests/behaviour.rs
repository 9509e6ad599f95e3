//! Origins of every kind: over leases nothing fails that would not have failed cold.
//!
//! Needs root and the packages of the harness, those with further origins too, and the binary in `PREWARM_BIN`. The
//! thousand requests to each origin that are promised are `cargo xtask bench handover --behaviours`; here it is some.

use prewarm_tests::bed::origins::Origins;
use prewarm_tests::bed::{Bed, outcome};
use prewarm_tests::bench::behaviours;
use prewarm_tests::bench::handover::judge;
use prewarm_tests::client::requests::Answers;
use prewarm_tests::daemon::binary;
use prewarm_tests::needs::{self, skip};
use prewarm_tests::path::Path;
use prewarm_tests::report::Report;
use std::collections::BTreeMap;
use std::time::Duration;

/// What each origin does to who comes cold: without this, comparing with it says nothing.
#[test]
fn cold_each_origin_does_what_it_is_there_for() {
    if skip(needs::ORIGINS) {
        return;
    }
    let bed = Bed::build(Some(Duration::from_millis(10))).unwrap();
    let origins = Origins::start(&bed).unwrap();
    let mut command = bed.client(Path::Exec, None, "requests").unwrap();
    command.args(["--pause", "5"]);
    command.args(origins.counterparts(&bed, Path::Exec, None, 10).iter().map(ToString::to_string));
    let answers: BTreeMap<String, Answers> = outcome(&mut command).unwrap();
    let failed = |name: &str| &answers[name].failed[..];
    let whole: Vec<u32> = (0..10).collect();
    for (name, answers) in &answers {
        let expected: &[u32] = match name.as_str() {
            "breaks" => &[1, 2, 3, 6, 7, 8],
            "closes-at-once" => &whole,
            "accepts-nothing" => &whole[..3],
            _ => &[],
        };
        assert_eq!(failed(name), expected, "{name}: {:?}", answers.complaints);
    }
}

#[test]
fn over_each_way_nothing_fails_that_would_not_have_failed_cold() {
    if skip(needs::ORIGINS) {
        return;
    }
    let mut report = Report::new("handover");
    let say = |line: &str| println!("{line}");
    report.results = behaviours::run(&binary().unwrap(), &Path::ALL, 30, &say).unwrap();
    let broken: Vec<_> = judge(&report).into_iter().filter(|judged| !judged.kept).collect();
    assert!(broken.is_empty(), "{broken:?}");
    for path in Path::ALL {
        let share = report.value(&format!("{}-behaviours", path.label()), "prewarm", "lease_share").unwrap();
        assert!(share > 5.0, "{path:?}: {share} % of the requests rode on leases");
    }
}
