//! What a kernel said of the programs, and how that is shown. `xtask` reads the same file.
//!
//! Comes in: what was found, program by program. Goes out: a table of kernels and programs, and what is wrong. Never
//! here: the kernel.

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// Instructions that the verifier may have to walk for a program: a fifth of the kernel's own limit, because older
/// kernels give up where newer ones still manage.
pub const BUDGET: u32 = 200_000;

/// Characters of a reason that are shown beside a table.
const MOST: usize = 240;

/// What one kernel said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
    /// The programs, in the order in which they are shown.
    pub programs: Vec<Program>,
    /// Test programs that were run there besides; none failed where this is empty.
    #[serde(default)]
    pub tests: Vec<Check>,
}

/// A program on one kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// Its name in the object.
    pub name: String,
    /// What kind it is.
    pub kind: String,
    /// Instructions that the verifier walked; none when it was refused, or the kernel doesn't count them.
    pub walked: Option<u32>,
    /// Fewer than this are not the whole program.
    pub least: u32,
    /// Bytes of native code.
    pub native: Option<u32>,
    /// Why the verifier refused it.
    pub refused: Option<String>,
    /// What was tried with it.
    pub checks: Vec<Check>,
}

/// Something that was tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// What must be so.
    pub what: String,
    /// How it was not.
    pub failed: Option<String>,
}

impl Program {
    fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(reason) = &self.refused {
            // What was tried with it failed for this reason.
            return vec![format!("refused: {}", brief(reason))];
        }
        if let Some(walked) = self.walked {
            if walked > BUDGET {
                all.push(format!("{walked} instructions, the budget is {BUDGET}"));
            }
            if walked < self.least {
                all.push(format!("{walked} instructions cannot be the whole program"));
            }
        }
        all.extend(complaints(&self.checks));
        all
    }

    fn cell(&self) -> String {
        if self.refused.is_some() {
            return "refused".to_owned();
        }
        let walked = self.walked.map_or_else(|| "not counted".to_owned(), grouped);
        let (tried, failed) = (self.checks.len(), complaints(&self.checks).len());
        let over = self.walked.is_some_and(|walked| walked > BUDGET || walked < self.least);
        match (failed, over) {
            (0, false) => format!("{walked} ok {tried}/{tried}"),
            (0, true) => format!("{walked} NOT {tried}/{tried}"),
            _ => format!("{walked} FAILED {failed}/{tried}"),
        }
    }
}

impl Report {
    /// All that is wrong, a line each; none when the kernel takes every program and each does its work.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let of = |name: &str, all: Vec<String>| -> Vec<String> {
            all.into_iter().map(|line| format!("{}: {name}: {line}", self.kernel)).collect()
        };
        let programs = self.programs.iter().flat_map(|program| of(&program.name, program.complaints()));
        programs.chain(of("tests", complaints(&self.tests))).collect()
    }
}

fn complaints(checks: &[Check]) -> Vec<String> {
    checks.iter().filter_map(|check| Some(format!("{}: {}", check.what, brief(check.failed.as_ref()?)))).collect()
}

/// The begin of a reason, on one line; all of it is in the JSON.
fn brief(reason: &str) -> String {
    let line: String = reason.lines().next().unwrap_or_default().chars().take(MOST).collect();
    if line.len() < reason.len() { line + " …" } else { line }
}

/// Kernels beside each other: of each program the instructions that its verifier walked and how many checks went well,
/// or that it was refused; what is wrong is listed below.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let kernels = reports.iter().map(|report| report.kernel.clone());
    table.set_header(["program".to_owned(), "kind".to_owned()].into_iter().chain(kernels));
    let mut names: Vec<(&str, &str)> = Vec::new();
    for program in reports.iter().flat_map(|report| &report.programs) {
        if !names.iter().any(|(name, _)| *name == program.name) {
            names.push((&program.name, &program.kind));
        }
    }
    for (name, kind) in names {
        let cell = |report: &Report| {
            report.programs.iter().find(|program| program.name == name).map_or_else(|| "-".to_owned(), Program::cell)
        };
        table.add_row([name.to_owned(), kind.to_owned()].into_iter().chain(reports.iter().map(cell)));
    }
    let mut tests: Vec<&str> = reports.iter().flat_map(|report| &report.tests).map(|test| &*test.what).collect();
    tests.sort_unstable();
    tests.dedup();
    for name in tests {
        let cell = |report: &Report| match report.tests.iter().find(|test| test.what == name) {
            None => "-".to_owned(),
            Some(Check { failed: None, .. }) => "passed".to_owned(),
            Some(_) => "FAILED".to_owned(),
        };
        table.add_row([name.to_owned(), "test".to_owned()].into_iter().chain(reports.iter().map(cell)));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = table.to_string();
    for line in reports.iter().flat_map(Report::complaints) {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

/// With a comma before every third digit from the right.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
