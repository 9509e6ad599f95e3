//! `origins`: what is known of those that content comes from.

use std::process::ExitCode;

use anyhow::bail;

use super::{ListArguments, exit::UNHEALTHY, output};
use crate::control::{Answer, ListLimit, Request};

const HEADER: [&str; 12] = [
    "ORIGIN",
    "HANDSHAKE ms",
    "RTT ms",
    "IDLE s",
    "HITS %",
    "LEASED",
    "MISSED",
    "USED",
    "WASTED",
    "SAVED ms",
    "MISSED ms",
    "SEEN s",
];

pub(super) fn run(arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    let Answer::Origins(origins) = arguments.socket.ask(Request::Origins(ListLimit { limit: arguments.limit }))? else {
        bail!("the daemon answered something else than origins");
    };
    if arguments.json {
        output::json_list("origins", &origins)?;
    } else {
        let mut table = output::table(&HEADER, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        for origin in &origins {
            table.add_row([
                origin.origin.clone(),
                number(origin.handshake_ms),
                number(origin.round_trip_ms),
                number(origin.idle_seconds),
                number(origin.hit_rate),
                origin.leased.to_string(),
                origin.missed.to_string(),
                origin.used.to_string(),
                origin.wasted.to_string(),
                format!("{:.0}", origin.saved_ms),
                format!("{:.0}", origin.would_have_saved_ms),
                number(origin.last_seen_seconds),
            ]);
        }
        output::line(&table.to_string())?;
    }
    Ok(ExitCode::from(if origins.is_empty() { UNHEALTHY } else { super::FINE }))
}
