//! The suite that `cargo xtask vm` runs on older kernels, on this one: what the verifier has to walk has a budget, because
//! they give up where newer ones still manage; and each program does its work.

use std::{collections::BTreeSet, process::Command};

use prewarm_tests::{
    kernel,
    suite::{PROGRAMS, report},
};
use prewarm_user::kernel::object;

#[test]
fn each_program_stays_within_its_budget_and_does_its_work() {
    if let Some(reason) = kernel::missing() {
        println!("skipped: {reason}");
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_kernel-suite")).args(["run", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: report::Report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    println!("{}", report::table(std::slice::from_ref(&report)));
    assert_eq!(report.complaints(), Vec::<String>::new());
    assert!(output.status.success(), "{said}");
    let shown: Vec<_> = report.programs.iter().map(|program| program.name.as_str()).collect();
    assert_eq!(shown, PROGRAMS.map(|(name, ..)| name));
    for program in report.programs {
        assert!(program.walked.is_some(), "{}: every kernel since 5.16 counts what it walks", program.name);
        assert!(!program.checks.is_empty(), "{} is only loaded", program.name);
    }
}

/// A program that is new in the object must be tried on older kernels too.
#[test]
fn no_program_is_left_out() {
    if let Some(reason) = kernel::missing() {
        println!("skipped: {reason}");
        return;
    }
    let bpf = aya::Ebpf::load(object().unwrap()).unwrap();
    let known: BTreeSet<_> = PROGRAMS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(bpf.programs().map(|(name, _)| name).collect::<BTreeSet<_>>(), known);
}

/// A table says of each program on each kernel what is wrong, and the suite's status says whether anything is.
#[test]
fn what_is_wrong_is_told() {
    let check = |failed: Option<&str>| report::Check { what: "it works".to_owned(), failed: failed.map(str::to_owned) };
    let program = |name: &str, walked, refused: Option<&str>, failed| report::Program {
        name: name.to_owned(),
        kind: "xdp".to_owned(),
        walked,
        least: 10,
        native: walked,
        refused: refused.map(str::to_owned),
        checks: vec![check(None), check(failed)],
    };
    let old = report::Report {
        kernel: "6.1".to_owned(),
        programs: vec![
            program("good", Some(1_234), None, None),
            program("wide", Some(200_001), None, None),
            program("hollow", Some(9), None, None),
            program("broken", Some(100), None, Some("not so\nat all")),
            program("refused", None, Some("too large"), None),
        ],
        tests: vec![check(Some("1 failed"))],
    };
    let new = report::Report { kernel: "6.12".to_owned(), programs: vec![old.programs[0].clone()], tests: Vec::new() };
    assert_eq!(new.complaints(), Vec::<String>::new());
    let wanted = [
        "6.1: wide: 200001 instructions, the budget is 200000",
        "6.1: hollow: 9 instructions cannot be the whole program",
        "6.1: broken: it works: not so …",
        "6.1: refused: refused: too large",
        "6.1: tests: it works: 1 failed",
    ];
    assert_eq!(old.complaints(), wanted);
    let text = report::table(&[old, new]);
    for line in wanted.iter().chain(&["1,234 ok 2/2", "200,001 NOT 2/2", "100 FAILED 1/2"]) {
        assert!(text.contains(line), "{line}: {text}");
    }
}
