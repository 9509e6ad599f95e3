//! The JSON that `prewarm replay`, every bench and the lab print: one object, one row a number.

use std::fs;

use serde::{Deserialize, Serialize};

/// Of the form below.
const SCHEMA: u32 = 1;

/// All that was measured in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of this form.
    pub schema: u32,
    /// Which bench.
    pub bench: String,
    /// Where it ran.
    pub machine: Machine,
    /// What came out.
    pub results: Vec<Row>,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub case: String,
    /// `prewarm`, or what it is compared with.
    pub subject: String,
    /// What was measured; the unit of a time is part of the name.
    pub metric: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

/// The machine a number was measured on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// Processors that may be used.
    pub cpus: usize,
}

impl Report {
    /// A report without rows, of this machine.
    #[must_use]
    pub fn new(bench: &str) -> Self {
        Self { schema: SCHEMA, bench: bench.to_owned(), machine: Machine::here(), results: Vec::new() }
    }

    /// The value of a row, when there is one.
    #[must_use]
    pub fn value(&self, case: &str, subject: &str, metric: &str) -> Option<f64> {
        let row =
            self.results.iter().find(|row| (&*row.case, &*row.subject, &*row.metric) == (case, subject, metric))?;
        Some(row.value)
    }
}

impl Row {
    /// A row.
    #[must_use]
    pub fn new(case: &str, subject: &str, metric: &str, value: f64, unit: &str) -> Self {
        Self { case: case.into(), subject: subject.into(), metric: metric.into(), value, unit: unit.into() }
    }
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").map(first_line).unwrap_or_default(),
            cpu: model.map(|(_, model)| model.to_owned()).unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}
