//! `prewarm replay`: recorded traffic through what the daemon decides with, and what that would have saved.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{exit, output, run::SettingsArguments};
use crate::{
    config::{Config, load},
    kernel::Key,
    observe::recording::{Format, Merged, Recording, url},
    replay::{
        Assumed, Curved, Curves, Player, Share, Tally,
        report::{Report, Row},
        rows, svg,
    },
    telemetry::Clock,
};

/// Flags of `prewarm replay`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ReplayArguments {
    /// The recordings; several are merged by time.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The format of all files [default: seen by their content]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Milliseconds that a look-up or a handshake takes where the recording doesn't show it, 0.1 to 60000 [default:
    /// policy.assumed_lookup_ms and policy.assumed_round_trip_ms]
    #[arg(long, value_name = "MS", value_parser = millis)]
    rtt: Option<Duration>,
    /// Seconds that an answer is kept where the recording doesn't show it, 1 to 86400.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    ttl: u64,
    /// Takes each question for a connection to this port, in recordings that show no connections.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Names listed at most, by the time saved.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Draws coverage against cost, prewarm's predictor beside simple ones, and a reliability diagram; takes several
    /// times as long.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// What the command does, at length.
pub(super) const ABOUT: &str = "\
Says what prewarm would have saved on recorded traffic.

Runs what the daemon decides with over recordings, in the order of their times: pcap and pcapng, Zeek's dns.log and \
ssl.log (columns or JSON lines), HTTP archives (HAR), dnstap frame streams, and lines of time, client and name separated \
by tabs; each compressed with gzip or not. A world without prewarm and one with it stand side by side: a look-up and a \
handshake take what the recording shows that they took, and an answer is kept for the TTL that it shows. Every client \
counts as one of ours; all other guard rails and budgets are the daemon's.";

const EXAMPLES: &str = "Examples:
  prewarm replay capture.pcap
  prewarm replay dns.log.gz ssl.log.gz
  prewarm replay dns.log --plot coverage.svg
  prewarm replay trace.tsv --port 443 --rtt 40 --set policy.waste_budget=1.0

Exit codes: 0 fine, 1 no access was found, 2 bad input or usage.";

fn millis(text: &str) -> Result<Duration, String> {
    let millis: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=60_000.0).contains(&millis) {
        Ok(Duration::from_secs_f64(millis / 1000.0))
    } else {
        Err("must be from 0.1 to 60000".to_owned())
    }
}

/// What a replay came to.
struct Played {
    tally: Tally,
    curved: Option<Curved>,
    began: Option<Duration>,
    events: u64,
    took: Duration,
}

impl ReplayArguments {
    /// Runs the command.
    ///
    /// # Errors
    /// When the settings or a recording are bad.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = load(&self.settings.sources())?;
        // The IDs are of this run alone.
        let key = Key::from_secret(&[0; 32]);
        let read = Arc::new(AtomicU64::new(0));
        let mut size = 0;
        let mut recordings = Vec::new();
        for path in &self.files {
            recordings.push(Recording::open(path, self.format, &key, &read)?);
            size += std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        }
        let mut merged = Merged::new(recordings);
        let played = self.play(&config, &mut merged, &read, size)?;
        self.notes(&merged)?;
        self.draw(&played)?;
        let Tally { accesses, .. } = played.tally;
        if self.json {
            output::json(&self.report(&played))?;
        } else {
            output::line(&self.shown(&merged, &played))?;
        }
        if accesses == 0 {
            note("no access of a name was found")?;
            return Ok(ExitCode::from(exit::UNHEALTHY));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn assumed(&self, config: &Config) -> Assumed {
        let default = |millis: f64| Duration::from_secs_f64(millis / 1000.0);
        Assumed {
            look_up: self.rtt.unwrap_or_else(|| default(config.policy.assumed_lookup_ms)),
            round_trip: self.rtt.unwrap_or_else(|| default(config.policy.assumed_round_trip_ms)),
            ttl: Duration::from_secs(self.ttl),
            port: self.port,
        }
    }

    fn play(&self, config: &Config, merged: &mut Merged, read: &AtomicU64, size: u64) -> anyhow::Result<Played> {
        // Shows itself on a terminal alone.
        let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {msg}, {eta} left");
        bar.set_style(style.context("the progress bar")?);
        let clock = Clock::new();
        let started = clock.now();
        let mut player = Player::new(config, self.assumed(config));
        let mut curves = self.plot.as_ref().map(|_| Curves::new(&config.predict, self.ttl as f64));
        let mut events = 0;
        while let Some((observation, shows)) = merged.next_observation()? {
            let accessed = player.play(observation, shows);
            if let (Some(curves), Some(accessed)) = (&mut curves, accessed) {
                curves.access(accessed);
            }
            events += 1;
            if events % 4096 == 0 {
                bar.set_position(read.load(Ordering::Relaxed));
                bar.set_message(format!("{} events", number(events)));
            }
        }
        bar.finish_and_clear();
        let curved = curves.map(Curves::finish);
        Ok(Played { tally: player.finish(), curved, began: merged.began(), events, took: clock.now().since(started) })
    }

    /// Tells what was left out.
    fn notes(&self, merged: &Merged) -> anyhow::Result<()> {
        for (recording, _, reasons) in merged.recordings() {
            for (reason, count, first) in reasons {
                let place = if first == 0 { String::new() } else { format!(" (the first at {first})") };
                let path = recording.path().display();
                note(&format!("{path}: left out: {} {}{place}", number(count), reason.text()))?;
            }
        }
        Ok(())
    }

    /// Draws the plot, if one is asked for.
    fn draw(&self, played: &Played) -> anyhow::Result<()> {
        let (Some(path), Some(curved)) = (&self.plot, &played.curved) else { return Ok(()) };
        std::fs::write(path, svg(&case(&self.files), curved)?)
            .with_context(|| format!("{}: could not write the plot", path.display()))
    }

    fn report(&self, played: &Played) -> Report {
        let mut report = Report::new("replay");
        let case = case(&self.files);
        report.results = rows(&case, &played.tally);
        report.results.extend(played.curved.iter().flat_map(|curved| curved.rows(&case)));
        let rate = played.events as f64 / played.took.as_secs_f64().max(1e-9);
        report.results.push(Row::new(&case, "prewarm", "events_per_second", rate, "1/s"));
        report
    }

    fn shown(&self, merged: &Merged, played: &Played) -> String {
        let tally = &played.tally;
        let mut text = String::new();
        let mut say = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        for (recording, count, _) in merged.recordings() {
            let path = recording.path().display();
            say(&format!("{path} ({}): {} observations", format_name(recording.format()), number(count)));
        }
        let traffic = &tally.traffic;
        let began = played.began.map(|began| format!(" from {}", date(began))).unwrap_or_default();
        let count = |count: u64, what: &str| (count > 0).then(|| format!("{} {what}", number(count)));
        let events = [
            count(traffic.questions, "questions"),
            count(traffic.folded, "of them part of another's event"),
            count(traffic.other_types, "of types that lead to no connection"),
            count(traffic.answers, "answers"),
            count(traffic.connections, "connections"),
            count(traffic.nameless, "of them to addresses without a name"),
            count(traffic.named, "connections by name"),
        ];
        say(&format!(
            "{}{began}, {} clients, {} names: {}",
            span(traffic.span()),
            number(traffic.clients() as u64),
            number(traffic.names() as u64),
            events.into_iter().flatten().collect::<Vec<_>>().join(", ")
        ));
        say("");
        say(&worlds(tally));
        say("");
        let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        let ahead = &tally.look_ups;
        say(&format!(
            "{} look-ups ahead: {} used ({:.1} % of them within 10 s, {:.1} % within 60 s), {} asked for while under \
             way, {} in vain",
            number(ahead.made),
            number(ahead.used),
            share(ahead.used_10, ahead.made),
            share(ahead.used_60, ahead.made),
            number(ahead.late),
            number(ahead.in_vain()),
        ));
        let leases = &tally.leases;
        say(&format!(
            "{} connections opened ahead: {} used, {} for nothing",
            number(leases.opened),
            number(leases.used),
            number(leases.in_vain())
        ));
        let best = tally.best(self.top);
        if !best.is_empty() {
            say("");
            say(&names(&best));
        }
        let rate = played.events as f64 / played.took.as_secs_f64().max(1e-9);
        text.push_str(&format!(
            "\n{} events in {}, {} a second",
            number(played.events),
            span(played.took),
            number(rate as u64)
        ));
        text
    }
}

/// The two worlds side by side.
fn worlds(tally: &Tally) -> String {
    let mut table = output::table(&["", "WITHOUT", "WITH PREWARM", ""], &[1, 2, 3]);
    let percent = |cold: f64, warm: f64, what: &str| {
        if cold > 0.0 { format!("{:.1} % {what}", 100.0 * (cold - warm) / cold) } else { String::new() }
    };
    let Tally { names_waited: names, connections_waited: connections, .. } = tally;
    let misses = (tally.misses_cold as f64, tally.misses_warm as f64);
    table.add_row([
        format!("names waited for (of {})", number(tally.accesses)),
        number(tally.misses_cold),
        number(tally.misses_warm),
        percent(misses.0, misses.1, "avoided"),
    ]);
    table.add_row(["waiting for them".into(), ms(names.cold), ms(names.warm), format!("{} saved", ms(names.saved()))]);
    if tally.leasable > 0 {
        let cold = tally.leasable;
        let warm = cold - tally.leases.used;
        table.add_row([
            "connections waited for".to_owned(),
            number(cold),
            number(warm),
            percent(cold as f64, warm as f64, "avoided"),
        ]);
        let saved = format!("{} saved", ms(connections.saved()));
        table.add_row(["waiting for them".into(), ms(connections.cold), ms(connections.warm), saved]);
    }
    trimmed(&table.to_string())
}

/// The names that saved most.
fn names(best: &[&Share]) -> String {
    let header = ["NAME", "ACCESSES", "WAITED FOR WITHOUT", "WITH", "LEASES USED", "SAVED"];
    let mut table = output::table(&header, &[1, 2, 3, 4, 5]);
    for share in best {
        table.add_row([
            url(&share.name).unwrap_or_else(|| share.name.to_string()),
            number(share.accesses),
            number(share.misses[0]),
            number(share.misses[1]),
            number(share.leases_used),
            ms(share.saved()),
        ]);
    }
    trimmed(&table.to_string())
}

fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn note(text: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{text}")
}

const fn format_name(format: Format) -> &'static str {
    match format {
        Format::Trace => "trace",
        Format::Zeek => "Zeek",
        Format::Pcap => "capture",
        Format::Har => "HAR",
        Format::Dnstap => "dnstap",
    }
}

/// The case's name: the first file's, without its endings.
fn case(files: &[PathBuf]) -> String {
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split('.').next().unwrap_or_default().to_owned()
    };
    let mut seen = BTreeMap::new();
    for (order, path) in files.iter().enumerate() {
        seen.entry(name(path)).or_insert(order);
    }
    let mut names: Vec<_> = seen.into_iter().collect();
    names.sort_by_key(|(_, order)| *order);
    names.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join("+")
}

/// With commas between thousands.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds, in the unit that suits.
fn ms(millis: f64) -> String {
    if millis.abs() < 10_000.0 { format!("{millis:.1} ms") } else { format!("{:.1} s", millis / 1000.0) }
}

/// A span for a person.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Day and time of day, UTC.
fn date(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs() as i64;
    // The calendar's date of a number of days, years counted from March (Hinnant).
    let z = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (seconds % 86_400 / 3600, seconds % 3600 / 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}
