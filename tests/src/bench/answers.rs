//! What answers of the kernel cost, beside resolvers that answer the same names from their caches.
//!
//! A veth joins client and server host; the server side is pinned to one processor. `kxdpgun` offers questions at a rate
//! (sockets would be the limit), and a closed loop with one question under way gives the latency. Processor time is that
//! of the generator, of the server and of the kernel's own threads that work on packets, each as the scheduler counts it:
//! of a machine that does other things too, its idle time says nothing. `dnsperf` offers as much as it can; it takes
//! longer for a question than the kernel for its answer, so its figures are of what clients notice, not of who is fastest.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use hickory_proto::rr::RecordType;

use super::Row;
use crate::{
    answering::{ANSWERED, CLIENT_INTERFACE, Generator, Kind, LOOPBACK, PLAIN, World, compare},
    clock,
    netns::Namespace,
    question,
};

/// Questions a second that are offered.
const RATES: [u32; 3] = [100_000, 400_000, 600_000];
/// For how long.
const SECONDS: u32 = 2;
/// Questions of the closed loop.
const SINGLE: usize = 20_000;
/// Names that are asked.
const NAMES: u32 = 32;

/// Who is measured.
const SUBJECTS: [(&str, Kind, bool); 6] = [
    ("prewarm", Kind::Unbound, true),
    ("unbound", Kind::Unbound, false),
    ("knot-resolver", Kind::KnotResolver, false),
    ("dnsdist", Kind::Dnsdist, false),
    ("dnsmasq", Kind::Dnsmasq, false),
    ("knot-xdp", Kind::KnotXdp, false),
];

/// Runs the bench.
///
/// # Errors
/// When a part of it can't be had.
pub fn run(tell: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    tell("answers: what the generator costs");
    let own = generator(tell)?;
    rows.extend(loopback(tell)?);
    for (subject, kind, answering) in SUBJECTS {
        tell(&format!("answers: {subject}"));
        let mut world = World::start(kind)?;
        if answering {
            world.answer("audit = 0\nper_second = 0\nfills_per_second = 20000\n")?;
        }
        warm(&world, answering)?;
        let address = ANSWERED.v4.into();
        let mut row = |case: &str, metric: &str, value: f64, unit: &str| {
            rows.push(Row {
                case: case.to_owned(),
                subject: subject.to_owned(),
                metric: metric.to_owned(),
                value,
                unit: unit.to_owned(),
            });
        };
        let (p50, p99) = single(&world.client, address, RecordType::A)?;
        row("veth", "rtt_us_p50", p50, "us");
        row("veth", "rtt_us_p99", p99, "us");
        let (answered, mean) = dnsperf(&world)?;
        row("veth/dnsperf", "qps_answered", answered, "1/s");
        row("veth/dnsperf", "rtt_us_mean", mean, "us");
        if matches!(kind, Kind::Unbound) {
            // What the kernel leaves to the server, which has it in its cache.
            let (p50, p99) = single(&world.client, address, RecordType::TXT)?;
            row("pass-through", "rtt_us_p50", p50, "us");
            row("pass-through", "rtt_us_p99", p99, "us");
        }
        world.free_client();
        for (rate, own) in RATES.into_iter().zip(own) {
            let case = format!("veth/{}k", rate / 1000);
            tell(&format!("answers: {subject} at {rate}/s"));
            let Load { answered, lost, cpu, .. } = load(&world, rate)?;
            row(&case, "qps_answered", answered, "1/s");
            row(&case, "lost", lost, "%");
            row(&case, "cpu_seconds_per_million", cpu, "s");
            row(&case, "cpu_seconds_per_million_less_generator", cpu - own, "s");
        }
        if answering {
            let numbers = world.numbers()?;
            let given = numbers["answered"].as_u64().unwrap_or_default();
            ensure!(given > 100_000, "the kernel answered only {given}: {numbers:#}");
            row("veth", "program_ns", program(&world)?, "ns");
        }
    }
    Ok(rows)
}

/// Asks `count` questions of every kind at an address that the kernel answers and at one that it doesn't, before real
/// resolvers.
///
/// # Errors
/// When a part can't be had, or anything differs.
pub fn differential(count: u32, tell: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (subject, kind) in [("unbound", Kind::Unbound), ("knot-resolver", Kind::KnotResolver)] {
        let mut world = World::start(kind)?;
        world.answer("audit = 0\nper_second = 0\nfills_per_second = 20000\n")?;
        let since = clock::now();
        let pairs: [(IpAddr, IpAddr); 2] =
            [(ANSWERED.v4.into(), PLAIN.v4.into()), (ANSWERED.v6.into(), PLAIN.v6.into())];
        let mut generator = Generator::new(u64::from(count) << 8 | 7);
        for _ in 0..4 {
            for (answered, _) in pairs {
                world.ask_all(answered, &generator.plain())?;
            }
            clock::pause(Duration::from_millis(1200));
        }
        let mut different = 0_u32;
        let mut asked = 0;
        while asked < count {
            let (answered, plain) = pairs[(asked / 500 % 2) as usize];
            let batch: Vec<Vec<u8>> = (0..500_u16).map(|id| generator.next(id)).collect();
            let (theirs, ours) = (world.ask_all(plain, &batch)?, world.ask_all(answered, &batch)?);
            let elapsed = (clock::now() - since).as_secs() as u32 + 1;
            for ((ours, theirs), message) in ours.iter().zip(&theirs).zip(&batch) {
                let same = match (ours, theirs) {
                    (Some(ours), Some(theirs)) => compare(ours, theirs, elapsed).is_ok(),
                    (None, None) => true,
                    _ => false,
                };
                if same {
                    continue;
                }
                // A packet was lost, or time went by and the server asked anew: once more, one by one.
                if let Some(difference) = world.differs((answered, plain), message, elapsed)? {
                    different += 1;
                    tell(&format!("{subject}: {difference:?}: {message:02x?}"));
                }
            }
            asked += 500;
            if asked % 10_000 == 0 {
                tell(&format!("{subject}: {asked} questions, {different} differ"));
            }
        }
        let numbers = world.numbers()?;
        tell(&format!("{subject}: {numbers}"));
        let given = numbers["answered"].as_u64().unwrap_or_default();
        for (metric, value) in
            [("questions", f64::from(asked)), ("different", f64::from(different)), ("answered", given as f64)]
        {
            rows.push(Row {
                case: "differential".to_owned(),
                subject: subject.to_owned(),
                metric: metric.to_owned(),
                value,
                unit: String::new(),
            });
        }
        ensure!(different == 0, "{different} of {asked} answers differ from {subject}'s");
    }
    Ok(rows)
}

/// A name of the zone.
fn host(name: u32) -> String {
    format!("h{name}.example.org")
}

/// Those with long TTLs, so that nothing is asked anew meanwhile.
fn lasting() -> impl Iterator<Item = u32> {
    (0..NAMES).filter(|name| name % 4 == 1)
}

/// Asks until all is cached, and where the kernel answers, until it does.
fn warm(world: &World, answering: bool) -> Result<()> {
    warm_at(world, &world.client, ANSWERED.v4.into(), answering)
}

fn warm_at(world: &World, from: &Namespace, address: IpAddr, answering: bool) -> Result<()> {
    clock::wait_for("cached answers", Duration::from_secs(30), || {
        for name in 0..NAMES {
            world.ask_from(from, address, &[question::bytes(&host(name))])?;
        }
        if !answering {
            return Ok(Some(()));
        }
        clock::pause(Duration::from_millis(300));
        let held = world.numbers()?["held"].as_u64().unwrap_or_default();
        Ok((held >= u64::from(NAMES)).then_some(()))
    })
}

/// Seconds of processor time for a million questions that nobody answers, at each rate.
fn generator(tell: &dyn Fn(&str)) -> Result<[f64; RATES.len()]> {
    let mut world = World::start(Kind::Unbound)?;
    world.free_client();
    let _drop = world.drop_all()?;
    let mut own = [0.0; RATES.len()];
    for (rate, own) in RATES.into_iter().zip(&mut own) {
        let Load { sent, nanos, .. } = load(&world, rate)?;
        *own = nanos / 1e9 / sent * 1e6;
        tell(&format!("answers: {own:.2} s for a million at {rate}/s"));
    }
    Ok(own)
}

/// One question after the other on the loopback interface, as programs ask a stub there.
fn loopback(tell: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (subject, answering) in [("prewarm", true), ("unbound", false)] {
        tell(&format!("answers: {subject} on loopback"));
        let mut world = World::start(Kind::Unbound)?;
        if answering {
            world.answer_loopback()?;
        }
        warm_at(&world, &world.server, LOOPBACK.into(), answering)?;
        let (p50, p99) = single(&world.server, LOOPBACK.into(), RecordType::A)?;
        for (metric, value) in [("rtt_us_p50", p50), ("rtt_us_p99", p99)] {
            rows.push(Row {
                case: "loopback".to_owned(),
                subject: subject.to_owned(),
                metric: metric.to_owned(),
                value,
                unit: "us".to_owned(),
            });
        }
    }
    Ok(rows)
}

/// Nanoseconds of a run of the ingress program under load, as the kernel counts them.
fn program(world: &World) -> Result<f64> {
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).context("bpf statistics")?;
    // Others may run programs of the same name; ours is the one that had the packets.
    let read = || -> HashMap<u32, (Duration, u64)> {
        let all = aya::programs::loaded_programs().filter_map(|info| info.ok());
        let named = all.filter(|info| info.name_as_str() == Some("ingress"));
        named.map(|info| (info.id(), (info.run_time(), info.run_count()))).collect()
    };
    let before = read();
    load(world, RATES[0])?;
    let ran = read().into_iter().filter_map(|(id, (time, count))| {
        let (time_before, count_before) = before.get(&id)?;
        Some((time - *time_before, count - count_before))
    });
    let (time, count) = ran.max_by_key(|(_, count)| *count).context("no ingress program is loaded")?;
    Ok(time.as_secs_f64() * 1e9 / count.max(1) as f64)
}

/// Microseconds of one question after the other: the median, and what all but one in a hundred stay below.
fn single(from: &Namespace, address: IpAddr, record_type: RecordType) -> Result<(f64, f64)> {
    let mut times = from.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(SocketAddr::new(address, 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut buffer = [0; 1500];
        let messages: Vec<Vec<u8>> = lasting().map(|name| question::of_type(&host(name), record_type)).collect();
        let mut times = Vec::with_capacity(SINGLE);
        for message in messages.iter().cycle().take(SINGLE) {
            let begin = clock::now();
            socket.send(message)?;
            if socket.recv(&mut buffer).is_ok() {
                times.push((clock::now() - begin).as_secs_f64() * 1e6);
            }
        }
        Ok(times)
    })?;
    ensure!(times.len() > SINGLE * 99 / 100, "only {} of {SINGLE} questions were answered", times.len());
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

/// The questions, as both generators read them.
fn questions() -> String {
    lasting().map(|name| format!("{}. A\n", host(name))).collect()
}

/// Answers a second, and microseconds until one in the mean, with four hundred questions under way.
fn dnsperf(world: &World) -> Result<(f64, f64)> {
    let list = world.folder.path().join("dnsperf");
    fs::write(&list, questions())?;
    let mut command = world.client.command("taskset");
    command.args(["-c", "1", "dnsperf", "-s", &ANSWERED.v4.to_string(), "-l", &SECONDS.to_string(), "-c", "4"]);
    command.args(["-q", "400", "-d"]).arg(&list).stdin(Stdio::null());
    let output = command.output().context("dnsperf")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let read = |words| number(&text, words).with_context(|| format!("dnsperf says:\n{text}"));
    Ok((read("Queries per second:")?, read("Average Latency (s):")? * 1e6))
}

/// What came of an offered load.
struct Load {
    sent: f64,
    nanos: f64,
    answered: f64,
    lost: f64,
    cpu: f64,
}

/// Offers questions at a rate; once more where what went before still held the interface.
fn load(world: &World, rate: u32) -> Result<Load> {
    let mut tries = 0;
    loop {
        // The generator leaves its program behind when it is ended early.
        drop(world.client.ip(&["link", "set", "dev", CLIENT_INTERFACE, "xdp", "off"]));
        match offer(world, rate) {
            Err(error) if tries < 5 && format!("{error:#}").contains("busy") => {
                tries += 1;
                clock::pause(Duration::from_secs(1));
            }
            other => return other,
        }
    }
}

fn offer(world: &World, rate: u32) -> Result<Load> {
    let list = world.folder.path().join("questions");
    fs::write(&list, questions())?;
    let mut command = world.client.command("taskset");
    command.args([
        "-c",
        "1",
        "/usr/sbin/kxdpgun",
        "-t",
        &SECONDS.to_string(),
        "-Q",
        &rate.to_string(),
        "-b",
        "32",
        "-i",
    ]);
    command.arg(&list).arg(ANSWERED.v4.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let before = [ran(world.resolver().as_raw()), softirqs()];
    let child = command.spawn().context("kxdpgun")?;
    let generator = i32::try_from(child.id())?;
    // While it is not yet waited for, what it ran is still to be read.
    let mut own = 0;
    let until = clock::now() + Duration::from_secs(u64::from(SECONDS) + 10);
    while clock::now() < until {
        let now = ran(generator);
        if now < own {
            break;
        }
        own = now;
        if !is_alive(generator) {
            break;
        }
        clock::pause(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    let after = [ran(world.resolver().as_raw()), softirqs()];
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let sent = number(&text, "total queries:").with_context(|| format!("kxdpgun says:\n{text}"))?;
    let received = number(&text, "total replies:").with_context(|| format!("kxdpgun says:\n{text}"))?;
    let nanos = after.iter().zip(before).map(|(after, before)| after.saturating_sub(before)).sum::<u64>() + own;
    Ok(Load {
        sent,
        nanos: nanos as f64,
        answered: received / f64::from(SECONDS),
        lost: (sent - received).max(0.0) * 100.0 / sent,
        cpu: nanos as f64 / 1e9 / received.max(1.0) * 1e6,
    })
}

/// The number behind some words.
fn number(text: &str, words: &str) -> Option<f64> {
    let (_, rest) = text.split_once(words)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Nanoseconds that a process ran, all its threads.
fn ran(process: i32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let each = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.filter_map(|task| each(task.ok()?)).sum()
}

fn is_alive(process: i32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

/// Nanoseconds that the kernel's threads for packets ran.
fn softirqs() -> u64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let is_one =
        |id: &i32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"));
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(is_one).map(ran).sum()
}
