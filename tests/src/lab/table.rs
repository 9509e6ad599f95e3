//! The report for people: cold and prewarm side by side.

use comfy_table::{CellAlignment, Table, presets};

use super::figures::{COLD, PREWARM};
use crate::report::Report;

/// What a metric is called for people, in the order of the table. Times show their median and, in brackets, p90.
const LINES: [(&str, &str); 11] = [
    ("name_ms", "name known"),
    ("connect_ms", "connected"),
    ("curl_connect_ms", "connected, as curl sees it"),
    ("ttfb_ms", "first byte"),
    ("name_cached", "names from the resolver's cache"),
    ("far_cache_hit", "first requests that hit the far cache"),
    ("lease_share", "followers on leases"),
    ("saved_rtt", "saved by a lease"),
    ("leases_wasted", "leases nobody used"),
    ("requests", "requests"),
    ("failed", "failed"),
];

/// One line a case and metric.
pub fn render(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["case", "of the followers", COLD, PREWARM, "cold ÷ prewarm"]);
    let mut cases: Vec<_> = report.results.iter().map(|row| row.case.as_str()).collect();
    cases.dedup();
    for case in cases {
        let mut shown_case = case;
        for (metric, label) in LINES {
            let (cold, warm) = (number(report, case, COLD, metric), number(report, case, PREWARM, metric));
            if cold.is_none() && warm.is_none() {
                continue;
            }
            let median = format!("{metric}_p50");
            let ratio = match (report.value(case, COLD, &median), report.value(case, PREWARM, &median)) {
                (Some(cold), Some(warm)) if warm > 0.0 => format!("{:.2}", cold / warm),
                _ => String::new(),
            };
            table.add_row([shown_case, label, &cold.unwrap_or_default(), &warm.unwrap_or_default(), &ratio]);
            shown_case = "";
        }
    }
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// A figure with its unit.
fn number(report: &Report, case: &str, subject: &str, metric: &str) -> Option<String> {
    let value = |metric: &str| report.value(case, subject, metric);
    if let Some(median) = value(&format!("{metric}_p50")) {
        let most = value(&format!("{metric}_p90")).unwrap_or(median);
        return Some(format!("{median:.2} ms ({most:.1})"));
    }
    let value = value(metric)?;
    Some(match metric {
        "saved_rtt" => format!("{value:.2} RTT"),
        "name_cached" | "far_cache_hit" | "lease_share" => format!("{value:.0} %"),
        _ => format!("{value:.0}"),
    })
}
