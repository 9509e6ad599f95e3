//! `dissect`: stands in until the kernel side lands.
use std::process::ExitCode;

/// Flags of `prewarm dissect`.
#[derive(Debug, clap::Args)]
pub struct DissectArguments {}

impl DissectArguments {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("not yet")
    }
}
