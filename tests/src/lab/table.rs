//! The report for people: cold and prewarm side by side.

use comfy_table::{CellAlignment, Table, presets};

use super::figures::{COLD, PREWARM};
use crate::report::Report;

/// One line a case and metric.
pub fn render(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["case", "metric", COLD, PREWARM, "cold ÷ prewarm"]);
    let mut seen = Vec::new();
    let mut last_case = "";
    for row in &report.results {
        let line = (&row.case, &row.metric);
        if seen.contains(&line) {
            continue;
        }
        seen.push(line);
        let cold = report.value(&row.case, COLD, &row.metric);
        let warm = report.value(&row.case, PREWARM, &row.metric);
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| shown(value, &row.unit));
        let ratio = match (cold, warm) {
            (Some(cold), Some(warm)) if row.unit == "ms" && warm > 0.0 => format!("{:.2}", cold / warm),
            _ => String::new(),
        };
        let case = if row.case == last_case { "" } else { &row.case };
        last_case = &row.case;
        table.add_row([case, &row.metric, &number(cold), &number(warm), &ratio]);
    }
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn shown(value: f64, unit: &str) -> String {
    match unit {
        "ms" | "RTT" => format!("{value:.2} {unit}"),
        "%" => format!("{value:.0} %"),
        _ => format!("{value:.0}"),
    }
}
