//! `names`: what is known of names.

use std::process::ExitCode;

use anyhow::bail;

use super::{ListArguments, exit::UNHEALTHY, output};
use crate::control::{Answer, ListLimit, Request};

pub(super) fn run(arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    let Answer::Names(names) = arguments.socket.ask(Request::Names(ListLimit { limit: arguments.limit }))? else {
        bail!("the daemon answered something else than names");
    };
    if arguments.json {
        output::json_list("names", &names)?;
    } else {
        let mut table = output::table(&["NAME", "ADDRESSES", "TTL s", "PORTS", "ASKED", "IDLE s"], &[2, 4, 5]);
        for name in &names {
            let join = |texts: Vec<String>| if texts.is_empty() { "-".to_owned() } else { texts.join(",") };
            table.add_row([
                name.name.clone(),
                join(name.addresses.iter().map(ToString::to_string).collect()),
                format!("{:.0}", name.ttl_seconds),
                join(name.ports.iter().map(ToString::to_string).collect()),
                name.asked.to_string(),
                format!("{:.0}", name.idle_seconds),
            ]);
        }
        output::line(&table.to_string())?;
    }
    Ok(ExitCode::from(if names.is_empty() { UNHEALTHY } else { super::FINE }))
}
