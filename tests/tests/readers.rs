//! The readers of recordings: the same traffic is the same whatever the format, and no bytes make them panic or hang.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use prewarm_tests::{
    captures,
    recordings::{self, Connection, LookUp, YEAR_2024},
};
use prewarm_user::{
    kernel::Key,
    model::{Observation, Phase, Seen},
    observe::recording::{Format, Reason, Recording, RecordingError},
};
use proptest::prelude::*;

const FORMATS: [Format; 5] = [Format::Trace, Format::Zeek, Format::Pcap, Format::Har, Format::Dnstap];

fn open(bytes: &[u8], format: Option<Format>) -> Result<Recording, RecordingError> {
    Recording::of_bytes(Path::new("a recording"), bytes.to_vec(), format, &Key::from_secret(&[7; 32]))
}

fn all(recording: &mut Recording) -> Vec<Observation> {
    let mut observations = Vec::new();
    while let Some(observation) = recording.next_observation().expect("it is whole") {
        observations.push(observation);
    }
    observations.sort_by_key(|observation| observation.at);
    observations
}

/// When, who, for what.
type Access = (u64, IpAddr, String);

fn accesses(observations: &[Observation]) -> Vec<Access> {
    let access = |observation: &Observation| {
        let (Seen::Question { name: Some(name), .. } | Seen::Named { name, .. }) = &observation.seen else {
            return None;
        };
        Some((observation.at.as_nanos(), observation.client, name.to_string()))
    };
    observations.iter().filter_map(access).collect()
}

fn formats(look_ups: &[LookUp]) -> Vec<(&'static str, Format, Vec<u8>)> {
    vec![
        ("trace", Format::Trace, recordings::trace(look_ups)),
        ("zeek", Format::Zeek, recordings::zeek(look_ups)),
        ("zeek json", Format::Zeek, recordings::zeek_json(look_ups)),
        ("pcap", Format::Pcap, recordings::pcap(look_ups, &[])),
        ("dnstap", Format::Dnstap, recordings::dnstap(look_ups)),
    ]
}

#[test]
fn the_same_traffic_is_the_same_in_every_format() {
    let look_ups = recordings::visits(20);
    let access = |it: &LookUp| (it.at.as_nanos() as u64, IpAddr::V4(it.client), it.name.clone());
    let expected: Vec<Access> = look_ups.iter().map(access).collect();
    let mut answers = None;
    for (name, format, bytes) in formats(&look_ups) {
        for bytes in [recordings::gzip(&bytes), bytes] {
            let mut recording = open(&bytes, None).unwrap();
            assert_eq!(recording.format(), format, "{name}");
            let shows = recording.shows();
            let observations = all(&mut recording);
            assert_eq!(accesses(&observations), expected, "{name}");
            assert_eq!(recording.left_out().iter().count(), 0, "{name}");
            let found: Vec<_> =
                observations.into_iter().filter(|seen| matches!(seen.seen, Seen::Answer { .. })).collect();
            assert_eq!(!found.is_empty(), shows.answers, "{name}");
            if shows.answers {
                assert_eq!(answers.get_or_insert_with(|| found.clone()), &found, "{name}");
            }
        }
    }
}

#[test]
fn an_archive_has_one_client_and_its_connections() {
    let look_ups = recordings::visits(3);
    let mut recording = open(&recordings::har(&look_ups, 30), None).unwrap();
    assert_eq!(recording.format(), Format::Har);
    let observations = all(&mut recording);
    let names: Vec<_> = accesses(&observations).into_iter().map(|(at, _, name)| (at, name)).collect();
    let expected: Vec<_> = look_ups.iter().map(|it| (it.at.as_nanos() as u64, it.name.clone())).collect();
    assert_eq!(names, expected);
    let trips: Vec<_> = observations
        .iter()
        .filter_map(|observation| match observation.seen {
            Seen::Connection(connection) => Some((connection.destination.port(), connection.phase)),
            _ => None,
        })
        .collect();
    let established = Phase::Established { round_trip: Some(Duration::from_millis(30)), own: false };
    assert_eq!(trips, vec![(443, established); look_ups.len()]);
}

fn connection(port: u16, says: Vec<Vec<u8>>) -> Connection {
    Connection {
        at: Duration::from_secs(YEAR_2024),
        client: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), port),
        server: SocketAddrV4::new(Ipv4Addr::new(93, 184, 216, 7), 443),
        took: Duration::from_millis(25),
        says,
    }
}

#[test]
fn a_capture_shows_handshakes_and_whom_tls_clients_name() {
    let greeting = recordings::greeting("shop.example.org").unwrap();
    let (first, rest) = greeting.split_at(60);
    let connections = [
        connection(40_001, vec![greeting.clone()]),
        connection(40_002, vec![first.to_vec(), rest.to_vec()]),
        connection(40_003, vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()]),
    ];
    let mut recording = open(&recordings::pcap(&[], &connections), None).unwrap();
    let observations = all(&mut recording);
    let established = Phase::Established { round_trip: Some(Duration::from_millis(25)), own: false };
    let trips = observations.iter().filter(|observation| {
        matches!(observation.seen, Seen::Connection(connection) if connection.phase == established)
            && observation.at.as_nanos() == connections[0].at.as_nanos() as u64
    });
    assert_eq!(trips.count(), 3, "{observations:?}");
    let named = accesses(&observations);
    assert_eq!(named.len(), 2, "{named:?}");
    assert!(named.iter().all(|(_, client, name)| *client == IpAddr::from([10, 0, 0, 1]) && name == "shop.example.org"));
}

#[test]
fn every_link_type_with_ip_is_read() {
    let look_ups = recordings::visits(1);
    let ethernet = recordings::pcap(&look_ups, &[]);
    let expected = accesses(&all(&mut open(&ethernet, None).unwrap()));
    let null: &[u8] = &[2, 0, 0, 0];
    let cooked: &[u8] = &[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    let cooked_2: &[u8] = &[8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0];
    for (link_type, head) in [(101_u32, &[][..]), (228, &[]), (0, null), (108, null), (113, cooked), (276, cooked_2)] {
        // The same packets behind another header.
        let mut bytes = ethernet[..20].to_vec();
        bytes.extend(link_type.to_le_bytes());
        let mut rest = &ethernet[24..];
        while let Some((record, tail)) = rest.split_at_checked(16) {
            let length = u32::from_le_bytes(*record[8..].first_chunk().unwrap()) as usize;
            let length_now = (length - 14 + head.len()) as u32;
            bytes.extend(&record[..8]);
            bytes.extend([length_now.to_le_bytes(), length_now.to_le_bytes()].concat());
            bytes.extend(head);
            bytes.extend(&tail[14..length]);
            rest = &tail[length..];
        }
        assert_eq!(accesses(&all(&mut open(&bytes, None).unwrap())), expected, "{link_type}");
    }
}

#[test]
fn a_log_of_answers_alone_tells_of_the_questions() {
    let look_ups = recordings::visits(2);
    // Every other payload is an answer.
    let whole = recordings::dnstap(&look_ups);
    let mut rest = &whole[12 + 22 + 8..];
    let mut payloads = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 {
            break;
        }
        payloads.push(&tail[..length]);
        rest = &tail[length..];
    }
    let answers = recordings::stream(payloads.iter().skip(1).step_by(2).copied());
    let found = accesses(&all(&mut open(&answers, None).unwrap()));
    assert_eq!(found, accesses(&all(&mut open(&whole, None).unwrap())));
    assert_eq!(found.len(), look_ups.len());
}

#[test]
fn a_capture_that_was_cut_is_good_up_to_there() {
    let whole = recordings::pcap(&recordings::visits(2), &[]);
    let mut recording = open(&whole[..whole.len() - 5], None).unwrap();
    assert_eq!(all(&mut recording).len(), 11);
    assert_eq!(recording.left_out().count(Reason::Cut), 1);
}

#[test]
fn real_captures_are_read_to_their_end() {
    let Some(folder) = captures::shared() else {
        println!("skipped: no captures of other projects beside the repository");
        return;
    };
    let mut questions = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().contains(".pcap") {
            continue;
        }
        let mut recording = open(&std::fs::read(&path).unwrap(), None).unwrap();
        while let Some(observation) = recording.next_observation().unwrap() {
            questions += usize::from(matches!(observation.seen, Seen::Question { .. }));
        }
    }
    assert!(questions > 100, "only {questions} questions");
}

/// Reads to the end, whatever that is. Each observation needs some bytes, so their number tells an endless loop.
fn exhaust(bytes: &[u8], format: Option<Format>) {
    let Ok(mut recording) = open(bytes, format) else { return };
    let most = 16 + bytes.len() * 4;
    for _ in 0..most {
        match recording.next_observation() {
            Ok(Some(_)) => {}
            Ok(None) => {
                assert!(recording.next_observation().unwrap().is_none(), "it goes on behind its end");
                return;
            }
            Err(error) => {
                assert!(error.to_string().contains("a recording"), "{error}");
                return;
            }
        }
    }
    panic!("{} bytes, and more than {most} observations", bytes.len());
}

fn valid() -> Vec<(&'static str, Format, Vec<u8>)> {
    let look_ups = recordings::visits(3);
    let greeting = recordings::greeting("shop.example.org").unwrap();
    let connections = [connection(40_001, vec![greeting])];
    let mut valid = formats(&look_ups);
    valid.push(("ssl", Format::Zeek, recordings::zeek_ssl(&[("shop.example.org", &connections[0])])));
    valid.push(("connections", Format::Pcap, recordings::pcap(&look_ups, &connections)));
    valid.push(("har", Format::Har, recordings::har(&look_ups, 30)));
    let gzip = recordings::gzip(&valid[0].2);
    valid.push(("gzip", Format::Trace, gzip));
    valid
}

#[test]
fn every_end_of_a_file_is_survived() {
    for (_, format, bytes) in valid() {
        for end in 0..bytes.len().min(1500) {
            exhaust(&bytes[..end], None);
            exhaust(&bytes[..end], Some(format));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), format in 0..6_usize) {
        exhaust(&bytes, FORMATS.get(format).copied());
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "[ -~\t\n\\\\#]{0,300}", format in 0..2_usize, head in any::<bool>()) {
        let valid = recordings::zeek(&recordings::visits(1));
        let bytes = if head { [&valid[..valid.len() / 2], text.as_bytes()].concat() } else { text.into_bytes() };
        exhaust(&bytes, FORMATS.get(format).copied());
    }

    #[test]
    fn no_damage_makes_a_reader_panic(
        which in 0..9_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut valid = valid();
        let (_, format, bytes) = &mut valid[which];
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        exhaust(bytes, None);
        exhaust(bytes, Some(*format));
    }
}
