//! A tally as rows of the JSON form, each figure of the world with prewarm beside that of the world without.

use super::{report::Row, tally::Tally};

/// The rows of a replay of this name.
#[must_use]
pub fn rows(case: &str, tally: &Tally) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |subject: &str, metric: &str, value: f64, unit: &str| {
        rows.push(Row::new(case, subject, metric, value, unit));
    };
    let Tally { names_waited, connections_waited, look_ups, leases, .. } = tally;
    let accesses = tally.accesses as f64;
    for (subject, misses, names, connections, missed) in [
        ("cold", tally.misses_cold, names_waited.cold, connections_waited.cold, tally.leasable),
        ("prewarm", tally.misses_warm, names_waited.warm, connections_waited.warm, tally.leasable - leases.used),
    ] {
        row(subject, "accesses", accesses, "");
        row(subject, "name_misses", misses as f64, "");
        row(subject, "names_waited_ms", names, "ms");
        row(subject, "connections", tally.leasable as f64, "");
        row(subject, "connection_misses", missed as f64, "");
        row(subject, "connections_waited_ms", connections, "ms");
    }
    let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    let avoided = tally.misses_cold as f64 - tally.misses_warm as f64;
    let mut row = |metric: &str, value: f64, unit: &str| row("prewarm", metric, value, unit);
    row("misses_avoided", 100.0 * avoided / tally.misses_cold.max(1) as f64, "percent");
    row("saved_ms", tally.saved(), "ms");
    row("names_saved_ms", names_waited.saved(), "ms");
    row("connections_saved_ms", connections_waited.saved(), "ms");
    row("lookups", look_ups.made as f64, "");
    row("lookups_used", look_ups.used as f64, "");
    row("lookups_late", look_ups.late as f64, "");
    row("lookups_in_vain", look_ups.in_vain() as f64, "");
    row("precision_10", share(look_ups.used_10, look_ups.made), "percent");
    row("precision_60", share(look_ups.used_60, look_ups.made), "percent");
    row("waste", share(look_ups.in_vain(), tally.misses_cold), "percent");
    row("leases", leases.opened as f64, "");
    row("leases_used", leases.used as f64, "");
    row("leases_in_vain", leases.in_vain() as f64, "");
    rows
}
