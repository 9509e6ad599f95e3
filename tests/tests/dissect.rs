//! `prewarm dissect` against the oracle: what tshark found in captures of other projects.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use prewarm_tests::{captures, kernel};

/// Rows with one of these tags, or none, are read by design; every other tag names what is left out.
const READ: [&str; 5] = ["plain", "vlan", "ipopt", "ip6ext", "tcp"];

/// The one message in the oracle whose length and body are in different segments.
const SPLIT: (&str, &str) = ("zeek__dns__tkey.pcap", "7");

fn dissect(arguments: &[&Path]) -> Output {
    let program = std::env::var_os("PREWARM").map_or_else(prewarm, PathBuf::from);
    Command::new(program).arg("dissect").args(arguments).output().expect("prewarm should run")
}

/// The binary beside the tests.
fn prewarm() -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    path.pop();
    path.join("prewarm")
}

#[test]
fn the_oracle_is_matched() {
    if let Some(reason) = kernel::missing() {
        println!("skipped: {reason}");
        return;
    }
    if !prewarm().exists() {
        println!("skipped: {} is not built", prewarm().display());
        return;
    }
    let Some(folder) = captures::shared() else {
        println!("skipped: no ../shared/data/pcaps");
        return;
    };
    let mut rows = 0;
    let mut files: Vec<_> = fs::read_dir(folder.join("expected")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for expected in files {
        let name = expected.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&expected).unwrap();
        let mut must = Vec::new();
        let mut may = BTreeSet::new();
        for line in text.lines() {
            let columns: Vec<_> = line.split('\t').collect();
            let row = columns[..8].join("\t");
            let read = columns[10].split(',').all(|tag| READ.contains(&tag)) && (name, columns[0]) != SPLIT;
            if read {
                must.push(row);
            } else {
                may.insert(row);
            }
        }
        let output = dissect(&[&folder.join(name)]);
        let found: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        let found: Vec<_> = found.into_iter().filter(|row| !may.contains(row)).collect();
        assert_eq!(found, must, "{name}: {}", String::from_utf8_lossy(&output.stderr));
        rows += must.len();
    }
    println!("{rows} rows");
    assert!(rows >= 890);
}

#[test]
fn bad_input_is_told() {
    if !prewarm().exists() {
        println!("skipped: {} is not built", prewarm().display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.pcap");
    fs::write(&text, "this is no capture").unwrap();
    for path in [&folder.path().join("missing.pcap"), &text] {
        let output = dissect(&[path]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[test]
fn a_capture_cut_short_gives_what_was_there() {
    if let Some(reason) = kernel::missing() {
        println!("skipped: {reason}");
        return;
    }
    if !prewarm().exists() {
        println!("skipped: {} is not built", prewarm().display());
        return;
    }
    let own = captures::own().join("questions.pcap");
    let whole = fs::read(&own).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.pcap");
    fs::write(&cut, &whole[..whole.len() - 5]).unwrap();
    let lines = |path: &Path| {
        let output = dissect(&[path]);
        assert_eq!(output.status.code(), Some(0));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (all, log) = lines(&own);
    assert!(!log.contains("warning"), "{log}");
    let (some, log) = lines(&cut);
    assert!(log.contains("warning") && log.contains("ends inside a frame"), "{log}");
    assert!(all.starts_with(&some) && some.lines().count() + 1 >= all.lines().count());
    assert_eq!(all, fs::read_to_string(captures::own().join("questions.tsv")).unwrap());
}
