//! Every byte comes, in both directions, whoever ends its half first: transfers of random size over each way.
//!
//! Needs root, the packages of the harness and the binary in `PREWARM_BIN`. Some hundred a way; the ten thousand are
//! `cargo xtask bench handover --integrity`.
#![expect(clippy::print_stdout, reason = "tests say there what they measured")]

use prewarm_tests::bench::handover::{integrity, judge};
use prewarm_tests::daemon::binary;
use prewarm_tests::needs::{self, skip};
use prewarm_tests::path::Path;
use prewarm_tests::report::Report;

/// A way.
const TRANSFERS: u32 = 300;

fn right(path: Path) {
    if skip(needs::DAEMON) {
        return;
    }
    let mut report = Report::new("handover");
    report.results = integrity(&binary().unwrap(), &[path], TRANSFERS, &|line| println!("{line}")).unwrap();
    let judged = judge(&report);
    assert_eq!(judged.len(), 1);
    assert!(judged[0].kept, "{:?}", report.results);
    let share = report.value(&format!("{}-integrity", path.label()), "prewarm", "lease_share").unwrap();
    assert!(share > 10.0, "{share} % of the transfers rode on leases");
}

#[test]
fn over_exec() {
    right(Path::Exec);
}

#[test]
fn over_fd() {
    right(Path::Fd);
}

#[test]
fn over_the_redirect() {
    right(Path::Redirect);
}

#[test]
fn over_socks() {
    right(Path::Socks);
}

#[test]
fn over_connect() {
    right(Path::Connect);
}

#[test]
fn over_tproxy() {
    right(Path::Tproxy);
}
