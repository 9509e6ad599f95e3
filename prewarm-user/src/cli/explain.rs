//! `explain`: why something is expected, or not.

use std::{fmt::Write as _, net::IpAddr, process::ExitCode};

use anyhow::bail;
use clap::Args;

use super::{SocketArgument, exit::UNHEALTHY, output};
use crate::control::{
    Answer, ExplainRequest, ExplanationView, FollowerView, ReasonView, Request, RhythmView, VoteView,
};

/// Flags of `prewarm explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The name in question: what speaks for it, what is done about it, and what follows it. Without one, all that is
    /// expected of the client.
    name: Option<String>,
    /// Whose accesses [default: the client that accessed something last]
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// As it stood after the client's last access but N-1; 1 is the last.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    last: Option<u16>,
    #[command(flatten)]
    socket: SocketArgument,
    /// At most so many candidates.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// The ends of the lag bins, as shown.
const LAGS: [&str; 8] = ["20ms", "0.1s", "0.3s", "1s", "3s", "10s", "30s", "60s"];

impl ExplainArguments {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let request = ExplainRequest {
            name: self.name.clone(),
            client: self.client,
            last: self.last.map(usize::from),
            limit: self.limit,
        };
        let Answer::Explanation(explanation) = self.socket.ask(Request::Explain(request))? else {
            bail!("the daemon answered something else than an explanation");
        };
        if self.json {
            let mut json = serde_json::to_value(&explanation)?;
            if let Some(fields) = json.as_object_mut() {
                fields.insert("schema".to_owned(), 1.into());
            }
            output::json(&json)?;
        } else {
            output::line(shown(&explanation, self.name.is_some()).trim_end())?;
        }
        // A name that the model never met, or a client of which nothing is expected.
        Ok(ExitCode::from(if explanation.candidates.is_empty() && explanation.followers.is_empty() {
            UNHEALTHY
        } else {
            super::FINE
        }))
    }
}

fn shown(explanation: &ExplanationView, one: bool) -> String {
    let mut text = String::new();
    let heard =
        explanation.burst.iter().take(8).map(|heard| format!("{} ({:.1} s ago)", heard.name, heard.age_seconds));
    let heard: Vec<_> = heard.collect();
    let heading = match explanation.client {
        Some(client) if heard.is_empty() => format!("{client} accessed nothing in the last minute\n"),
        Some(client) => format!("{client} accessed {}\n", heard.join(", ")),
        None => "Nobody accessed anything yet\n".to_owned(),
    };
    push(&mut text, &heading);
    if explanation.candidates.is_empty() {
        push(&mut text, "Nothing is expected of it.\n");
    }
    if one {
        for candidate in &explanation.candidates {
            push(&mut text, &reason(candidate));
        }
        push(&mut text, &followers(&explanation.followers));
    } else if !explanation.candidates.is_empty() {
        push(&mut text, &candidates(&explanation.candidates));
    }
    text
}

fn push(text: &mut String, more: &str) {
    text.push_str(more);
    text.push('\n');
}

/// One line a candidate.
fn candidates(candidates: &[ReasonView]) -> String {
    let header = ["NAME", "P", "WORTH", "IN", "BEST CONTEXT", "FOLLOWED", "DECISION"];
    let mut table = output::table(&header, &[1, 2]);
    for candidate in candidates {
        let best = candidate.votes.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
        table.add_row([
            candidate.name.clone(),
            format!("{:.2}", candidate.probability),
            format!("{:.2}", candidate.worth),
            times(candidate),
            best.map_or_else(|| "its own rhythm".to_owned(), context),
            best.map_or_else(String::new, |vote| format!("{} of {}", vote.hits, vote.trials)),
            decision(candidate),
        ]);
    }
    table.to_string()
}

/// How far a context speaks for a candidate; one that has seen little says little.
fn share(vote: &VoteView) -> f64 {
    f64::from(vote.hits) / f64::from(vote.trials + 1)
}

fn context(vote: &VoteView) -> String {
    let of = match vote.context.as_str() {
        "one-of-client" => ", this client",
        "two" => ", with the one before",
        "three" => ", with the two before",
        "other" => ", another client",
        _ => "",
    };
    format!("{}{of}, {:.1} s ago", vote.access, vote.age_seconds)
}

fn times(candidate: &ReasonView) -> String {
    let time = |ms: f64| if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1000.0) };
    format!("{} ({} to {})", time(candidate.expected_ms), time(candidate.earliest_ms), time(candidate.latest_ms))
}

fn decision(candidate: &ReasonView) -> String {
    if candidate.actions.is_empty() {
        return "its name is forgotten".to_owned();
    }
    let told = candidate.actions.iter().map(|action| format!("{}: {}", action.action, action.verdict));
    told.collect::<Vec<_>>().join("; ")
}

/// All that is known of one candidate.
fn reason(candidate: &ReasonView) -> String {
    let mut text = String::new();
    let proposed = if candidate.proposed { "" } else { ", not proposed: nothing speaks for it now" };
    push(
        &mut text,
        &format!(
            "{}\n  p {:.3} within the horizon ({:.3} before the correction), worth {:.3}, in {}{}{proposed}",
            candidate.name,
            candidate.probability,
            candidate.uncorrected,
            candidate.worth,
            times(candidate),
            if candidate.cold { "" } else { ", still at hand from its last access" },
        ),
    );
    push(&mut text, &format!("  {}", rhythm("accessed", &candidate.rhythm)));
    if let Some(habit) = &candidate.habit {
        push(&mut text, &format!("  {}", rhythm("by this client", habit)));
    }
    if !candidate.votes.is_empty() {
        let header: Vec<&str> = ["CONTEXT", "FOLLOWED", "LATELY", "DUE"].into_iter().chain(LAGS).collect();
        let mut table = output::table(&header, &(1..header.len()).collect::<Vec<_>>());
        for vote in &candidate.votes {
            let mut row = vec![
                context(vote),
                format!("{} of {}", vote.hits, vote.trials),
                vote.lately.clone(),
                format!("{:.1}", vote.due),
            ];
            row.extend(vote.lag_shares.iter().map(|&share| percent(share)));
            table.add_row(row);
        }
        push(&mut text, &format!("\n{table}"));
    }
    let mut effects = String::new();
    for effect in candidate.effects.iter().filter(|effect| effect.logit.abs() >= 0.005) {
        let comma = if effects.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _written = write!(effects, "{comma}{} {:+.2}", effect.of, effect.logit);
    }
    if !effects.is_empty() {
        push(&mut text, &format!("\nThe judgement turned on (logit): {effects}"));
    }
    if !candidate.actions.is_empty() {
        let header = ["ACTION", "TARGET", "SAVES ms", "COSTS ms", "VALUE ms", "DONE FROM WORTH", "DECISION"];
        let mut table = output::table(&header, &[2, 3, 4, 5]);
        for action in &candidate.actions {
            table.add_row([
                action.action.clone(),
                action.target.clone(),
                format!("{:.1}", action.saved_ms),
                format!("{:.1}", action.cost_ms),
                format!("{:.1}", action.value_ms),
                format!("{:.2}", action.break_even),
                action.verdict.clone(),
            ]);
        }
        push(&mut text, &format!("\n{table}"));
    }
    text
}

fn rhythm(what: &str, rhythm: &RhythmView) -> String {
    let gap = match (rhythm.mean_gap_seconds, rhythm.spread) {
        (Some(gap), Some(spread)) => format!(", every {gap:.1} s give or take a factor of {spread:.1}"),
        _ => String::new(),
    };
    format!("{what} {} times, last {:.1} s ago{gap}", rhythm.count, rhythm.age_seconds)
}

fn followers(followers: &[FollowerView]) -> String {
    if followers.is_empty() {
        return "Nothing followed it so far.".to_owned();
    }
    let header: Vec<&str> = ["FOLLOWED BY", "TIMES"].into_iter().chain(LAGS).collect();
    let mut table = output::table(&header, &(1..header.len()).collect::<Vec<_>>());
    for follower in followers {
        let mut row = vec![follower.name.clone(), format!("{} of {}", follower.hits, follower.trials)];
        row.extend(follower.lag_shares.iter().map(|&share| percent(share)));
        table.add_row(row);
    }
    table.to_string()
}

fn percent(share: f32) -> String {
    if share == 0.0 { "-".to_owned() } else { format!("{:.0} %", share * 100.0) }
}
