//! `completions` and `man`, made from the same definitions as the flags.

use std::{fs, io, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, output};

/// Flags of `prewarm completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

impl CompletionsArguments {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "prewarm", &mut script);
        io::Write::write_all(&mut io::stdout().lock(), &script)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Flags of `prewarm man`.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// Writes prewarm.1 and one page for each command into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl ManArguments {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let Some(folder) = &self.out else {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            io::Write::write_all(&mut io::stdout().lock(), &page)?;
            return Ok(ExitCode::SUCCESS);
        };
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        clap_mangen::generate_to(Arguments::command(), folder)
            .with_context(|| format!("could not write the pages into {}", folder.display()))?;
        output::line(&format!("written to {}", folder.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
