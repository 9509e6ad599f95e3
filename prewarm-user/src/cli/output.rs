//! Standard output: tables for people, JSON for programs.

use std::io::{self, Write as _};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// Writes `text` and a line's end.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes `value` as one JSON object.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// One JSON object around the rows of a list.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn json_list(key: &str, rows: &impl Serialize) -> io::Result<()> {
    json(&serde_json::json!({ "schema": 1, key: rows }))
}

/// A table without lines, which other tools can cut apart; the columns in `right` are numbers.
pub(crate) fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}
