//! Prints the rows of the deciding side's benches: `cargo run --release -p prewarm-tests --example decide_bench`.

use std::path::Path;

use prewarm_tests::bench::{Row, pipeline, predict};

#[expect(clippy::print_stdout, reason = "a bench prints its figures")]
fn show(rows: &[Row]) {
    for row in rows {
        println!("{:<16}{:<12}{:<26}{:>14.4} {}", row.case, row.subject, row.metric, row.value, row.unit);
    }
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("pipeline") {
        show(&pipeline::run());
        return Ok(());
    }
    let folder = std::env::args().nth(1).unwrap_or_else(|| "/work/shared/data".into());
    show(&pipeline::run());
    show(&predict::run(&predict::traces(Path::new(&folder)), &predict::trace)?);
    Ok(())
}
