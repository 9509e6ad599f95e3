//! The command line, one file a command.
//!
//! Comes in: arguments. Goes out: data on standard output, everything else on standard error, an exit code. Never
//! here: a decision of the daemon's; most commands only ask it over the control socket.

mod answers;
mod config;
mod dissect;
mod doctor;
mod documents;
pub mod exec;
mod exit;
mod explain;
mod lease;
mod leases;
mod link;
mod names;
mod origins;
mod output;
mod predictions;
mod replay;
mod run;
mod stats;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub use exit::{FINE, MissingPrivilege, code_of, complain};
pub use run::RunArguments;

use crate::{
    config::ControlSettings,
    control::{Answer, Client, Request},
};

/// Names, connections and content made ready before they are asked for.
///
/// prewarm sees the DNS questions that pass a network interface from inside the kernel, learns what is asked for next,
/// and makes it ready: the name resolved, the connection open, the cache hot.
#[derive(Debug, Parser)]
#[command(name = "prewarm", version, max_term_width = 100, after_long_help = AFTER_HELP)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 fine, 1 unhealthy or nothing found, 2 error, bad input or usage, 77 missing \
                          privilege, 130 interrupted. Data goes to standard output, logs to standard error.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the daemon.
    Run(RunArguments),
    /// Runs a program whose connections are taken from the leases that wait for them.
    Exec(exec::Args),
    /// Takes a connection that waits, for a program that is given it open.
    Lease(lease::LeaseArguments),
    /// Shows the numbers.
    Stats(stats::StatsArguments),
    /// Lists the connections that are held.
    Leases(ListArguments),
    /// Lists the answers that the kernel gives in the place of a server on this host, and lets go of them.
    Answers(answers::AnswersArguments),
    /// Lists the names that are known.
    Names(ListArguments),
    /// Lists the origins that programs connect to: round trips, and what leases saved or would have saved.
    Origins(ListArguments),
    /// Lists what is expected, by value and deadline.
    Predictions(ListArguments),
    /// Says why something is expected, or not: the contexts that speak for it, the counts, the probability, the time.
    Explain(explain::ExplainArguments),
    /// Attaches the running daemon to one more interface.
    Attach(link::LinkArguments),
    /// Detaches the running daemon from an interface.
    Detach(link::LinkArguments),
    /// Says what the kernel programs see in a capture, question by question.
    Dissect(dissect::Dissect),
    /// Says what prewarm would have saved on recorded traffic.
    #[command(long_about = replay::ABOUT)]
    Replay(replay::ReplayArguments),
    /// Checks this machine, and says how to mend what is amiss.
    Doctor(doctor::DoctorArguments),
    /// Shows and checks settings.
    Config(config::ConfigArguments),
    /// Prints the completions of a shell.
    Completions(documents::CompletionsArguments),
    /// Prints the manual page, or writes those of all commands.
    Man(documents::ManArguments),
}

impl Command {
    /// Carries out every command but `run`, whose parts are wired elsewhere.
    ///
    /// # Errors
    /// With what went wrong, for a person; [`code_of`] gives the exit code.
    pub fn carry_out(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(_) => anyhow::bail!("the daemon is started by the binary"),
            Self::Exec(arguments) => Ok(exec::run(arguments)),
            Self::Lease(arguments) => arguments.run(),
            Self::Stats(arguments) => arguments.run(),
            Self::Leases(arguments) => leases::run(&arguments),
            Self::Answers(arguments) => arguments.run(),
            Self::Names(arguments) => names::run(&arguments),
            Self::Origins(arguments) => origins::run(&arguments),
            Self::Predictions(arguments) => predictions::run(&arguments),
            Self::Explain(arguments) => arguments.run(),
            Self::Attach(arguments) => arguments.attach(),
            Self::Detach(arguments) => arguments.detach(),
            Self::Dissect(arguments) => Ok(arguments.run(&mut io::stdout().lock(), &mut io::stderr().lock())),
            Self::Replay(arguments) => arguments.run(),
            Self::Doctor(arguments) => arguments.run(),
            Self::Config(arguments) => arguments.run(),
            Self::Completions(arguments) => arguments.run(),
            Self::Man(arguments) => arguments.run(),
        }
    }
}

/// Where the daemon is asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct SocketArgument {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", env = "PREWARM_SOCKET", default_value_os_t = ControlSettings::default().socket)]
    socket: PathBuf,
}

impl SocketArgument {
    fn ask(&self, request: Request) -> anyhow::Result<Answer> {
        Ok(Client::connect(&self.socket)?.ask(request)?)
    }
}

/// Flags of the commands that list.
#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    socket: SocketArgument,
    /// At most so many rows.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}
