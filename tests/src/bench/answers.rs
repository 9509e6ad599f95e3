//! What answers of the kernel cost, beside resolvers that answer the same names from their caches.
//!
//! A veth joins client and server host; the server side is pinned to one processor. `kxdpgun` offers questions at a rate
//! (sockets would be the limit), and a closed loop with one question under way gives the latency. Processor time is that
//! of the generator, of the server and of the kernel's own threads that work on packets, each as the scheduler counts it:
//! of a machine that does other things too, its idle time says nothing.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::Row;
use crate::{
    answering::{ANSWERED, Generator, Kind, PLAIN, World, compare},
    clock, question,
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
        let (p50, p99) = single(&world, address)?;
        row("veth", "rtt_us_p50", p50, "us");
        row("veth", "rtt_us_p99", p99, "us");
        world.free_client();
        for rate in RATES {
            let case = format!("veth/{}k", rate / 1000);
            let Load { answered, lost, cpu } = load(&world, rate)?;
            row(&case, "qps_answered", answered, "1/s");
            row(&case, "lost", lost, "%");
            row(&case, "cpu_seconds_per_million", cpu, "s");
        }
        if answering {
            let numbers = world.numbers()?;
            let given = numbers["answered"].as_u64().unwrap_or_default();
            ensure!(given > 100_000, "the kernel answered only {given}: {numbers:#}");
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
                // A packet was lost, or the server asked anew in between: once more, one by one.
                let (theirs, ours) = (world.ask(plain, message)?, world.ask(answered, message)?);
                let again = match (&ours, &theirs) {
                    (Some(ours), Some(theirs)) => compare(ours, theirs, elapsed + 1),
                    (None, None) => Ok(()),
                    _ => Err(crate::answering::Difference("one answer only".to_owned())),
                };
                if let Err(difference) = again {
                    different += 1;
                    tell(&format!("{subject}: {difference:?}: {message:02x?}\n {ours:02x?}\n {theirs:02x?}"));
                }
            }
            asked += 500;
            if asked % 10_000 == 0 {
                tell(&format!("{subject}: {asked} questions, {different} differ"));
            }
        }
        let given = world.numbers()?["answered"].as_u64().unwrap_or_default();
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

/// The question for a name, as the generator asks it.
fn asked(name: u32) -> Vec<u8> {
    question::bytes(&format!("h{name}.example.org"))
}

/// Asks until all is cached, and where the kernel answers, until it does.
fn warm(world: &World, answering: bool) -> Result<()> {
    let address = ANSWERED.v4.into();
    clock::wait_for("cached answers", Duration::from_secs(30), || {
        for name in 0..NAMES {
            world.ask(address, &asked(name))?;
        }
        if !answering {
            return Ok(Some(()));
        }
        clock::pause(Duration::from_millis(300));
        let held = world.numbers()?["held"].as_u64().unwrap_or_default();
        Ok((held >= u64::from(NAMES)).then_some(()))
    })
}

/// Microseconds of one question after the other: the median, and what all but one in a hundred stay below.
fn single(world: &World, address: IpAddr) -> Result<(f64, f64)> {
    let mut times = world.client.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(SocketAddr::new(address, 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut buffer = [0; 1500];
        // Names with long TTLs, so that nothing is asked anew meanwhile.
        let messages: Vec<Vec<u8>> = (0..NAMES).filter(|name| name % 4 == 1).map(asked).collect();
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

/// What came of an offered load.
struct Load {
    answered: f64,
    lost: f64,
    cpu: f64,
}

/// Offers questions at a rate.
fn load(world: &World, rate: u32) -> Result<Load> {
    let list = world.folder.path().join("questions");
    let names: Vec<String> =
        (0..NAMES).filter(|name| name % 4 == 1).map(|name| format!("h{name}.example.org. A")).collect();
    fs::write(&list, names.join("\n"))?;
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
