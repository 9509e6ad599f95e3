//! `config`: sample, check, show, reload.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{SocketArgument, link, output, run::SettingsArguments};
use crate::{
    config::{Sources, load, sample},
    control::Request,
};

/// Flags of `prewarm config`.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prints a file with every key, its meaning and its default.
    Sample,
    /// Says whether a file can be used.
    Check {
        /// The file [default: the one that the daemon would read]
        file: Option<PathBuf>,
        /// Sets one key, over file and environment.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Prints the settings as they are with file, environment and flags together.
    Show {
        #[command(flatten)]
        settings: SettingsArguments,
        /// One JSON object instead of TOML.
        #[arg(long)]
        json: bool,
    },
    /// Makes the running daemon read its configuration again.
    Reload {
        #[command(flatten)]
        socket: SocketArgument,
    },
}

impl ConfigArguments {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Sample => output::line(sample().trim_end())?,
            Verb::Check { file, set } => {
                load(&Sources { file, set })?;
                output::line("the configuration is fine")?;
            }
            Verb::Show { settings, json } => {
                let config = load(&settings.sources())?;
                if json {
                    output::json(&serde_json::json!({ "schema": 1, "config": config }))?;
                } else {
                    output::line(toml::to_string(&config)?.trim_end())?;
                }
            }
            Verb::Reload { socket } => return link::done(&socket, Request::Reload),
        }
        Ok(ExitCode::SUCCESS)
    }
}
