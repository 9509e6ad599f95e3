//! Attaching and detaching, and traffic through both programs, in namespaces of their own.
#![expect(clippy::print_stdout, reason = "tests say there what they skip")]

use std::{
    net::IpAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType};
use prewarm_tests::{
    frames::{self, Question},
    kernel, veth,
};
use prewarm_user::{
    kernel::{Counts, EgressHook, EventSource as _, KernelError, Key, Programs, Settings, XdpMode, object},
    model::{Direction, Name, Observation, Seen},
};

/// Set in the process that a test kills.
const VICTIM: &str = "PREWARM_TEST_VICTIM";
const MARK: u32 = 0x70;

fn skipped() -> bool {
    let reason = kernel::missing();
    if let Some(reason) = reason {
        println!("skipped: {reason}");
    }
    reason.is_some()
}

fn key() -> Key {
    Key::from_secret(&[3; 32])
}

fn load() -> Programs {
    Programs::load(object().unwrap(), &Settings { own_mark: MARK, ..Settings::new(key()) }).unwrap()
}

fn ask(text: &str) -> Question {
    Question::new(text.parse().unwrap())
}

/// Whether the kernel knows of any program on an interface.
fn is_bare(interface: &str) -> bool {
    let link = veth::output("ip", &format!("-details link show dev {interface}")).unwrap();
    let filters = veth::output("tc", &format!("filter show dev {interface} egress")).unwrap_or_default();
    let tcx = SchedClassifier::query_tcx(interface, TcAttachType::Egress).map_or(0, |(_, programs)| programs.len());
    !link.contains("prog/xdp") && !filters.contains("bpf") && tcx == 0
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits until so many observations have come.
async fn observations(source: &mut prewarm_user::kernel::RingSource, count: usize) -> Vec<Observation> {
    let mut batch = Vec::new();
    while batch.len() < count {
        tokio::time::timeout(Duration::from_secs(5), source.fill(&mut batch))
            .await
            .unwrap_or_else(|_| panic!("only {} of {count} came: {batch:?}", batch.len()))
            .unwrap();
    }
    batch
}

fn question(observation: &Observation) -> (Option<Name>, u16, Direction, IpAddr) {
    let Seen::Question { name, qtype, direction, .. } = &observation.seen else { panic!("{observation:?}") };
    (name.clone(), *qtype, *direction, observation.client)
}

#[test]
fn both_directions_are_seen() {
    if skipped() {
        return;
    }
    veth::inside(|| {
        veth::pair("near", "far")?;
        let mut programs = load();
        let attachment = programs.attach("near")?;
        assert_eq!((attachment.xdp, attachment.egress), (XdpMode::Native, EgressHook::Tcx));
        let (near, far) = (veth::Sender::new("near")?, veth::Sender::new("far")?);
        let counters = programs.counters()?;
        let mut known = programs.known()?;
        runtime().block_on(async {
            let mut source = programs.source()?;
            let client6: IpAddr = "2001:db8::1".parse()?;
            let name: Name = "www.example.org".parse()?;
            let base = ask("www.example.org");
            far.send(&frames::question(&base))?;
            far.send(&frames::question(&Question { qtype: 28, ..base.clone() }))?;
            far.send(&frames::question(&Question { client: client6, tags: vec![0x88a8, 0x8100], ..base.clone() }))?;
            near.send(&frames::question(&Question { qtype: 16, ..base.clone() }))?;
            let all = observations(&mut source, 3).await;
            let client4 = base.client;
            assert_eq!(question(&all[0]), (Some(name.clone()), 1, Direction::Ingress, client4));
            assert_eq!(question(&all[1]), (Some(name.clone()), 1, Direction::Ingress, client6));
            assert_eq!(question(&all[2]), (Some(name.clone()), 16, Direction::Egress, client4));
            assert_eq!(counters.ingress()?.folded, 1, "AAAA belongs to A");

            // A known name doesn't travel, and the answer comes with its address.
            known.insert(key().resource_id(&name))?;
            far.send(&frames::answer(&base))?;
            far.send(&frames::question(&Question { qtype: 33, ..base.clone() }))?;
            let all = observations(&mut source, 2).await;
            let Seen::Answer { resource, name: None, rcode: 0, ttl, addresses, .. } = &all[0].seen else {
                panic!("{all:?}")
            };
            assert_eq!(*resource, key().resource_id(&name));
            assert_eq!((*ttl, &addresses[..]), (Duration::from_secs(300), &["198.51.100.7".parse()?][..]));
            assert_eq!(question(&all[1]), (None, 33, Direction::Ingress, client4));
            known.remove(key().resource_id(&name))?;

            // The daemon's own look-ups are counted and nothing else.
            near.mark(MARK)?;
            near.send(&frames::question(&ask("own.example.org")))?;
            near.mark(0)?;
            near.send(&frames::question(&ask("other.example.org")))?;
            let all = observations(&mut source, 1).await;
            assert_eq!(question(&all[0]).0, Some("other.example.org".parse()?));
            assert_eq!(counters.egress()?.own, 1);
            anyhow::Ok(())
        })?;
        programs.detach("near")?;
        assert!(is_bare("near"));
        far.send(&frames::question(&ask("late.example.org")))?;
        assert_eq!(counters.ingress()?.packets, 5);
        Ok(())
    })
    .unwrap();
}

#[test]
fn tcp_from_a_socket_is_read_on_its_way_out() {
    if skipped() {
        return;
    }
    veth::inside(|| {
        let mut programs = load();
        programs.attach("lo")?;
        let counters = programs.counters()?;
        runtime().block_on(async {
            let mut source = programs.source()?;
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 53)).await?;
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", 53)).await?;
            let (mut taken, _) = listener.accept().await?;
            let message = ask("tcp.example.org").message();
            let mut bytes = u16::try_from(message.len())?.to_be_bytes().to_vec();
            bytes.extend(message);
            tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await?;
            // Out of `lo` and into it again: one client, one name, one window, so one event.
            let all = observations(&mut source, 1).await;
            assert_eq!(question(&all[0]).0, Some("tcp.example.org".parse()?));
            assert_eq!(question(&all[0]).2, Direction::Egress);
            let mut got = vec![0; bytes.len()];
            tokio::io::AsyncReadExt::read_exact(&mut taken, &mut got).await?;
            assert_eq!(got, bytes, "the packet is as it was");
            assert_eq!(counters.egress()?.unreachable, 0);
            anyhow::Ok(())
        })
    })
    .unwrap();
}

#[test]
fn a_sleeping_reader_is_woken_by_one_record() {
    if skipped() {
        return;
    }
    veth::inside(|| {
        veth::pair("near", "far")?;
        let mut programs = load();
        programs.attach("near")?;
        let far = veth::Sender::new("far")?;
        let counters = programs.counters()?;
        runtime().block_on(async {
            let mut source = programs.source()?;
            for round in 0..5 {
                let mut batch = Vec::new();
                // Long enough to sleep, shorter than its safety net of a second.
                let quiet = tokio::time::timeout(Duration::from_millis(60), source.fill(&mut batch)).await;
                assert!(quiet.is_err(), "{batch:?}");
                let wait = source.fill(&mut batch);
                let send = async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    far.send(&frames::question(&ask(&format!("round{round}.example.org"))))
                };
                let start = tokio::time::Instant::now();
                let (count, sent) = tokio::join!(wait, send);
                sent?;
                assert_eq!(count?, 1);
                let took = start.elapsed();
                assert!(took < Duration::from_millis(400), "{took:?}");
            }
            assert!(counters.ingress()?.wake_ups >= 1);
            anyhow::Ok(())
        })
    })
    .unwrap();
}

#[test]
fn several_interfaces_come_and_go() {
    if skipped() {
        return;
    }
    veth::inside(|| {
        veth::pair("one", "one-far")?;
        veth::pair("two", "two-far")?;
        let mut programs = load();
        programs.attach("one")?;
        let two = programs.attach("two")?;
        let lo = programs.attach("lo")?;
        assert_eq!(lo.xdp, XdpMode::Generic);
        assert!(lo.xdp_reason.is_some());
        assert_eq!(programs.attachments().count(), 3);
        assert!(matches!(programs.attach("two"), Err(KernelError::AlreadyAttached(_))));
        assert!(matches!(programs.attach("none"), Err(KernelError::NoInterface(_))));
        assert!(matches!(programs.detach("none"), Err(KernelError::NotAttached(_))));
        programs.detach("one")?;
        assert!(is_bare("one") && !is_bare("two"));
        let mut ring = programs.ring()?;
        veth::Sender::new("two-far")?.send(&frames::question(&ask("www.example.org")))?;
        let mut interfaces = Vec::new();
        ring.drain(10, |record| interfaces.push(record.head.interface));
        assert_eq!(interfaces, [two.index]);
        // An interface that is deleted takes the programs along; that is no error.
        veth::ip("link delete two")?;
        programs.detach("two")?;
        drop(programs);
        assert!(is_bare("lo"));
        Ok(())
    })
    .unwrap();
}

#[test]
fn clsact_stands_in_for_tcx() {
    if skipped() {
        return;
    }
    veth::inside(|| {
        veth::pair("near", "far")?;
        let settings = Settings { tcx: false, ..Settings::new(key()) };
        let mut programs = Programs::load(object().unwrap(), &settings)?;
        for _ in 0..2 {
            assert_eq!(programs.attach("near")?.egress, EgressHook::Clsact);
            programs.detach("near")?;
            assert!(is_bare("near"));
            assert!(!veth::output("tc", "qdisc show dev near")?.contains("clsact"));
        }
        // A qdisc that was there stays.
        veth::output("tc", "qdisc add dev near clsact")?;
        programs.attach("near")?;
        veth::Sender::new("near")?.send(&frames::question(&ask("www.example.org")))?;
        let counts: Counts = programs.counters()?.egress()?;
        assert_eq!((counts.packets >= 1, counts.questions), (true, 1));
        programs.detach("near")?;
        assert!(veth::output("tc", "qdisc show dev near")?.contains("clsact"));
        Ok(())
    })
    .unwrap();
}

/// Starts this test again as a process of its own that attaches to `near` and waits to be killed.
fn victim(test: &str, how: &str) -> anyhow::Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .env(VICTIM, how)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("attached"))));
    Ok(child)
}

fn be_victim(how: &str) -> ! {
    let settings = Settings { tcx: how == "tcx", ..Settings::new(key()) };
    let mut programs = Programs::load(object().unwrap(), &settings).unwrap();
    programs.attach("near").unwrap();
    println!("attached");
    loop {
        std::thread::park();
    }
}

#[test]
fn killed_it_leaves_nothing_attached() {
    if let Ok(how) = std::env::var(VICTIM) {
        be_victim(&how);
    }
    if skipped() {
        return;
    }
    veth::inside(|| {
        veth::pair("near", "far")?;
        let mut child = victim("killed_it_leaves_nothing_attached", "tcx")?;
        assert!(!is_bare("near"));
        child.kill()?;
        child.wait()?;
        // The kernel takes links down a moment after their last holder is gone.
        for _ in 0..200 {
            if is_bare("near") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("still attached two seconds after the kill");
    })
    .unwrap();
}

#[test]
fn killed_with_clsact_the_next_start_takes_it_over() {
    if let Ok(how) = std::env::var(VICTIM) {
        be_victim(&how);
    }
    if skipped() {
        return;
    }
    veth::inside(|| {
        veth::pair("near", "far")?;
        let mut child = victim("killed_with_clsact_the_next_start_takes_it_over", "clsact")?;
        child.kill()?;
        child.wait()?;
        assert!(veth::output("tc", "filter show dev near egress")?.contains("bpf"), "a filter outlives its owner");
        let settings = Settings { tcx: false, ..Settings::new(key()) };
        let mut programs = Programs::load(object().unwrap(), &settings)?;
        programs.attach("near")?;
        assert_eq!(veth::output("tc", "filter show dev near egress")?.matches("direct-action").count(), 1);
        programs.detach("near")?;
        assert!(is_bare("near"));
        Ok(())
    })
    .unwrap();
}
