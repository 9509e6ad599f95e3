//! `answers`: what the kernel answers, and letting go of it.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::{SocketArgument, exit::UNHEALTHY, output};
use crate::{
    control::{Answer, FlushView, ListLimit, Request},
    model::Name,
};

/// Flags of `prewarm answers`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AnswersArguments {
    #[command(subcommand)]
    command: Option<AnswersCommand>,
    #[command(flatten)]
    list: super::ListArguments,
}

#[derive(Debug, Subcommand)]
enum AnswersCommand {
    /// Lists the answers that are held, the most used first.
    List(super::ListArguments),
    /// Lets go of answers, so that the server is asked again.
    Flush(FlushArguments),
}

#[derive(Debug, Args)]
struct FlushArguments {
    #[command(flatten)]
    socket: SocketArgument,
    /// The name.
    #[arg(required_unless_present_any = ["all", "zone"], conflicts_with_all = ["all", "zone"])]
    name: Option<Name>,
    /// A zone with all names in it.
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    zone: Option<Name>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

impl AnswersArguments {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.command {
            None => list(&self.list),
            Some(AnswersCommand::List(arguments)) => list(arguments),
            Some(AnswersCommand::Flush(arguments)) => flush(arguments),
        }
    }
}

fn list(arguments: &super::ListArguments) -> anyhow::Result<ExitCode> {
    let request = Request::Answers(ListLimit { limit: arguments.limit });
    let Answer::Answers(answers) = arguments.socket.ask(request)? else {
        bail!("the daemon answered something else than answers");
    };
    if arguments.json {
        output::json_list("answers", &answers)?;
    } else {
        let header = ["NAME", "TYPE", "KIND", "SERVER", "INTERFACE", "SAYS", "TTL s", "HITS"];
        let mut table = output::table(&header, &[6, 7]);
        for answer in &answers {
            let says = match (&answer.addresses[..], &answer.rcode[..]) {
                ([], "NOERROR") if answer.records[0] == 0 => "no data".to_owned(),
                ([], "NOERROR") => format!("{} records", answer.records[0]),
                ([], rcode) => rcode.to_owned(),
                (addresses, _) => {
                    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    all.join(" ")
                }
            };
            table.add_row([
                answer.name.clone(),
                answer.qtype.clone(),
                answer.kind.clone(),
                answer.server.to_string(),
                answer.interface.clone(),
                says,
                format!("{:.0}", answer.ttl_seconds),
                answer.hits.to_string(),
            ]);
        }
        output::line(&table.to_string())?;
    }
    Ok(ExitCode::from(if answers.is_empty() { UNHEALTHY } else { super::FINE }))
}

fn flush(arguments: &FlushArguments) -> anyhow::Result<ExitCode> {
    let what = match (&arguments.name, &arguments.zone) {
        (Some(name), _) => FlushView::Name(name.to_string()),
        (None, Some(zone)) => FlushView::Zone(zone.to_string()),
        (None, None) => FlushView::All,
    };
    let Answer::Done(done) = arguments.socket.ask(Request::FlushAnswers(what))? else {
        bail!("the daemon answered something else than how many went");
    };
    output::line(&done)?;
    Ok(ExitCode::from(super::FINE))
}
