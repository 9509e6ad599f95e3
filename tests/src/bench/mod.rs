//! Benchmarks: what each gives, and the report they share.
//!
//! Comes in: nothing; a bench makes its own load. Goes out: [`Row`]s, every case with its baselines as further
//! subjects. Never here: printing; `cargo xtask bench` does that.

pub mod xdp;

use std::fs;

use serde::Serialize;

/// One measured number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was done.
    pub case: String,
    /// Who did it: `prewarm`, or the name of a baseline measured beside it.
    pub subject: String,
    /// What was measured.
    pub metric: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

/// What every bench prints as JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of this form.
    pub schema: u32,
    /// The bench's name.
    pub bench: String,
    /// Where it ran.
    pub machine: Machine,
    /// The numbers.
    pub results: Vec<Row>,
}

/// The machine a bench ran on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's model.
    pub processor: String,
    /// How many processors there are.
    pub processors: usize,
    /// The kernel's release.
    pub kernel: String,
}

impl Report {
    /// A report of this machine.
    #[must_use]
    pub fn new(bench: &str, results: Vec<Row>) -> Self {
        Self { schema: 1, bench: bench.to_owned(), machine: Machine::this(), results }
    }
}

impl Machine {
    /// The one that this runs on.
    #[must_use]
    pub fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model.to_owned()))
            .unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        Self { processor, processors: std::thread::available_parallelism().map_or(1, usize::from), kernel }
    }
}
