//! Documents that must agree with the code.

use std::path::Path;

use prewarm_user::control::{Kind, LABELLED, METRICS};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_metrics_document_has_each_metric_once() {
    let text = document("docs/metrics.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `prewarm_")).collect();
    let plain = METRICS.iter().map(|metric| {
        let suffix = if metric.kind == Kind::Counter { "_total" } else { "" };
        (format!("`{}{suffix}`", metric.name), metric.meaning)
    });
    let labelled = LABELLED.iter().map(|(name, label, meaning)| {
        let counts = matches!(*label, "reason" | "way" | "source") && !name.ends_with("_feeds");
        let suffix = if counts { "_total" } else { "" };
        (format!("`{name}{suffix}`"), *meaning)
    });
    let all: Vec<(String, &str)> = plain.chain(labelled).collect();
    for (name, meaning) in &all {
        let row: Vec<&&str> = rows.iter().filter(|row| row.contains(name.as_str())).collect();
        assert_eq!(row.len(), 1, "{name} has {} rows in docs/metrics.md", row.len());
        assert!(row[0].contains(meaning), "docs/metrics.md says {:?} of {name}, the code {meaning:?}", row[0]);
    }
    assert_eq!(rows.len(), all.len(), "docs/metrics.md has rows for metrics that are gone");
}

#[test]
fn the_readme_is_of_a_readable_length() {
    let words = document("README.md").split_whitespace().count();
    assert!((700..=1100).contains(&words), "README.md has {words} words");
}
