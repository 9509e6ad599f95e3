//! `prewarm replay` as a user meets it: the same figures from every format, plots, JSON, and messages for bad files.
#![expect(clippy::print_stdout, reason = "tests say there what they skip")]

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use prewarm_tests::{
    captures,
    recordings::{self, Connection},
    report::Report,
};

/// Runs the command; nothing where there is no binary.
fn replay(arguments: &[&str]) -> Option<Output> {
    let Some(binary) = std::env::var_os("PREWARM_BIN").map(PathBuf::from) else {
        println!("skipped: PREWARM_BIN is not set (cargo xtask test sets it)");
        return None;
    };
    // Neither the machine's configuration nor its environment shall decide what comes out.
    let mut command = Command::new(&binary);
    command.arg("replay").args(arguments).env_remove("PREWARM_CONFIG");
    Some(command.output().unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display())))
}

/// Runs it over one file with these bytes.
fn replay_bytes(name: &str, bytes: &[u8], more: &[&str]) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), name, bytes);
    replay(&[&[path.to_str().unwrap()], more].concat())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The figures of a run, by subject and metric.
fn figures(output: &Output) -> BTreeMap<(String, String), f64> {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report.schema, report.bench.as_str()), (1, "replay"));
    report.results.into_iter().map(|row| ((row.subject, row.metric), row.value)).collect()
}

fn figure(figures: &BTreeMap<(String, String), f64>, subject: &str, metric: &str) -> f64 {
    *figures
        .get(&(subject.to_owned(), metric.to_owned()))
        .unwrap_or_else(|| panic!("no {metric} of {subject} in {figures:?}"))
}

#[test]
fn every_format_gives_the_same_figures() {
    let visits = recordings::visits(60);
    let mut first = None;
    for (name, bytes) in [
        ("trace.tsv", recordings::trace(&visits)),
        ("dns.log", recordings::zeek(&visits)),
        ("dns.json", recordings::zeek_json(&visits)),
        ("visits.pcap", recordings::pcap(&visits, &[])),
        ("visits.dnstap", recordings::dnstap(&visits)),
        ("dns.log.gz", recordings::gzip(&recordings::zeek(&visits))),
    ] {
        // What a trace doesn't show is given as it is in the others.
        let Some(output) = replay_bytes(name, &bytes, &["--json", "--rtt", "40", "--ttl", "60"]) else { return };
        let mut figures = figures(&output);
        figures.remove(&("prewarm".to_owned(), "events_per_second".to_owned()));
        assert_eq!(first.get_or_insert_with(|| figures.clone()), &figures, "{name}");
    }
    let figures = first.unwrap();
    let of = |subject: &str, metric: &str| figure(&figures, subject, metric);
    // Three names a visit, none of which is kept until the next; each takes 40 ms.
    assert_eq!(
        (of("cold", "accesses"), of("cold", "name_misses"), of("cold", "names_waited_ms")),
        (180.0, 180.0, 7200.0)
    );
    let avoided = 180.0 - of("prewarm", "name_misses");
    assert!(avoided > 80.0, "only {avoided} of 120 followers");
    let saved = of("prewarm", "saved_ms");
    assert!((saved - 40.0 * avoided).abs() < 1e-6 || of("prewarm", "lookups_late") > 0.0, "{saved} for {avoided}");
    assert_eq!(of("prewarm", "lookups_used"), avoided);
    let made = of("prewarm", "lookups");
    assert_eq!(made, avoided + of("prewarm", "lookups_late") + of("prewarm", "lookups_in_vain"));
    assert!(of("prewarm", "precision_10") <= of("prewarm", "precision_60"));
}

fn connections(visits: &[recordings::LookUp]) -> Vec<Connection> {
    let connection = |(number, it): (usize, &recordings::LookUp)| Connection {
        at: it.at + it.took + Duration::from_micros(100),
        client: SocketAddrV4::new(it.client, 41_000 + number as u16),
        server: SocketAddrV4::new(it.address, 443),
        took: Duration::from_millis(25),
        says: recordings::greeting(&it.name).into_iter().collect(),
    };
    visits.iter().enumerate().map(connection).collect()
}

#[test]
fn connections_of_a_capture_are_leased() {
    let visits = recordings::visits(60);
    let capture = recordings::pcap(&visits, &connections(&visits));
    let Some(output) = replay_bytes("visits.pcap", &capture, &["--json"]) else { return };
    let figures = figures(&output);
    let of = |subject: &str, metric: &str| figure(&figures, subject, metric);
    assert_eq!(of("cold", "accesses"), 180.0, "names that TLS shows were asked for before");
    assert_eq!((of("cold", "connections"), of("cold", "connections_waited_ms")), (180.0, 4500.0));
    let used = of("prewarm", "leases_used");
    assert!(used > 80.0, "{used}");
    assert!((of("prewarm", "connections_saved_ms") - 25.0 * used).abs() < 1e-6);
    assert_eq!(of("prewarm", "connection_misses"), 180.0 - used);
    assert_eq!(of("prewarm", "leases"), used + of("prewarm", "leases_in_vain"));
}

#[test]
fn several_logs_are_one_traffic() {
    let visits = recordings::visits(40);
    let connections = connections(&visits);
    let named: Vec<_> = visits.iter().map(|it| &it.name[..]).zip(&connections).collect();
    let folder = tempfile::tempdir().unwrap();
    let dns = write(folder.path(), "dns.log", &recordings::zeek(&visits));
    let ssl = write(folder.path(), "ssl.log", &recordings::zeek_ssl(&named));
    let Some(output) = replay(&["--json", dns.to_str().unwrap(), ssl.to_str().unwrap()]) else { return };
    let figures = figures(&output);
    assert_eq!(figure(&figures, "cold", "accesses"), 120.0, "a name asked for and connected to is accessed once");
    assert_eq!(figure(&figures, "cold", "connections"), 120.0);
    assert!(figure(&figures, "prewarm", "leases_used") > 40.0);
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.results.iter().all(|row| row.case == "dns+ssl"));
    // Of the names of TLS servers alone, the same accesses.
    let alone = self::figures(&replay(&["--json", ssl.to_str().unwrap()]).unwrap());
    assert_eq!(figure(&alone, "cold", "accesses"), 120.0);
}

#[test]
fn an_archive_is_a_client() {
    let visits = recordings::visits(20);
    let Some(output) = replay_bytes("page.har", &recordings::har(&visits, 30), &["--json"]) else { return };
    let figures = figures(&output);
    assert_eq!(figure(&figures, "cold", "accesses"), 60.0);
    assert_eq!(figure(&figures, "cold", "names_waited_ms"), 2400.0);
    assert_eq!(figure(&figures, "cold", "connections_waited_ms"), 1800.0);
}

#[test]
fn settings_apply() {
    let trace = recordings::trace(&recordings::visits(40));
    let off = ["--json", "--port", "443", "--set", "policy.resolve=false", "--set", "policy.lease=false"];
    let Some(output) = replay_bytes("trace.tsv", &trace, &off) else { return };
    let off = figures(&output);
    assert_eq!((figure(&off, "prewarm", "lookups"), figure(&off, "prewarm", "leases")), (0.0, 0.0));
    assert_eq!(figure(&off, "prewarm", "name_misses"), figure(&off, "cold", "name_misses"));
    assert_eq!(figure(&off, "prewarm", "saved_ms"), 0.0);
    let on = figures(&replay_bytes("trace.tsv", &trace, &["--json", "--port", "443", "--rtt", "50"]).unwrap());
    assert!(figure(&on, "prewarm", "leases_used") > 40.0);
    assert_eq!(figure(&on, "cold", "connections_waited_ms"), 120.0 * 50.0);
    let bad = replay_bytes("trace.tsv", &trace, &["--set", "policy.nothing=1"]).unwrap();
    assert_eq!(bad.status.code(), Some(2));
}

#[test]
fn a_person_is_told_what_it_was() {
    let mut trace = recordings::trace(&recordings::visits(40));
    trace.extend(b"no line of a trace\n1704067300.0\t10.0.0.1\t\n");
    let Some(output) = replay_bytes("trace.tsv", &trace, &[]) else { return };
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    for part in ["2024-01-01 00:00 UTC", "2 clients", "3 names", "120 questions", "WITH PREWARM", "look-ups ahead"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    assert!(shown.contains("static.example.net") && shown.contains("in vain"), "{shown}");
    assert!(said.contains("left out: 1 broken (the first at 121)"), "{said}");
    assert!(said.contains("left out: 1 without host name") || said.contains("1 without a host name"), "{said}");
    assert!(!said.contains('\u{1b}'), "a progress bar where nobody watches: {said}");
}

#[test]
fn a_plot_shows_every_curve() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("plot.svg");
    let trace = recordings::trace(&recordings::visits(80));
    let arguments = ["--json", "--plot", plot.to_str().unwrap()];
    let Some(output) = replay_bytes("a&b<c.tsv", &trace, &arguments) else { return };
    let figures = figures(&output);
    let svg = fs::read_to_string(&plot).unwrap();
    let document = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}: {svg}"));
    assert!(document.root_element().has_tag_name(("http://www.w3.org/2000/svg", "svg")));
    let texts: Vec<String> = document
        .descendants()
        .filter(|node| node.tag_name().name() == "text")
        .filter_map(|node| node.text().map(|text| text.trim().to_owned()))
        .collect();
    for subject in ["prewarm", "markov-1", "window-10", "window-60"] {
        assert!(texts.iter().any(|text| text == subject), "{subject} is not in the legend: {texts:?}");
        assert!(figure(&figures, subject, "net_coverage_1") > 20.0, "{subject}");
    }
    assert!(texts.iter().any(|text| text.contains("a&b<c")), "{texts:?}");
    let count = |tag: &str| document.descendants().filter(|node| node.tag_name().name() == tag).count();
    // Four curves and their legend, a diagonal, and a line and dots of reliability.
    assert!(count("polyline") >= 6 && count("circle") >= 1, "{svg}");
    assert!(figure(&figures, "prewarm", "calibration_error") < 0.3);
    let nowhere = replay_bytes("trace.tsv", &trace, &["--plot", "/nonexistent/plot.svg"]).unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(text(&nowhere.stderr).contains("/nonexistent/plot.svg"));
}

#[test]
fn bad_files_are_named_and_exit_code_2() {
    let gzip = recordings::gzip(&recordings::trace(&recordings::visits(200)));
    let rubbish: Vec<u8> = (0..4000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, bytes, part) in [
        ("empty.log", &b""[..], "empty"),
        ("blank.log", b" \n\n", "empty"),
        ("prose.txt", b"Dear diary,\ntoday nothing was recorded.\n", "none of the formats"),
        ("rubbish.bin", &rubbish, "none of the formats"),
        ("cut.tsv.gz", &gzip[..gzip.len() / 2], "end early"),
        ("conn.log", b"#separator \\x09\n#path\tconn\n#fields\tts\tuid\tproto\n1.0\tC\ttcp\n", "dns.log"),
        ("cut.har", b"{\"log\": {\"version\": \"1.2\", \"entries\": [{\"star", "not an HTTP archive"),
        ("other.json", b"{\"hello\": 1}\n", "none of the formats"),
    ] {
        let Some(output) = replay_bytes(name, bytes, &[]) else { return };
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {complaint}");
        assert!(complaint.contains(name) && complaint.contains(part) && complaint.contains("hint: "), "{complaint}");
        assert!(output.stdout.is_empty(), "{name}");
    }
    let missing = replay(&["/nonexistent/dns.log"]).unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("/nonexistent/dns.log"));
    let wrong = replay_bytes("trace.tsv", b"1.0\t1\ta.example\n", &["--format", "dnstap"]).unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));
}

#[test]
fn a_recording_without_names_is_exit_code_1() {
    let Some(output) = replay_bytes("nothing.pcap", &recordings::pcap(&[], &[]), &[]) else { return };
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
fn recorded_traffic_of_others_gives_what_the_metric_says() {
    let Some(folder) = captures::shared() else {
        println!("skipped: no recordings of others beside the repository");
        return;
    };
    // Misses without prefetches at a TTL of a minute, as the bench counts them.
    for (name, misses) in [("m57-dns", 2757.0), ("iot-dns", 2037.0), ("twiki-http", 1454.0)] {
        let path = folder.join(format!("../{name}.tsv.gz"));
        let Some(output) = replay(&["--json", "--rtt", "0.1", path.to_str().unwrap()]) else { return };
        let figures = figures(&output);
        let cold = figure(&figures, "cold", "name_misses");
        // Two clients may ask within the tenth of a millisecond; a path's letters count once, large or small.
        assert!((cold - misses).abs() <= 0.005 * misses, "{name}: {cold}");
    }
    // Look-ups that save so little are hardly worth making; as long as they usually are, they save much.
    let path = folder.join("../m57-dns.tsv.gz");
    let figures = figures(&replay(&["--json", path.to_str().unwrap()]).unwrap());
    let avoided = figure(&figures, "prewarm", "misses_avoided");
    assert!(avoided > 25.0, "{avoided} % avoided");
}

#[test]
fn help_says_what_is_read() {
    let Some(output) = replay(&["--help"]) else { return };
    let help = text(&output.stdout);
    for part in ["dns.log", "HAR", "dnstap", "pcap", "--plot", "--rtt", "--ttl", "--format", "--set", "Examples:"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}
