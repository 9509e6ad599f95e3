//! The parser against hostile packets, on the host and in the kernel: both must see the same, and never a part.
#![expect(clippy::print_stdout, reason = "tests say there what they skip")]

use prewarm_ebpf::{HashKey, abi::INGRESS, locate};
use prewarm_tests::{
    captures,
    frames::{self, Question},
    kernel, parse,
};
use prewarm_user::{
    kernel::{Key, MAX_FRAME, MIN_FRAME, Trial, object},
    model::Name,
};
use proptest::prelude::*;

const SECRET: [u8; 32] = [9; 32];

fn key() -> Key {
    Key::from_secret(&SECRET)
}

fn words() -> HashKey {
    *key().words()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn ask(text: &str) -> Question {
    Question::new(name(text))
}

/// The kernel's parser, if it can be run here.
fn trial() -> Option<Trial> {
    if let Some(reason) = kernel::missing() {
        println!("skipped: {reason}");
        return None;
    }
    Some(Trial::ingress(object().unwrap(), key()).unwrap())
}

fn compare(trial: &mut Trial, words: &HashKey, what: &str, frame: &[u8]) {
    let frame = &frame[..frame.len().min(MAX_FRAME)];
    if frame.len() < MIN_FRAME {
        return;
    }
    let (verdict, _) = trial.run(INGRESS, frame, 1).unwrap();
    assert_eq!(verdict, 2, "{what}: XDP_PASS");
    let kernel: Vec<_> = trial.records().into_iter().map(parse::record).collect();
    assert_eq!(kernel, parse::frame(frame, words), "{what}: {} bytes {frame:02x?}", frame.len());
}

/// Frames that lie, loop, or end where they shouldn't.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let plain = frames::question(&ask("www.example.org"));
    let answer = frames::answer(&ask("www.example.org"));
    let raw = |wire: &[u8]| frames::question(&Question { wire: Some(wire.to_vec()), ..ask("a") });
    let with = |at: usize, value: u8| {
        let mut frame = plain.clone();
        frame[at] = value;
        frame
    };
    let answer_with = |at: usize, value: u8| {
        let mut frame = answer.clone();
        frame[at] = value;
        frame
    };
    let long: Vec<u8> = std::iter::repeat_n(b"\x3f".iter().chain(&[b'x'; 63]), 5).flatten().copied().collect();
    let mut deep = b"\x01a".repeat(128);
    deep.push(0);
    // Behind Ethernet and IPv4 stand UDP at 34 and DNS at 42; the name is 17 bytes, the record begins at 75.
    vec![
        ("a name that is its own pointer", raw(b"\xc0\x0c")),
        ("a name that ends in a pointer to itself", raw(b"\x03www\xc0\x0c")),
        ("an extended label", raw(b"\x41\0")),
        ("a reserved label", raw(b"\x80\0")),
        ("labels without an end", raw(&long)),
        ("128 labels", raw(&deep)),
        ("a label beyond the packet", raw(b"\x3fabc")),
        ("nothing for a name", raw(b"")),
        ("an IP length of nothing", with(17, 0)),
        ("an IP length beyond the packet", with(16, 0xff)),
        ("an IP header of nothing", with(14, 0x40)),
        ("an IP header that reaches into DNS", with(14, 0x4f)),
        ("a UDP length of nothing", with(39, 0)),
        ("a UDP length inside the DNS header", with(39, 12)),
        ("a UDP length inside the name", with(39, 30)),
        ("a UDP length beyond the packet", with(39, 200)),
        ("no question", with(47, 0)),
        ("two questions", with(47, 2)),
        ("a promise of additional records", with(53, 9)),
        ("a promise of answers in a question", with(49, 9)),
        ("an answer on its way to port 53", with(44, 0x81)),
        ("more answers than there are", answer_with(49, 200)),
        ("an answer's name that is its own pointer", answer_with(76, 75)),
        ("an answer's name of a reserved type", answer_with(75, 0x80)),
        ("an answer's name beyond the packet", answer_with(75, 0x3f)),
        ("an answer's data beyond the packet", answer_with(85, 0xff)),
        ("an address of three bytes", answer_with(86, 3)),
        ("a TTL of more than 68 years", answer_with(81, 0x80)),
    ]
}

#[test]
fn hostile_frames_are_refused_or_read_whole() {
    let words = words();
    for (what, frame) in hostile() {
        for found in parse::frame(&frame, &words) {
            assert_eq!(found.name, name("www.example.org"), "{what}");
        }
    }
    let Some(mut trial) = trial() else { return };
    for (what, frame) in hostile() {
        for end in 0..=frame.len() {
            compare(&mut trial, &words, what, &frame[..end]);
        }
    }
}

#[test]
fn zero_bytes_in_labels_are_no_ends() {
    let words = words();
    let odd = [&b"\x03a\0b\x03org\0"[..], b"\x03a\0c\x03org\0", b"\x01\0\0", b"\x02\0\0\x02\0\0\0"];
    let names: Vec<_> = odd.iter().map(|wire| Name::from_wire(wire).unwrap()).collect();
    for name in &names {
        let frame = frames::question(&Question::new(name.clone()));
        let found = parse::frame(&frame, &words);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, *name);
        assert_eq!(found[0].resource, key().resource_id(name).0);
    }
    let Some(mut trial) = trial() else { return };
    for name in names {
        compare(&mut trial, &words, "zero bytes", &frames::question(&Question::new(name)));
    }
}

#[test]
fn every_wrapping_is_read() {
    let words = words();
    let client4 = "192.0.2.1".parse().unwrap();
    let client6 = "2001:db8::1".parse().unwrap();
    let mut frames = Vec::new();
    for tags in [vec![], vec![0x8100], vec![0x88a8, 0x8100]] {
        for (client, extensions) in [
            (client4, vec![]),
            (client4, vec![(0, vec![7, 7, 4, 0, 0, 0, 0, 0])]),
            (client6, vec![]),
            (client6, vec![(0, vec![0, 1, 4, 0, 0, 0, 0]), (60, vec![1; 15]), (43, vec![0; 7])]),
        ] {
            for edns in [false, true] {
                let ask = Question {
                    tags: tags.clone(),
                    client,
                    extensions: extensions.clone(),
                    edns,
                    ..ask("MiXeD.example")
                };
                frames.extend([
                    frames::question(&ask),
                    frames::answer(&ask),
                    frames::stream(&ask, &[ask.message()]),
                    frames::stream(&ask, &vec![ask.message(); 32]),
                ]);
            }
        }
    }
    for frame in &frames {
        let found = parse::frame(frame, &words);
        assert!(found.len() == 1 || found.len() == 32, "{frame:02x?}");
        assert!(found.iter().all(|found| found.name == name("mixed.example")));
    }
    let Some(mut trial) = trial() else { return };
    for frame in &frames {
        compare(&mut trial, &words, "wrapping", frame);
    }
}

#[test]
fn a_truncated_capture_gives_the_same_or_nothing() {
    let words = words();
    let mut trial = trial();
    let (mut seen, mut cut) = (0, 0);
    for (what, frame) in captures::frames() {
        // One frame after the other in full; all lengths of those that have something to do with DNS.
        let whole = parse::frame(&frame, &words);
        if let Some(trial) = &mut trial {
            compare(trial, &words, &what, &frame);
        }
        seen += 1;
        if locate(&&frame[..]).is_err() {
            continue;
        }
        for end in (0..frame.len().min(700)).rev() {
            for found in parse::frame(&frame[..end], &words) {
                assert!(whole.contains(&found), "{what}, the first {end} bytes: {found:?}");
            }
            if let Some(trial) = &mut trial
                && (whole.len() == 1 || end % 7 == 0)
            {
                compare(trial, &words, &what, &frame[..end]);
                cut += 1;
            }
        }
    }
    println!("{seen} frames, {cut} cut ones compared with the kernel");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_make_it_panic(
        which in 0_usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let words = words();
        let ask = Question { edns: true, ..ask("some.name.example.org") };
        let mut frame = match which {
            0 => frames::question(&ask),
            1 => frames::answer(&ask),
            2 => frames::stream(&ask, &[ask.message(), ask.message()]),
            _ => frames::question(&Question { client: "2001:db8::1".parse().unwrap(), ..ask }),
        };
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        for found in parse::frame(&frame, &words) {
            prop_assert_eq!(found.resource, key().resource_id(&found.name).0);
        }
    }
}

#[test]
fn changed_bytes_are_seen_alike_by_both() {
    let Some(mut trial) = trial() else { return };
    let words = words();
    let ask = Question { edns: true, ..ask("some.name.example.org") };
    // A small generator of our own: the same bytes in every run.
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below
    };
    for round in 0..20_000 {
        let mut frame = match round % 4 {
            0 => frames::question(&ask),
            1 => frames::answer(&ask),
            2 => frames::stream(&ask, &[ask.message(), ask.answer(), ask.message()]),
            _ => frames::answer(&Question { client: "2001:db8::1".parse().unwrap(), ..ask.clone() }),
        };
        for _ in 0..=random(3) {
            let at = random(frame.len());
            frame[at] = u8::try_from(random(256)).unwrap_or(0);
        }
        compare(&mut trial, &words, "changed bytes", &frame);
    }
}

/// Encrypted DNS is counted by what begins: the first segment of a connection, and each datagram of QUIC.
#[test]
fn questions_that_nobody_can_read_are_counted() {
    let Some(mut trial) = trial() else { return };
    let clients = ["192.0.2.1", "2001:db8::1"].map(|client| Question { client: client.parse().unwrap(), ..ask("a") });
    for client in &clients {
        // Flags of a TCP header: SYN; SYN and ACK, as an answer has; PSH and ACK, as all that follows.
        for (port, flags) in [(853, 0x02), (853, 0x12), (853, 0x18), (443, 0x02)] {
            let mut frame = frames::wrap(client, 6, &segment(port, flags), false);
            trial.run(INGRESS, &frame, 1).unwrap();
            frame.truncate(frame.len() - 10);
            trial.run(INGRESS, &frame, 1).unwrap();
        }
        for (source, destination) in [(40_000, 853), (853, 40_000), (40_000, 443)] {
            let frame = frames::wrap(client, 17, &frames::udp(source, destination, &[0xc0; 64]), false);
            trial.run(INGRESS, &frame, 1).unwrap();
        }
    }
    let counts = trial.counters().ingress().unwrap();
    assert_eq!((counts.encrypted_tcp, counts.encrypted_udp), (2, 2), "{counts:?}");
    // Each frame is left alone for one reason.
    assert_eq!(counts.packets, 22);
    assert_eq!(counts.reasons().map(|(_, count)| count).sum::<u64>(), 22, "{counts:?}");
    assert!(trial.records().is_empty());
}

/// A TCP header without anything behind it.
fn segment(port: u16, flags: u8) -> Vec<u8> {
    let mut bytes = vec![0x9c, 0x40];
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 2, 0, 0, 0, 0, 0]);
    bytes
}
