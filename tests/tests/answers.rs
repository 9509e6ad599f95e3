//! Answers of the kernel, by test run: what is answered, how exactly, and what is left to the server.
#![expect(clippy::print_stdout, reason = "tests say there what they skip")]

use std::net::IpAddr;

use prewarm_ebpf::answers::{A, AAAA, AnswerCounter as C, AnswerRules, AnswerUse, HTTPS};
use prewarm_tests::{
    answers::{Holder, is_sealed, lenient, message, network, seal, server, words},
    frames, kernel,
};
use prewarm_user::resolve::answers::Question;

const PASS: u32 = 2;
const TX: u32 = 3;
const SECOND: u64 = 1_000_000_000;
const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const RECURSION: u8 = 1;
const EDNS: u8 = 4;

fn skipped() -> bool {
    let reason = kernel::missing();
    if let Some(reason) = reason {
        println!("skipped: {reason}");
    }
    reason.is_some()
}

/// A message: header of an answer, the question of `question`, then these bytes; with an OPT record where its kind has one.
fn reply(question: &Question, flags: u16, counts: [u16; 3], records: &[u8]) -> Vec<u8> {
    let mut bytes = question.message(0x4242);
    let edns = question.kind & EDNS != 0;
    bytes.truncate(12 + question.name.as_wire().len() + 4);
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    let mut counts = counts;
    counts[2] += u16::from(edns);
    for (place, count) in bytes[6..12].chunks_mut(2).zip(counts) {
        place.copy_from_slice(&count.to_be_bytes());
    }
    bytes.extend(records);
    if edns {
        bytes.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    }
    bytes
}

fn record(rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    record_of(&[0xc0, 0x0c], rtype, ttl, data)
}

fn record_of(owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend(rtype.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn soa(owner: &[u8], ttl: u32) -> Vec<u8> {
    let mut data = b"\x02ns\xc0\x0c\x01h\xc0\x0c".to_vec();
    for number in [1_u32, 7200, 3600, 86_400, 300] {
        data.extend(number.to_be_bytes());
    }
    record_of(owner, 6, ttl, &data)
}

fn question(name: &str, qtype: u16, kind: u8) -> Question {
    Question { name: name.parse().unwrap(), qtype, kind }
}

/// The frame that asks it; `case` writes the name.
fn frame(question: &Question, client: IpAddr, tags: &[u16], case: impl Fn(usize, u8) -> u8) -> Vec<u8> {
    let wire = question.name.as_wire().iter().enumerate().map(|(at, &byte)| case(at, byte)).collect();
    let asked = frames::Question { client, tags: tags.to_vec(), ..frames::Question::new(question.name.clone()) };
    let mut payload = question.message(0xbeef);
    let wire: Vec<u8> = wire;
    payload[12..12 + wire.len()].copy_from_slice(&wire);
    let mut frame = frames::wrap(&asked, 17, &frames::udp(40_000, 53, &payload), false);
    seal(&mut frame);
    frame
}

fn plain(_: usize, byte: u8) -> u8 {
    byte
}

fn mixed(at: usize, byte: u8) -> u8 {
    if at.is_multiple_of(2) { byte.to_ascii_uppercase() } else { byte }
}

/// What must come of a frame that is answered by this message, so many seconds later.
fn expected(frame: &[u8], reply: &[u8], question: &Question, ttl_at: &[usize], age: u32) -> Vec<u8> {
    let (ip, at) = (network(frame), message(frame));
    let end = at + 12 + question.name.as_wire().len() + 4;
    let mut wanted = frame[..at].to_vec();
    let (destination, source) = (frame[..6].to_vec(), frame[6..12].to_vec());
    wanted[..6].copy_from_slice(&source);
    wanted[6..12].copy_from_slice(&destination);
    // The number, the question as it was written, and everything else from the reply.
    let mut dns = frame[at..end].to_vec();
    dns[2..12].copy_from_slice(&reply[2..12]);
    dns.extend(&reply[end - at..]);
    for &place in ttl_at {
        let ttl = u32::from_be_bytes(dns[place..place + 4].try_into().unwrap()) - age;
        dns[place..place + 4].copy_from_slice(&ttl.to_be_bytes());
    }
    let udp = (8 + dns.len()) as u16;
    if frame[ip] >> 4 == 6 {
        wanted[ip..ip + 8].copy_from_slice(&[0x60, 0, 0, 0, (udp >> 8) as u8, udp as u8, 17, 64]);
        wanted[ip + 8..ip + 24].copy_from_slice(&frame[ip + 24..ip + 40]);
        wanted[ip + 24..ip + 40].copy_from_slice(&frame[ip + 8..ip + 24]);
    } else {
        let total = 20 + udp;
        wanted[ip..ip + 4].copy_from_slice(&[0x45, 0, (total >> 8) as u8, total as u8]);
        wanted[ip + 6..ip + 10].copy_from_slice(&[0, 0, 64, 17]);
        wanted[ip + 12..ip + 16].copy_from_slice(&frame[ip + 16..ip + 20]);
        wanted[ip + 16..ip + 20].copy_from_slice(&frame[ip + 12..ip + 16]);
    }
    wanted[at - 8..at - 4].copy_from_slice(&[0, 53, 40_000_u16.to_be_bytes()[0], 40_000_u16.to_be_bytes()[1]]);
    wanted[at - 4..at - 2].copy_from_slice(&udp.to_be_bytes());
    wanted.extend(dns);
    seal(&mut wanted);
    wanted
}

/// Places of TTLs in a message whose records begin behind the question.
fn ttl_places(question: &Question, reply: &[u8]) -> Vec<usize> {
    let answer = prewarm_user::resolve::answers::Answer::read(question, 0x4242, reply).unwrap();
    let begin = 12 + question.name.as_wire().len() + 4;
    answer.ttl_at.iter().map(|&at| begin + usize::from(at)).collect()
}

/// The kinds of answers: each with its question and the records that answer it.
fn kinds() -> Vec<(Question, Vec<u8>)> {
    let mut all = Vec::new();
    for kind in [RECURSION, RECURSION | EDNS, 0, RECURSION | 2 | EDNS] {
        // Names of an odd and of an even length, so that what follows begins at either.
        for name in ["www.example.org", "ww.example.org", "a", "a.very.long.name.with.many.labels.in.it.example.org"] {
            let asked = question(name, A, kind);
            let flags = 0x8080 | if kind & 1 != 0 { 0x100 } else { 0 };
            all.push((asked.clone(), reply(&asked, flags, [1, 0, 0], &record(A, 300, &[198, 51, 100, 7]))));
            let asked = question(name, AAAA, kind);
            all.push((asked.clone(), reply(&asked, flags | 0x400, [1, 0, 0], &record(AAAA, 77, &[7; 16]))));
            let asked = question(&format!("s.{name}"), HTTPS, kind);
            let data = b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x04\0\x04\xc0\x00\x02\x01";
            all.push((asked.clone(), reply(&asked, flags | 0x20, [1, 0, 0], &record(HTTPS, 3600, data))));
            let asked = question(&format!("c.{name}"), A, kind);
            let mut chain = record(5, 500, b"\x03cdn\x07example\x03net\0");
            let target = 12 + asked.name.as_wire().len() as u16 + 4 + 12;
            let owner = (0xc000 | target).to_be_bytes();
            chain.extend(record_of(&owner, A, 60, &[192, 0, 2, 7]));
            all.push((asked.clone(), reply(&asked, flags, [2, 0, 0], &chain)));
            let asked = question(&format!("nx.{name}"), A, kind);
            all.push((asked.clone(), reply(&asked, flags | 3, [0, 1, 0], &soa(&[0xc0, 15], 900))));
            let asked = question(&format!("no.{name}"), AAAA, kind);
            all.push((asked.clone(), reply(&asked, flags, [0, 1, 0], &soa(&[0xc0, 0x0c], 120))));
        }
    }
    all
}

#[test]
fn an_answer_is_the_servers_to_the_byte() {
    if skipped() {
        return;
    }
    let mut compared = 0;
    for batch in kinds().chunks(30) {
        let mut holder = Holder::new(&[]).unwrap();
        for (asked, reply) in batch {
            for client in [V4, V6] {
                // 42.3 s ago, counted in seconds.
                holder.lay(asked, reply, server(client), 42 * SECOND + 300_000_000).unwrap();
                for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                    for case in [plain as fn(usize, u8) -> u8, mixed] {
                        let asking = frame(asked, client, tags, case);
                        let (verdict, given) = holder.run(&asking).unwrap();
                        assert_eq!(verdict, TX, "{asked:?} {client} {tags:?}: {:?}", holder.counters.read());
                        assert!(is_sealed(&given), "{asked:?} {client} {tags:?}");
                        let wanted = expected(&asking, reply, asked, &ttl_places(asked, reply), 42);
                        assert_eq!(given, wanted, "{asked:?} {client} {tags:?}");
                        compared += 1;
                    }
                }
            }
        }
        assert_eq!(holder.count(C::Answered).unwrap(), batch.len() as u64 * 12);
    }
    assert!(compared >= 1000, "{compared}");
}

#[test]
fn what_is_not_plain_passes_untouched() {
    if skipped() {
        return;
    }
    let mut holder = Holder::new(&[]).unwrap();
    let asked = question("www.example.org", A, RECURSION | EDNS);
    let reply = reply(&asked, 0x8180, [1, 0, 0], &record(A, 300, &[198, 51, 100, 7]));
    for client in [V4, V6] {
        holder.lay(&asked, &reply, server(client), 0).unwrap();
    }
    let good = |client| frame(&asked, client, &[], plain);
    assert_eq!(holder.run(&good(V4)).unwrap().0, TX);
    assert_eq!(holder.run(&good(V6)).unwrap().0, TX);
    let opt = |frame: &[u8]| frame.len() - 11;
    // What is changed, in the datagram of IPv4 unless said otherwise; lengths are set right again by the second value.
    type Change = fn(&mut Vec<u8>, usize, usize);
    let cases: [(C, &str, Change); 24] = [
        (C::Dnssec, "DO", |f, _, opt| f[opt + 7] = 0x80),
        (C::EdnsVersion, "EDNS version 1", |f, _, opt| f[opt + 6] = 1),
        (C::EdnsVersion, "an unknown EDNS flag", |f, _, opt| f[opt + 8] = 1),
        (C::EdnsVersion, "an extended response code", |f, _, opt| f[opt + 5] = 1),
        (C::EdnsOption, "a client subnet", |f, _, _| option(f, 8, b"\0\x01\x18\0\xc0\0\x02")),
        (C::EdnsOption, "a cookie", |f, _, _| option(f, 10, b"12345678")),
        (C::EdnsOption, "padding", |f, _, _| option(f, 12, b"")),
        (C::EdnsOption, "an unknown option", |f, _, _| option(f, 65_001, b"x")),
        (C::Records, "TSIG", |f, at, _| {
            f[at + 11] = 2;
            f.extend(b"\0\0\xfa\0\xff\0\0\0\0\0\0");
        }),
        (C::Records, "an OPT record of another owner", |f, _, opt| f[opt] = 1),
        (C::Records, "bytes behind the last record", |f, _, _| f.push(0)),
        (C::Records, "an answer in the question", |f, at, _| f[at + 7] = 1),
        (C::Records, "an authority in the question", |f, at, _| f[at + 9] = 1),
        (C::Records, "an OPT record that isn't counted", |f, at, _| f[at + 11] = 0),
        (C::Flags, "CD", |f, at, _| f[at + 3] |= 0x10),
        (C::Flags, "Z", |f, at, _| f[at + 3] |= 0x40),
        (C::Flags, "AA", |f, at, _| f[at + 2] |= 4),
        (C::Flags, "TC", |f, at, _| f[at + 2] |= 2),
        (C::Flags, "RA", |f, at, _| f[at + 3] |= 0x80),
        (C::Type, "class CH", |f, _, opt| f[opt - 1] = 3),
        (C::Type, "type TXT", |f, _, opt| f[opt - 3] = 16),
        (C::Missing, "no recursion", |f, at, _| f[at + 2] = 0),
        (C::Missing, "another name", |f, at, _| f[at + 13] = b'v'),
        (C::Missing, "a compressed name", |f, at, _| f[at + 12] = 0xc0),
    ];
    for client in [V4, V6] {
        for (reason, what, change) in cases {
            let mut asking = good(client);
            let (at, opt) = (message(&asking), opt(&asking));
            change(&mut asking, at, opt);
            fit(&mut asking);
            assert_passes(&mut holder, &asking, Some(reason), &format!("{what}, {client}"));
        }
        // Another message altogether: left alone without a word.
        for (what, change) in [
            ("two questions", (|f, at, _| f[at + 5] = 2) as Change),
            ("no question", |f, at, _| f[at + 5] = 0),
            ("opcode NOTIFY", |f, at, _| f[at + 2] |= 0x20),
            ("an answer", |f, at, _| f[at + 2] |= 0x80),
        ] {
            let mut asking = good(client);
            let at = message(&asking);
            change(&mut asking, at, 0);
            fit(&mut asking);
            assert_passes(&mut holder, &asking, None, &format!("{what}, {client}"));
        }
    }
}

#[test]
fn headers_that_cannot_be_turned_around_pass() {
    if skipped() {
        return;
    }
    let mut holder = Holder::new(&[]).unwrap();
    let asked = question("www.example.org", A, RECURSION);
    let reply = reply(&asked, 0x8180, [1, 0, 0], &record(A, 300, &[198, 51, 100, 7]));
    for client in [V4, V6] {
        holder.lay(&asked, &reply, server(client), 0).unwrap();
        let asking = frame(&asked, client, &[], plain);
        let (ip, at) = (network(&asking), message(&asking));
        let mut many = asking.clone();
        many[0] = 1;
        assert_passes(&mut holder, &many, Some(C::Unicast), "a frame for many");
        let mut nobody = asking.clone();
        nobody[at - 8..at - 6].fill(0);
        assert_passes(&mut holder, &nobody, Some(C::Unicast), "no port");
        let mut unspecified = asking.clone();
        if client == V4 {
            unspecified[ip + 12..ip + 16].fill(0);
        } else {
            unspecified[ip + 8..ip + 24].fill(0);
        }
        assert_passes(&mut holder, &unspecified, Some(C::Unicast), "no address");
        let mut from_many = asking.clone();
        from_many[if client == V4 { ip + 12 } else { ip + 8 }] = if client == V4 { 224 } else { 0xff };
        assert_passes(&mut holder, &from_many, Some(C::Unicast), "from a group");
        let mut long = asking.clone();
        long.push(0);
        let total = if client == V4 { ip + 3 } else { ip + 5 };
        long[total] += 1;
        assert_passes(&mut holder, &long, Some(C::IpHeader), "bytes behind the datagram");
        let extensions = if client == V4 { vec![(0, vec![1, 1, 1, 0])] } else { vec![(60, vec![0, 1, 4, 0, 0, 0, 0])] };
        let options = frames::Question { client, extensions, ..frames::Question::new(asked.name.clone()) };
        let options = frames::wrap(&options, 17, &frames::udp(40_000, 53, &asked.message(1)), false);
        assert_passes(&mut holder, &options, Some(C::IpHeader), "IP options");
        // A frame that is padded to the least length of Ethernet is as good as another.
        let mut padded = asking.clone();
        padded.resize(asking.len() + 9, 0);
        assert_eq!(holder.run(&padded).unwrap(), holder.run(&asking).unwrap());
    }
    let mut unsummed = frame(&asked, V6, &[], plain);
    let at = message(&unsummed);
    unsummed[at - 2..at].fill(0);
    assert_passes(&mut holder, &unsummed, Some(C::IpHeader), "IPv6 without check sum");
}

#[test]
fn sizes_are_kept() {
    if skipped() {
        return;
    }
    let mut holder = Holder::new(&[]).unwrap();
    // 24 + 4 + 12 + 30 records of 16 bytes: 520 bytes, more than everybody takes.
    let name = format!("{}.example.org", "l".repeat(10));
    let set: Vec<u8> = (0..23).flat_map(|n| record(A, 300, &[192, 0, 2, n])).collect();
    let big = question(&format!("{}.{name}", "m".repeat(60)), A, RECURSION);
    let message_of = |asked: &Question| reply(asked, 0x8180, [23, 0, 0], &set);
    let long = format!("{}.{}.{name}", "m".repeat(60), "n".repeat(44));
    for (asked, fits) in
        [(big, true), (question(&long, A, RECURSION), false), (question(&long, A, RECURSION | EDNS), true)]
    {
        let reply = message_of(&asked);
        holder.lay(&asked, &reply, server(V4), 0).unwrap();
        let asking = frame(&asked, V4, &[], plain);
        assert_eq!(reply.len() <= 512 || asked.kind & EDNS != 0, fits, "{}", reply.len());
        if fits {
            assert_eq!(holder.run(&asking).unwrap().0, TX, "{} bytes", reply.len());
        } else {
            assert_passes(&mut holder, &asking, Some(C::TooLong), "without EDNS");
        }
        if asked.kind & EDNS != 0 {
            for (size, verdict) in [(reply.len() as u16, TX), (reply.len() as u16 - 1, PASS), (100, PASS)] {
                let mut asking = asking.clone();
                let at = asking.len() - 8;
                asking[at..at + 2].copy_from_slice(&size.to_be_bytes());
                seal(&mut asking);
                assert_eq!(holder.run(&asking).unwrap().0, verdict, "{size}");
            }
        }
    }
    // What policy allows.
    let asked = question("www.example.org", A, RECURSION);
    let reply = reply(&asked, 0x8180, [1, 0, 0], &record(A, 300, &[198, 51, 100, 7]));
    holder.lay(&asked, &reply, server(V4), 0).unwrap();
    let asking = frame(&asked, V4, &[], plain);
    holder.maps.rule(&AnswerRules { longest: reply.len() as u16 - 1, ..lenient() }).unwrap();
    assert_passes(&mut holder, &asking, Some(C::Policy), "longer than the longest");
    holder.maps.rule(&AnswerRules { ratio: 1, ..lenient() }).unwrap();
    assert_passes(&mut holder, &asking, Some(C::Policy), "longer than its question");
    holder.maps.rule(&AnswerRules { longest: reply.len() as u16, ratio: 2, ..lenient() }).unwrap();
    assert_eq!(holder.run(&asking).unwrap().0, TX);
}

#[test]
fn nothing_is_given_beyond_its_time_or_without_the_daemon() {
    if skipped() {
        return;
    }
    let mut holder = Holder::new(&[]).unwrap();
    let old = question("old.example.org", A, RECURSION);
    let message_of = |asked: &Question, ttl| reply(asked, 0x8180, [1, 0, 0], &record(A, ttl, &[198, 51, 100, 7]));
    holder.lay(&old, &message_of(&old, 10), server(V4), 10 * SECOND).unwrap();
    assert_passes(&mut holder, &frame(&old, V4, &[], plain), Some(C::Expired), "ten seconds of ten");
    let last = question("last.example.org", A, RECURSION);
    holder.lay(&last, &message_of(&last, 1000), server(V4), 999 * SECOND + 300_000_000).unwrap();
    let asking = frame(&last, V4, &[], plain);
    let (verdict, given) = holder.run(&asking).unwrap();
    assert_eq!(verdict, TX);
    let at = message(&given) + 12 + last.name.as_wire().len() + 4 + 6;
    assert_eq!(given[at..at + 4], 1_u32.to_be_bytes(), "the last second says 1");

    // The daemon ends, or hangs.
    holder.heart.end().unwrap();
    let stale = |holder: &mut Holder| holder.trial.transform(prewarm_ebpf::abi::INGRESS, &asking).unwrap().0;
    assert_eq!(stale(&mut holder), PASS);
    holder.heart.beat().unwrap();
    assert_eq!(stale(&mut holder), TX);
    std::thread::sleep(std::time::Duration::from_millis(2050));
    assert_eq!(stale(&mut holder), PASS);
    assert_eq!(holder.count(C::Stale).unwrap(), 2);
}

#[test]
fn clients_the_server_has_not_answered_are_left_to_it() {
    if skipped() {
        return;
    }
    let mut holder = Holder::new(&[]).unwrap();
    let asked = question("www.example.org", A, RECURSION);
    let reply = reply(&asked, 0x8180, [1, 0, 0], &record(A, 300, &[198, 51, 100, 7]));
    holder.lay(&asked, &reply, server(V4), 0).unwrap();
    let stranger = IpAddr::from([203, 0, 113, 9]);
    let asking = frame(&asked, stranger, &[], plain);
    assert_passes(&mut holder, &asking, Some(C::NewClient), "a stranger");
    holder.vouch(stranger).unwrap();
    assert_eq!(holder.run(&asking).unwrap().0, TX);
    // The server changes its mind.
    let refused = frames::Question { client: stranger, ..frames::Question::new(asked.name.clone()) };
    let mut refusal = frames::answer(&refused);
    let at = message(&refusal);
    refusal[at + 3] |= 5;
    holder.trial.transform(prewarm_ebpf::abi::EGRESS, &refusal).unwrap();
    assert_passes(&mut holder, &asking, Some(C::NewClient), "refused");
    assert_eq!(holder.count(C::Refused).unwrap(), 1);
    // Another server's answer says nothing of ours: frames of the other family go to another address.
    let elsewhere = question("www.example.org", A, RECURSION);
    let other = IpAddr::from([203, 0, 113, 10]);
    assert_passes(&mut holder, &frame(&elsewhere, other, &[], plain), Some(C::NewClient), "another stranger");
}

#[test]
fn a_network_has_its_share_and_no_more() {
    if skipped() {
        return;
    }
    let mut holder = Holder::new(&[]).unwrap();
    for kind in [RECURSION, RECURSION | EDNS] {
        let asked = question("www.example.org", A, kind);
        let reply = reply(&asked, 0x8180, [1, 0, 0], &record(A, 300, &[198, 51, 100, 7]));
        holder.lay(&asked, &reply, server(V4), 0).unwrap();
        let other = IpAddr::from([198, 18, 0, 1]);
        holder.vouch(other).unwrap();
        // Ten answers at once, then one a minute; of those denied, one in three is truncated. A new network each time.
        holder.maps.rule(&AnswerRules { cost: 60 * SECOND, burst: 9 * 60 * SECOND, truncate: 3, ..lenient() }).unwrap();
        let neighbour = IpAddr::from([192, 0, 2, 77 + kind]);
        holder.vouch(neighbour).unwrap();
        let before = holder.count(C::Answered).unwrap();
        let asking = frame(&asked, V4, &[], plain);
        let verdicts: Vec<u32> = (0..20)
            .map(|n| {
                // The network counts, not the client.
                let asking = if n % 2 == 0 { asking.clone() } else { frame(&asked, neighbour, &[], plain) };
                let (verdict, given) = holder.run(&asking).unwrap();
                if verdict == TX && n >= 10 {
                    let at = message(&given);
                    assert_eq!(given[at + 2] & 2, 2, "TC");
                    assert_eq!(given.len(), asking.len(), "no longer than the question");
                    assert_eq!(given[at + 6..at + 10], [0; 4]);
                    assert!(is_sealed(&given));
                    if kind & EDNS != 0 {
                        assert_eq!(given[given.len() - 8..given.len() - 6], [0x04, 0xd0], "the server's size");
                    }
                }
                verdict
            })
            .collect();
        if kind == RECURSION {
            assert_eq!(verdicts[..10], [TX; 10]);
            assert_eq!(verdicts[10..], [PASS, PASS, TX, PASS, PASS, TX, PASS, PASS, TX, PASS]);
            assert_eq!(holder.count(C::Answered).unwrap() - before, 10);
            assert_eq!(holder.count(C::Truncated).unwrap(), 3);
        }
        assert_eq!(holder.run(&frame(&asked, other, &[], plain)).unwrap().0, TX, "another network");
    }
}

#[test]
fn records_take_turns_by_the_number_of_the_question() {
    if skipped() {
        return;
    }
    let mut holder = Holder::new(&[]).unwrap();
    for (qtype, size) in [(A, 4), (AAAA, 16)] {
        let asked = question("many.example.org", qtype, RECURSION);
        let set: Vec<u8> = (1..=3).flat_map(|n| record(qtype, 300, &vec![n; size])).collect();
        let slot = holder.lay(&asked, &reply(&asked, 0x8180, [3, 0, 0], &set), server(V4), 0).unwrap();
        let order = |holder: &mut Holder, id: u16| {
            let mut asking = frame(&asked, V4, &[], plain);
            let at = message(&asking);
            asking[at..at + 2].copy_from_slice(&id.to_be_bytes());
            seal(&mut asking);
            let (verdict, given) = holder.run(&asking).unwrap();
            assert_eq!(verdict, TX);
            assert!(is_sealed(&given));
            let begin = at + 12 + asked.name.as_wire().len() + 4;
            (0..3).map(|n| given[begin + n * (12 + size) + 12]).collect::<Vec<_>>()
        };
        assert_eq!(order(&mut holder, 0), [1, 2, 3]);
        assert_eq!(order(&mut holder, 1), [2, 3, 1]);
        assert_eq!(order(&mut holder, 65_534 - 65_534 % 3 + 2), [3, 1, 2]);
        // A lease waits for the second.
        holder.maps.set_use(slot, AnswerUse { hits: 0, first: 2 }).unwrap();
        for id in [0, 1, 2] {
            assert_eq!(order(&mut holder, id), [2, 3, 1]);
        }
    }
}

#[test]
fn questions_seen_twice_are_wanted() {
    if skipped() {
        return;
    }
    let mut holder = Holder::new(&[]).unwrap();
    let wanted = |holder: &mut Holder| {
        let mut all = Vec::new();
        holder.wanted.drain(100, |record| {
            let name = &bytemuck::bytes_of(&record.name)[..usize::from(record.name_length)];
            all.push((name.to_vec(), record.qtype, record.kind, record.server, record.client, record.interface));
        });
        all
    };
    for length in [0, 1, 5, 6, 7, 8, 40, 61] {
        let name = format!("{}bb.{}example.org", "A".repeat(length), "l234567890123.".repeat(length / 5));
        let asked = question(&name, HTTPS, RECURSION | EDNS);
        let asking = frame(&asked, V6, &[], mixed);
        assert_passes(&mut holder, &asking, Some(C::Missing), "first");
        assert_eq!(wanted(&mut holder), []);
        assert_passes(&mut holder, &asking, Some(C::Missing), "second");
        let wire = asked.name.as_wire().to_vec();
        let all = [(wire, HTTPS, RECURSION | EDNS, words(server(V6)), words(V6), 1)];
        assert_eq!(wanted(&mut holder), all);
        assert_passes(&mut holder, &asking, Some(C::Missing), "told of a moment ago");
        assert_eq!(wanted(&mut holder), []);
    }
    // The longest name there is.
    let longest = [63, 63, 63, 61].map(|length| "x".repeat(length)).join(".");
    let asked = question(&longest, A, RECURSION);
    assert_eq!(asked.name.as_wire().len(), 255);
    let asking = frame(&asked, V4, &[], plain);
    for _ in 0..2 {
        assert_passes(&mut holder, &asking, Some(C::Missing), "the longest name");
    }
    assert_eq!(wanted(&mut holder)[0].0, asked.name.as_wire());
    // A stranger's questions lead to nothing.
    let strange = frame(&question("strange.example.org", A, RECURSION), IpAddr::from([203, 0, 113, 1]), &[], plain);
    for _ in 0..3 {
        assert_passes(&mut holder, &strange, Some(C::Missing), "a stranger");
    }
    assert_eq!(wanted(&mut holder), []);
}

#[test]
fn a_question_now_and_then_goes_to_the_server() {
    if skipped() {
        return;
    }
    let mut holder = Holder::new(&[]).unwrap();
    holder.maps.rule(&AnswerRules { audit: 7, own_port: 4000_u16.to_be(), ..lenient() }).unwrap();
    let asked = question("www.example.org", A, RECURSION);
    let reply = reply(&asked, 0x8180, [1, 0, 0], &record(A, 300, &[198, 51, 100, 7]));
    holder.lay(&asked, &reply, server(V4), 0).unwrap();
    let asking = frame(&asked, V4, &[], plain);
    let verdicts: Vec<u32> = (0..16).map(|_| holder.run(&asking).unwrap().0).collect();
    let wanted: Vec<u32> = (1..=16).map(|n| if n % 8 == 7 { PASS } else { TX }).collect();
    assert_eq!(verdicts, wanted);
    assert_eq!(holder.count(C::Audit).unwrap(), 2);
    // The daemon's own questions always do.
    let mut own = asking;
    let at = message(&own);
    own[at - 8..at - 6].copy_from_slice(&4000_u16.to_be_bytes());
    seal(&mut own);
    assert_passes(&mut holder, &own, None, "the daemon's own");
}

/// Runs over a frame that must pass as it is, for this reason.
fn assert_passes(holder: &mut Holder, frame: &[u8], reason: Option<C>, what: &str) {
    let before: Vec<u64> = C::ALL.iter().map(|&counter| holder.count(counter).unwrap()).collect();
    let (verdict, given) = holder.run(frame).unwrap();
    assert_eq!(verdict, PASS, "{what}");
    assert_eq!(given, frame, "{what}: the packet was written");
    let changed: Vec<C> = C::ALL
        .iter()
        .zip(before)
        .filter(|(counter, before)| holder.count(**counter).unwrap() != *before && counter.is_reason())
        .map(|(&counter, _)| counter)
        .collect();
    assert_eq!(changed, Vec::from_iter(reason), "{what}");
}

/// Adds an option to the OPT record that a frame ends with.
fn option(frame: &mut Vec<u8>, code: u16, data: &[u8]) {
    let length = frame.len() - 2;
    frame[length..].copy_from_slice(&(4 + data.len() as u16).to_be_bytes());
    frame.extend(code.to_be_bytes());
    frame.extend((data.len() as u16).to_be_bytes());
    frame.extend(data);
}

/// Sets the lengths and check sums of a frame that was changed.
fn fit(frame: &mut [u8]) {
    let (ip, at) = (network(frame), message(frame));
    let udp = (frame.len() - at + 8) as u16;
    frame[at - 4..at - 2].copy_from_slice(&udp.to_be_bytes());
    if frame[ip] >> 4 == 6 {
        frame[ip + 4..ip + 6].copy_from_slice(&udp.to_be_bytes());
    } else {
        frame[ip + 2..ip + 4].copy_from_slice(&(20 + udp).to_be_bytes());
    }
    seal(frame);
}
