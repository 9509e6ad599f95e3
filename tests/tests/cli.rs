//! The command line as a user meets it: exit codes, messages, streams.

#![expect(clippy::print_stderr, reason = "a test that is skipped says why")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The binary that `cargo xtask test` built; without it these tests say so and pass.
fn prewarm(arguments: &[&str]) -> Option<Output> {
    let Some(binary) = std::env::var_os("PREWARM_BIN").map(PathBuf::from) else {
        eprintln!("skipped: PREWARM_BIN is not set (cargo xtask test sets it)");
        return None;
    };
    let output = Command::new(&binary).args(arguments).env("PREWARM_SOCKET", "/nonexistent/control.sock").output();
    Some(output.unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display())))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn bad_usage_is_exit_code_2() {
    for arguments in [&["frobnicate"][..], &[], &["stats", "--watch", "x"], &["names", "--limit", "-1"]] {
        let Some(output) = prewarm(arguments) else { return };
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?} wrote to standard output");
    }
}

#[test]
fn without_a_daemon_the_reading_commands_say_what_to_do() {
    for command in ["stats", "leases", "names", "predictions"] {
        let Some(output) = prewarm(&[command]) else { return };
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {complaint}");
        assert!(complaint.contains("/nonexistent/control.sock") && complaint.contains("hint: "), "{complaint}");
    }
}

#[test]
fn every_bad_configuration_is_refused_by_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bad-config");
    let mut tried = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of bad files is there") {
        let path = entry.expect("it can be listed").path();
        let file = std::fs::read_to_string(&path).expect("it can be read");
        let expected =
            file.lines().next().and_then(|line| line.strip_prefix("# expect: ")).expect("it says what to expect");
        let name = path.to_string_lossy();
        for arguments in [&["config", "check", &name][..], &["run", "--iface", "lo", "--config", &name]] {
            let Some(output) = prewarm(arguments) else { return };
            let complaint = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complaint}");
            assert!(complaint.contains(expected), "{arguments:?} says {complaint:?}, not {expected:?}");
            assert!(!complaint.contains("secret"), "a password was repeated: {complaint}");
        }
        tried += 1;
    }
    assert!(tried >= 15, "only {tried} files were tried");
}

#[test]
fn the_sample_can_be_used() {
    let Some(sample) = prewarm(&["config", "sample"]) else { return };
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), &sample.stdout).expect("it can be written");
    let check = prewarm(&["config", "check", &file.path().to_string_lossy()]).expect("the binary is there");
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    let shown =
        prewarm(&["config", "show", "--config", &file.path().to_string_lossy(), "--json"]).expect("it is there");
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("it is JSON");
    assert_eq!(shown["schema"], 1);
    assert_eq!(shown["config"]["control"]["group"], "prewarm");
}

#[test]
fn the_environment_stands_between_file_and_flags() {
    let Some(binary) = std::env::var_os("PREWARM_BIN") else {
        eprintln!("skipped: PREWARM_BIN is not set (cargo xtask test sets it)");
        return;
    };
    let show = |flags: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(["config", "show", "--json"]).args(flags).env("PREWARM_RESOLVE__TIMEOUT_MS", "77");
        let output = command.output().expect("it runs");
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        value["config"]["resolve"]["timeout_ms"].as_u64()
    };
    assert_eq!(show(&[]), Some(77));
    assert_eq!(show(&["--set", "resolve.timeout_ms=78"]), Some(78));
}

#[test]
fn the_documents_name_every_command() {
    let Some(help) = prewarm(&["--help"]) else { return };
    let help = text(&help.stdout);
    let manual = text(&prewarm(&["man"]).expect("the binary is there").stdout);
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&prewarm(&["completions", shell]).expect("the binary is there").stdout);
        for command in
            ["run", "exec", "lease", "stats", "leases", "names", "predictions", "doctor", "dissect", "config"]
        {
            assert!(help.contains(command), "--help leaves {command} out");
            assert!(manual.contains(&format!("prewarm\\-{command}(1)")), "the manual page leaves {command} out");
            assert!(script.contains(command), "the completions of {shell} leave {command} out");
        }
    }
    assert!(manual.contains("77 missing privilege"), "the manual page leaves the exit codes out");
}

#[test]
fn doctor_judges() {
    let Some(output) = prewarm(&["doctor", "--json"]) else { return };
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let findings = report["findings"].as_array().expect("it has findings");
    for check in ["kernel", "privileges", "kernel programs", "egress hook", "resolver", "daemon"] {
        let finding = findings.iter().find(|finding| finding["check"] == check);
        let finding = finding.unwrap_or_else(|| panic!("{check} was not looked at"));
        let fine = finding["grade"] == "ok";
        assert_eq!(fine, finding.get("fix").is_none(), "what is amiss has a mend, what is fine has none: {finding}");
    }
}
