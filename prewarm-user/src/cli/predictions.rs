//! `predictions`: the queue of what is expected.

use std::process::ExitCode;

use anyhow::bail;

use super::{ListArguments, output};
use crate::control::{Answer, ListLimit, Request};

pub(super) fn run(arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    let request = Request::Predictions(ListLimit { limit: arguments.limit });
    let Answer::Predictions(predictions) = arguments.socket.ask(request)? else {
        bail!("the daemon answered something else than predictions");
    };
    if arguments.json {
        output::json_list("predictions", &predictions)?;
        return Ok(ExitCode::SUCCESS);
    }
    let header = ["ACTION", "TARGET", "P", "VALUE ms", "STARTS IN ms", "DEADLINE IN ms"];
    let mut table = output::table(&header, &[2, 3, 4, 5]);
    for prediction in &predictions {
        table.add_row([
            prediction.action.clone(),
            prediction.target.clone(),
            format!("{:.2}", prediction.probability),
            format!("{:.1}", prediction.value_ms),
            format!("{:.0}", prediction.starts_in_ms),
            format!("{:.0}", prediction.deadline_in_ms),
        ]);
    }
    output::line(&table.to_string())?;
    // An empty queue is the usual state of a quiet host.
    Ok(ExitCode::SUCCESS)
}
