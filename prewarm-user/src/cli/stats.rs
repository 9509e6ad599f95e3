//! `stats`: the numbers.

use std::{io::IsTerminal as _, process::ExitCode, thread, time::Duration};

use anyhow::bail;
use clap::Args;
use prewarm_ebpf::answers::AnswerCounter;

use super::{SocketArgument, exit::UNHEALTHY, output};
use crate::control::{Answer, LatencyView, Request, Stats};

/// Flags of `prewarm stats`.
#[derive(Debug, Args)]
pub struct StatsArguments {
    #[command(flatten)]
    socket: SocketArgument,
    /// Shows them again every so many seconds until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    watch: Option<Duration>,
    /// One JSON object instead of a table; with --watch, one a line.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("take 0.1 to 3600 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl StatsArguments {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        loop {
            let Answer::Stats(stats) = self.socket.ask(Request::Stats)? else {
                bail!("the daemon answered something else than stats");
            };
            match (self.json, self.watch) {
                (true, None) => output::json(&stats)?,
                (true, Some(_)) => output::line(&serde_json::to_string(&stats)?)?,
                (false, watch) => {
                    if watch.is_some() && std::io::stdout().is_terminal() {
                        // Home, and clear to the end: less flicker than clearing all.
                        output::line("\x1b[H\x1b[J")?;
                    }
                    output::line(&shown(&stats))?;
                }
            }
            match self.watch {
                Some(pause) => thread::sleep(pause),
                None if stats.health.is_empty() => return Ok(ExitCode::SUCCESS),
                None => return Ok(ExitCode::from(UNHEALTHY)),
            }
        }
    }
}

/// The table for people.
fn shown(stats: &Stats) -> String {
    let mut table = output::table(&["", "", ""], &[1]);
    let mut row = |what: &str, value: String, note: String| {
        table.add_row([what.to_owned(), value, note]);
    };
    let latency = |view: &LatencyView, unit: &str| {
        format!("p50 {:.1} {unit}, p90 {:.1} {unit}, p99 {:.1} {unit}", view.p50, view.p90, view.p99)
    };
    row("up", format!("{:.0} s", stats.uptime_seconds), format!("prewarm {}", stats.version));
    for attachment in &stats.attachments {
        let reason = attachment.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let hooks = format!("XDP {}{reason}, egress {}", attachment.xdp, attachment.egress);
        row("attached", attachment.interface.clone(), hooks);
    }
    row("packets in", stats.packets.ingress.to_string(), String::new());
    row("packets out", stats.packets.egress.to_string(), String::new());
    row("questions", stats.questions.to_string(), String::new());
    row("answers", stats.answers.to_string(), String::new());
    row("events", stats.events.to_string(), latency(&stats.ring_to_intent_us, "µs to a decision"));
    for (reason, count) in stats.drops.iter().filter(|(_, count)| **count > 0) {
        row("passed, unread", count.to_string(), reason.replace('_', " "));
    }
    for (source, counts) in &stats.sources {
        let rest = [
            (counts.upstream, "of the server's own"),
            (counts.own, "of prewarm's own"),
            (counts.ignored, "left out"),
            (counts.unread, "unread"),
            (counts.dropped, "dropped"),
            (counts.broken, "writers broke off"),
            (counts.refused, "writers turned away"),
        ];
        let rest = rest.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
        let feeds = if source.starts_with("dnstap") { "writers" } else { "libraries" };
        let note =
            format!("{source}: {} {feeds}, {} answers{}", counts.feeds, counts.answers, rest.collect::<String>());
        row("names told", counts.questions.to_string(), note);
    }
    let predictions = &stats.predictions;
    row(
        "predictions",
        predictions.made.to_string(),
        format!(
            "{} used, {} wasted, {} late, {} failed, {} refused, {} pending",
            predictions.used,
            predictions.wasted,
            predictions.late,
            predictions.failed,
            predictions.refused,
            predictions.pending
        ),
    );
    let names = &stats.names;
    row(
        "names known",
        names.known.to_string(),
        format!("{:.1} MiB of tables", stats.memory_bytes as f64 / 1_048_576.0),
    );
    row("names warmed", names.warmed.to_string(), format!("{} used, {} failed", names.used, names.failed));
    let connects = &stats.connects;
    row(
        "connections seen",
        (connects.named + connects.blind).to_string(),
        match &connects.reason {
            None => format!("{:.1} % to addresses without a name", stats.blind_share),
            Some(reason) => format!("of programs that ask only: {reason}"),
        },
    );
    let encrypted = &stats.encrypted;
    if encrypted.is_any() {
        row(
            "encrypted DNS",
            (encrypted.connections.max(encrypted.egress_connections) + encrypted.ingress_connections).to_string(),
            format!(
                "connections to port 853 (this host's {}, seen arriving {}, leaving {}), QUIC packets {} in, {} out; \
                 DNS over HTTPS can't be told from other HTTPS",
                encrypted.connections,
                encrypted.ingress_connections,
                encrypted.egress_connections,
                encrypted.ingress_packets,
                encrypted.egress_packets
            ),
        );
    }
    let leases = &stats.leases;
    row(
        "leases opened",
        leases.opened.to_string(),
        format!(
            "{} ready, {} taken ({} empty), {} expired, {} dead, {} failed, {} refused, {} missed",
            leases.ready,
            leases.taken,
            leases.empty,
            leases.expired,
            leases.dead,
            leases.failed,
            leases.refused,
            leases.missed
        ),
    );
    for (way, counters) in stats.handover.iter().filter(|(_, counters)| counters.taken + counters.missed > 0) {
        row(
            "handed out",
            counters.taken.to_string(),
            format!(
                "by {way}; {} missed, {} replayed, {} failed, {:.1} MB",
                counters.missed,
                counters.replayed,
                counters.failed,
                counters.bytes as f64 / 1e6
            ),
        );
    }
    if let Some(given) = &stats.given {
        for server in &given.servers {
            let reason = server.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            row("answers of", server.server.clone(), format!("at {}: {}{reason}", server.interface, server.mode));
        }
        let note = format!(
            "{} held; {} filled, {} expected, {} refreshed, {} full, {} doubted, {} by client",
            given.held,
            given.filled,
            given.expected,
            given.refreshed,
            given.full,
            given.doubted,
            given.by_client.len()
        );
        row("answered in the kernel", given.answered.to_string(), note);
        let reasons = AnswerCounter::ALL.iter().filter(|counter| counter.is_reason());
        for (counter, count) in reasons.filter_map(|counter| Some((counter, given.kernel.get(counter.name())?))) {
            if *count > 0 {
                row("left to the server", count.to_string(), counter.name().replace('_', " "));
            }
        }
    }
    row("ring to dial", stats.ring_to_dial_us.count.to_string(), latency(&stats.ring_to_dial_us, "µs"));
    row(
        "warms sent",
        stats.warms.sent.to_string(),
        format!("{} used, {} failed", stats.warms.used, stats.warms.failed),
    );
    row("saved", format!("{:.0} ms", stats.saved_ms.total), latency(&stats.saved_ms, "ms"));
    let mut text = table.to_string();
    for complaint in &stats.health {
        text.push_str("\nunhealthy: ");
        text.push_str(complaint);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_what_is_amiss() {
        let stats = Stats { health: vec!["XDP is off on eth0".to_owned()], ..Stats::default() };
        assert!(shown(&stats).ends_with("unhealthy: XDP is off on eth0"));
        assert!(!shown(&Stats::default()).contains("unhealthy"));
    }

    #[test]
    fn watching_takes_sensible_pauses() {
        assert!(seconds("0").is_err() && seconds("x").is_err() && seconds("NaN").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
    }
}
