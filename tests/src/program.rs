//! The harness' own programs, which run in namespaces, in cgroups and under `prewarm exec`: built beside whatever runs
//! this.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Finds a binary of this package: in the folder of the running one, or, from a test's `deps`, in the one above.
///
/// # Errors
/// When it wasn't built.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = env::current_exe().context("the path of the running program")?;
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built\nhint: cargo build --package prewarm-tests --bin {name}"))
}
