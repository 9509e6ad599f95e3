//! Imports go one way: a part imports only parts that stand above it (the table in `docs/ARCHITECTURE.md`). And a file
//! is short and opens with what it is for.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rows, top first: a part may import what stands in a row above its own.
const ROWS: [&[&str]; 12] = [
    &["model"],
    &["telemetry"],
    &["config"],
    &["kernel", "observe", "profile"],
    &["history", "predict", "forecast", "policy"],
    &["decide"],
    &["replay"],
    &["resolve", "lease", "handover", "cache", "hint", "slice", "shard", "fleet"],
    &["cluster", "allocate"],
    &["control"],
    &["client"],
    &["cli", "tui"],
];
/// Imports whatever it likes.
const LAST: &str = "app";
/// Parts that import one of their own row: the second stands above the first in the table of the design.
const WITHIN_A_ROW: [(&str, &str); 5] =
    [("observe", "kernel"), ("handover", "lease"), ("handover", "resolve"), ("cache", "lease"), ("cli", "tui")];
/// Files of the crate's root that belong to no part.
const ROOT_FILES: [&str; 3] = ["lib.rs", "main.rs", "client.rs"];
const MAX_LINES: usize = 600;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn row(part: &str) -> Option<usize> {
    if part == LAST { Some(ROWS.len()) } else { ROWS.iter().position(|row| row.contains(&part)) }
}

/// The parts that a source names after `crate::`, grouped imports included.
fn imports(text: &str) -> Vec<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate`, and names that end like this.
        if code[..at].ends_with(|c| is_word(c) || c == '$') {
            continue;
        }
        let rest = code[at + "crate::".len()..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            found.push(rest.chars().take_while(|c| is_word(*c)).collect());
            continue;
        };
        // The first word after each comma at depth one.
        let (mut depth, mut word, mut first) = (1, String::new(), true);
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => (),
            }
            if depth == 1 && first && is_word(c) {
                word.push(c);
            } else if !word.is_empty() {
                found.push(std::mem::take(&mut word));
                first = false;
            }
            first |= depth == 1 && c == ',';
            if depth == 0 {
                break;
            }
        }
    }
    found
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::model::Name;\nuse crate::{\n    config::{A, B},\n    policy,\n    predict::{C, d::E},\n};\n\
                // crate::cli\nlet x = crate::lease::take(); mycrate::tui::y();";
    assert_eq!(imports(text), ["model", "config", "policy", "predict", "lease"]);
}

#[test]
fn imports_go_one_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../prewarm-user/src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    assert!(files.len() > 10, "the source was not found");
    let mut wrong = Vec::new();
    for path in &files {
        let inside = path.strip_prefix(&source).unwrap();
        let part = inside.iter().next().unwrap().to_str().unwrap();
        if ROOT_FILES.contains(&part) {
            continue;
        }
        let Some(own) = row(part) else {
            wrong.push(format!("{}: the part {part} stands in no row of the table", inside.display()));
            continue;
        };
        for import in imports(&fs::read_to_string(path).unwrap()) {
            let allowed = import == part
                || row(&import).is_some_and(|row| row < own)
                || WITHIN_A_ROW.contains(&(part, import.as_str()));
            if !allowed {
                wrong.push(format!("{}: imports {import}, which does not stand above {part}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["prewarm-user/src", "prewarm-ebpf/src", "tests/src", "tests/tests", "xtask/src"] {
        rust_files(&root.join(folder), &mut files);
    }
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines, more than {MAX_LINES}", path.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{}: does not open with a //! line that says what it is for", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
