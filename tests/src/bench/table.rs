//! A report for people: prewarm beside each of its baselines, with the ratio.

use comfy_table::{CellAlignment, Table, presets};

use crate::report::{Report, Row};

/// The subject that the others are held against.
const PREWARM: &str = "prewarm";

/// One line a case, metric and baseline; a figure without a baseline has a line of its own.
pub fn render(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["case", "metric", PREWARM, "baseline", "", "prewarm ÷ baseline"]);
    for row in report.results.iter().filter(|row| row.subject == PREWARM) {
        let is_baseline =
            |other: &&Row| other.subject != PREWARM && other.case == row.case && other.metric == row.metric;
        let mut baselines = report.results.iter().filter(is_baseline).peekable();
        let ours = shown(row);
        if baselines.peek().is_none() {
            table.add_row([&row.case, &row.metric, &ours, "", "", ""]);
        }
        for baseline in baselines {
            let ratio =
                if baseline.value == 0.0 { String::new() } else { format!("{:.2}", row.value / baseline.value) };
            table.add_row([&row.case, &row.metric, &ours, &baseline.subject, &shown(baseline), &ratio]);
        }
    }
    for column in [2, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn shown(row: &Row) -> String {
    let digits = if row.value.abs() < 100.0 { 2 } else { 0 };
    format!("{:.digits$} {}", row.value, row.unit)
}
