//! The socket itself: who may have it, and what writers of all kinds can do to it.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    process::Output,
    time::{Duration, SystemTime},
};

use prewarm_tests::{
    clock, daemon,
    needs::{self, skip},
    netns::Namespace,
    question,
};
use prewarm_user::observe::dnstap::CONTENT_TYPE;

use super::{DNSTAP, bench, of};

const READY: u32 = 4;
const START: u32 = 2;
const STOP: u32 = 3;

fn control(kind: u32) -> Vec<u8> {
    let mut body = kind.to_be_bytes().to_vec();
    if kind != STOP {
        body.extend(1_u32.to_be_bytes());
        body.extend(u32::try_from(CONTENT_TYPE.len()).unwrap().to_be_bytes());
        body.extend(CONTENT_TYPE);
    }
    [&[0; 4][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), &body].concat()
}

/// A client's question as a server writes it down: a field is its number and kind, and what follows.
fn written(name: &str, client: [u8; 4]) -> Vec<u8> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let varint = |mut number: u64| {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let bytes_of = |number: u8, bytes: &[u8]| [&[number << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat();
    let message = [
        vec![1 << 3, 5],
        bytes_of(4, &client),
        [&[8 << 3][..], &varint(since.as_secs())].concat(),
        [&[9 << 3 | 5][..], &since.subsec_nanos().to_le_bytes()].concat(),
        bytes_of(10, &question::bytes(name)),
    ]
    .concat();
    let payload = [bytes_of(14, &message), vec![15 << 3, 1]].concat();
    [&u32::try_from(payload.len()).unwrap().to_be_bytes()[..], &payload].concat()
}

/// Runs a daemon that is not meant to start.
fn failing(namespace: &Namespace, socket: &str, folder: &std::path::Path) -> Output {
    let mut command = namespace.command(daemon::binary().unwrap());
    command.args(["run", "--source", socket, "--socket"]).arg(folder.join("other.sock"));
    command.arg("--state").arg(folder.join("other")).output().unwrap()
}

#[test]
fn a_socket_is_had_by_one() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let bench = bench(DNSTAP, &[], "");
    let about = fs::metadata(&bench.socket).unwrap();
    let group = nix::unistd::Group::from_name("unbound").unwrap().unwrap().gid;
    assert_eq!((about.permissions().mode() & 0o777, about.gid()), (0o660, group.as_raw()));
    let source = format!("dnstap:{}", bench.socket.display());
    let refused = failing(&bench.host, &source, &bench.folder);
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("tap.sock") && complaint.contains("another process answers"), "{complaint}");
    // Somebody else's, and what is no socket at all.
    let other = bench.folder.join("theirs.sock");
    let _theirs = UnixListener::bind(&other).unwrap();
    let refused = failing(&bench.host, &format!("dnstap:{}", other.display()), &bench.folder);
    assert_eq!(refused.status.code(), Some(2));
    assert!(UnixStream::connect(&other).is_ok(), "their socket is gone");
    let file = bench.folder.join("notes.txt");
    fs::write(&file, "dear diary").unwrap();
    let refused = failing(&bench.host, &format!("dnstap:{}", file.display()), &bench.folder);
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && complaint.contains("no socket"), "{complaint}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "dear diary");
    let refused = failing(&bench.host, "dnstap:relative.sock", &bench.folder);
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && complaint.contains("relative.sock"), "{complaint}");
}

#[test]
fn a_bad_writer_harms_nobody() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let mut bench = bench(DNSTAP, &[], "[policy.guard]\nclients = [\"192.0.2.0/24\"]\n");
    let path = bench.socket.clone();
    let connect = || UnixStream::connect(&path).unwrap();
    // Says nothing, says something else, promises too much, breaks off, does not read its answer.
    let _silent = connect();
    let mut writers: Vec<UnixStream> = (0..4).map(|_| connect()).collect();
    writers[0].write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    writers[1].write_all(&control(START)).unwrap();
    writers[1].write_all(&[0x7f; 8]).unwrap();
    writers[2].write_all(&control(READY)[..20]).unwrap();
    writers[3].write_all(&control(READY)).unwrap();
    drop(writers.remove(2));
    // Garbage in good frames, and a good one behind it.
    let mut good = connect();
    good.write_all(&control(READY)).unwrap();
    let mut accepted = [0; 42];
    good.read_exact(&mut accepted).unwrap();
    good.write_all(&[control(START), vec![0, 0, 0, 3, 1, 2, 3], written("good.example", [192, 0, 2, 5])].concat())
        .unwrap();
    let stats = bench.wait("the good name", |stats| stats.names.known > 0);
    assert_eq!((of(&stats, "dnstap").unread, of(&stats, "dnstap").questions), (1, 1), "{stats:?}");
    bench.wait("two that broke off", |stats| of(stats, "dnstap").broken >= 2);
    // The end is answered, as the protocol has it.
    good.write_all(&control(STOP)).unwrap();
    let mut finished = [0; 12];
    good.read_exact(&mut finished).unwrap();
    assert_eq!(finished[11], 5);
    // A stranger is counted, and not learnt from.
    let mut other = connect();
    other.write_all(&[control(START), written("evil.example", [203, 0, 113, 5])].concat()).unwrap();
    let stats = bench.wait("the stranger", |stats| stats.drops["stranger"] > 0);
    assert_eq!(stats.names.known, 1, "{stats:?}");
}

#[test]
fn too_many_writers_are_turned_away() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    let mut bench = bench(DNSTAP, &[], "");
    let many: Vec<UnixStream> = (0..70).map(|_| UnixStream::connect(&bench.socket).unwrap()).collect();
    bench.wait("six turned away", |stats| of(stats, "dnstap").refused == 6 && of(stats, "dnstap").feeds == 64);
    drop(many);
    bench.wait("room again", |stats| of(stats, "dnstap").feeds == 0);
    let mut good = UnixStream::connect(&bench.socket).unwrap();
    good.write_all(&[control(START), written("good.example", [127, 0, 0, 1])].concat()).unwrap();
    bench.wait("the good name", |stats| stats.names.known == 1);
}

/// A flood is taken in or counted, to the last one, and the daemon answers meanwhile.
#[test]
fn a_flood_is_counted_to_the_last() {
    if skip(needs::NAME_SERVERS) {
        return;
    }
    const MANY: u64 = 200_000;
    let mut bench = bench(DNSTAP, &[], "");
    let mut writer = UnixStream::connect(&bench.socket).unwrap();
    let flood: Vec<u8> = (0..MANY as u32).flat_map(|n| written(&question::random_name(n), [127, 0, 0, 1])).collect();
    let started = clock::now();
    let sender = std::thread::spawn(move || {
        writer.write_all(&control(START)).unwrap();
        writer.write_all(&flood).unwrap();
    });
    bench.daemon.stats().unwrap();
    sender.join().unwrap();
    let stats = bench.wait("all of it", |stats| of(stats, "dnstap").questions == MANY);
    let took = (clock::now() - started).max(Duration::from_micros(1));
    let dropped = of(&stats, "dnstap").dropped;
    println!("{MANY} questions in {took:?}: {:.0} a second, {dropped} dropped", MANY as f64 / took.as_secs_f64());
    assert_eq!((stats.leases.opened, stats.names.warmed), (0, 0), "{stats:?}");
    assert!(dropped < MANY, "{stats:?}");
}
