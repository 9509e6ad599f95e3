//! `leases`: the connections that are held.

use std::process::ExitCode;

use anyhow::bail;

use super::{ListArguments, exit::UNHEALTHY, output};
use crate::control::{Answer, ListLimit, Request};

pub(super) fn run(arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    let Answer::Leases(leases) = arguments.socket.ask(Request::Leases(ListLimit { limit: arguments.limit }))? else {
        bail!("the daemon answered something else than leases");
    };
    if arguments.json {
        output::json_list("leases", &leases)?;
    } else {
        let header = ["DESTINATION", "ORIGIN", "STATE", "AGE s", "EXPIRES IN s", "RTT ms", "REASON"];
        let mut table = output::table(&header, &[3, 4, 5]);
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        for lease in &leases {
            table.add_row([
                lease.destination.map_or_else(|| "-".to_owned(), |destination| destination.to_string()),
                lease.origin.clone(),
                lease.state.to_string(),
                format!("{:.1}", lease.age_seconds),
                number(lease.expires_in_seconds),
                number(lease.rtt_ms),
                lease.reason.to_string(),
            ]);
        }
        output::line(&table.to_string())?;
    }
    Ok(ExitCode::from(if leases.is_empty() { UNHEALTHY } else { super::FINE }))
}
