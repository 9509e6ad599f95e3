//! Programs over packets, without any interface (`BPF_PROG_TEST_RUN`): verdicts, packets and records.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use prewarm_ebpf::{
    abi::{BENCH_NEW, BENCH_VARY, EGRESS, INGRESS, PASS},
    answers::{A, BENCH_ANSWER, BENCH_DROP, BENCH_RESTORE, BENCH_TAIL},
    tproxy::TPROXY,
};
use prewarm_user::{
    kernel::{Key, MIN_FRAME, Settings, Trial, object},
    resolve::answers,
};

use super::Trying;
use crate::{
    answers::{Holder, is_sealed, message, seal, server},
    frames::{self, Question},
    parse,
};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
/// `TC_ACT_UNSPEC`, −1: the next program, or what is configured.
const NEXT: u32 = u32::MAX;
/// RD, as kinds of questions have it.
const RECURSION: u8 = 1;

/// All of them.
pub(super) const ALL: &[Trying] = &[
    Trying { programs: &[INGRESS], what: "frames pass, and what is in them is told", run: told_at_ingress },
    Trying { programs: &[EGRESS], what: "frames go on, and what is in them is told", run: told_at_egress },
    Trying { programs: &[INGRESS], what: "a frame that ends anywhere is read whole or not at all", run: cut },
    Trying { programs: &[INGRESS, EGRESS], what: "a question whose answer lies ready is answered", run: answered },
    Trying { programs: &[INGRESS], what: "a question that wants more goes to the server as it is", run: left_alone },
    Trying { programs: &[TPROXY], what: "a connection without a lease goes on as it is", run: not_taken },
    Trying { programs: &[PASS], what: "everything passes", run: passed },
    Trying { programs: &[BENCH_NEW, BENCH_VARY], what: "another name in each packet", run: varied },
    Trying { programs: &[BENCH_ANSWER], what: "answers again and again", run: answered_again },
    Trying { programs: &[BENCH_RESTORE, BENCH_TAIL], what: "a packet is as long as before", run: restored },
    Trying { programs: &[BENCH_DROP], what: "datagrams of IPv4 are dropped and all else passes", run: dropped },
];

fn key() -> Key {
    Key::from_secret(&[9; 32])
}

fn ask(client: &str, tags: &[u16]) -> anyhow::Result<Question> {
    let question = Question::new("www.example.org".parse()?);
    Ok(Question { client: client.parse()?, tags: tags.to_vec(), ..question })
}

/// Questions and answers in every wrapping that a test run can carry to this hook.
fn wrapped(tags: &[&[u16]]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for client in ["192.0.2.1", "2001:db8::1"] {
        for tags in tags {
            let ask = ask(client, tags)?;
            let edns = Question { edns: true, qtype: 28, ..ask.clone() };
            all.extend([frames::question(&ask), frames::question(&edns), frames::answer(&ask)]);
            all.push(frames::stream(&ask, &[ask.message(), edns.message()]));
        }
    }
    Ok(all)
}

/// Runs a program over a frame and compares verdict and records with what the parser finds on the host.
fn compare(trial: &mut Trial, program: &'static str, frame: &[u8], verdict: u32) -> anyhow::Result<usize> {
    let (given, after) = trial.transform(program, frame)?;
    ensure!(given == verdict, "the verdict is {given}, not {verdict}, over {frame:02x?}");
    ensure!(after == frame, "{frame:02x?} became {after:02x?}");
    let seen: Vec<_> = trial.records().into_iter().map(parse::record).collect();
    let wanted = parse::frame(frame, key().words());
    ensure!(seen == wanted, "told was {seen:?}, not {wanted:?}");
    Ok(seen.len())
}

fn told(program: &'static str, tags: &[&[u16]], verdict: u32) -> anyhow::Result<()> {
    let settings = Settings { window: std::time::Duration::ZERO, ..Settings::new(key()) };
    let mut trial = Trial::load(object().context("no kernel programs")?, &settings, &[program])?;
    for frame in wrapped(tags)? {
        let found = compare(&mut trial, program, &frame, verdict)?;
        ensure!(found >= 1, "nothing was found in {frame:02x?}");
    }
    compare(&mut trial, program, &frames::tcp(443), verdict).map(drop)
}

fn told_at_ingress() -> anyhow::Result<()> {
    told(INGRESS, &[&[], &[0x8100], &[0x88a8, 0x8100]], XDP_PASS)
}

fn told_at_egress() -> anyhow::Result<()> {
    told(EGRESS, &[&[]], NEXT)
}

fn cut() -> anyhow::Result<()> {
    let mut trial = Trial::ingress(object().context("no kernel programs")?, key())?;
    for frame in wrapped(&[&[0x8100]])? {
        for end in MIN_FRAME..frame.len() {
            compare(&mut trial, INGRESS, &frame[..end], XDP_PASS)?;
        }
    }
    Ok(())
}

/// A question for an address, and what the server said to it: one with a TTL of 300.
fn said(name: &str) -> anyhow::Result<(answers::Question, Vec<u8>)> {
    let question = answers::Question { name: name.parse()?, qtype: A, kind: RECURSION };
    let mut reply = question.message(0x4242);
    reply[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
    reply[7] = 1;
    reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 198, 51, 100, 7]);
    Ok((question, reply))
}

/// The frame that asks it.
fn asking(question: &answers::Question, client: IpAddr, tags: &[u16]) -> Vec<u8> {
    let ask = Question { client, tags: tags.to_vec(), ..Question::new(question.name.clone()) };
    let mut frame = frames::wrap(&ask, 17, &frames::udp(40_000, 53, &question.message(0xbeef)), false);
    seal(&mut frame);
    frame
}

fn clients() -> [IpAddr; 2] {
    [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])]
}

fn answered() -> anyhow::Result<()> {
    let mut holder = Holder::new(&[])?;
    for name in ["www.example.org", "ww.example.org"] {
        for client in clients() {
            let (question, reply) = said(name)?;
            // 2.3 s ago, counted in seconds; a guest has hardly been up for more.
            holder.lay(&question, &reply, server(client), 2_300_000_000)?;
            for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
                let (verdict, given) = holder.run(&asking(&question, client, tags))?;
                let counts = holder.counters.read()?;
                ensure!(verdict == XDP_TX, "the verdict is {verdict}, not XDP_TX: {client} {tags:?} {counts:?}");
                ensure!(is_sealed(&given), "a check sum is wrong: {client} {tags:?} {given:02x?}");
                let mut wanted = reply.clone();
                wanted[..2].copy_from_slice(&0xbeef_u16.to_be_bytes());
                let ttl = wanted.len() - 10;
                wanted[ttl..ttl + 4].copy_from_slice(&(300_u32 - 2).to_be_bytes());
                let message = &given[message(&given)..];
                ensure!(message == wanted, "{client} {tags:?}: {message:02x?}, not {wanted:02x?}");
            }
        }
    }
    Ok(())
}

fn left_alone() -> anyhow::Result<()> {
    let mut holder = Holder::new(&[])?;
    for client in clients() {
        let (question, reply) = said("www.example.org")?;
        holder.lay(&question, &reply, server(client), 0)?;
        let good = asking(&question, client, &[]);
        ensure!(holder.run(&good)?.0 == XDP_TX, "the plain question isn't answered");
        let at = message(&good);
        // CD; another type; class CH; another name.
        for (place, value) in [(at + 3, 0x10), (good.len() - 3, 16), (good.len() - 1, 3), (at + 13, b'v')] {
            let mut frame = good.clone();
            frame[place] = value;
            seal(&mut frame);
            let (verdict, after) = holder.run(&frame)?;
            ensure!(verdict == XDP_PASS && after == frame, "byte {place} set to {value}: verdict {verdict}");
        }
    }
    Ok(())
}

fn not_taken() -> anyhow::Result<()> {
    let settings = Settings { tproxy: true, ..Settings::new(key()) };
    let mut trial = Trial::load(object().context("no kernel programs")?, &settings, &[TPROXY])?;
    let first = {
        let mut frame = frames::tcp(443);
        // Only SYN.
        frame[14 + 20 + 13] = 2;
        frame
    };
    for frame in [first, frames::tcp(443), frames::question(&ask("2001:db8::1", &[])?)] {
        let (verdict, after) = trial.transform(TPROXY, &frame)?;
        ensure!(verdict == NEXT && after == frame, "verdict {verdict} over {frame:02x?}");
    }
    Ok(())
}

fn passed() -> anyhow::Result<()> {
    let mut trial = Trial::load(object().context("no kernel programs")?, &Settings::new(key()), &[PASS])?;
    for frame in wrapped(&[&[]])? {
        compare_verdict(&mut trial, PASS, &frame)?;
    }
    Ok(())
}

fn compare_verdict(trial: &mut Trial, program: &'static str, frame: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (verdict, after) = trial.transform(program, frame)?;
    ensure!(verdict == XDP_PASS, "{program}: the verdict is {verdict}, not XDP_PASS");
    Ok(after)
}

fn varied() -> anyhow::Result<()> {
    let frame = frames::question(&Question::new("aaaa.example.org".parse()?));
    let programs = [BENCH_NEW, BENCH_VARY];
    let mut trial = Trial::load(object().context("no kernel programs")?, &Settings::new(key()), &programs)?;
    for program in programs {
        let after = compare_verdict(&mut trial, program, &frame)?;
        ensure!(after.len() == frame.len() && after != frame, "{program}: the name is the same");
    }
    Ok(())
}

/// A question as the benches send it: its IP packet's number is its length.
fn numbered(question: &answers::Question) -> anyhow::Result<Vec<u8>> {
    let mut frame = asking(question, clients()[0], &[]);
    let length = u16::try_from(frame.len())?;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    seal(&mut frame);
    Ok(frame)
}

fn answered_again() -> anyhow::Result<()> {
    let (question, reply) = said("www.example.org")?;
    let mut holder = Holder::new(&[BENCH_ANSWER])?;
    holder.lay(&question, &reply, server(clients()[0]), 0)?;
    let (verdict, given) = holder.trial.transform(BENCH_ANSWER, &numbered(&question)?)?;
    ensure!(verdict == XDP_TX && is_sealed(&given), "the verdict is {verdict}: {:?}", holder.counters.read()?);
    Ok(())
}

fn restored() -> anyhow::Result<()> {
    let (question, _) = said("www.example.org")?;
    let frame = numbered(&question)?;
    let programs = [BENCH_RESTORE, BENCH_TAIL];
    let mut trial = Trial::load(object().context("no kernel programs")?, &Settings::new(key()), &programs)?;
    for program in programs {
        let after = compare_verdict(&mut trial, program, &frame)?;
        ensure!(after.len() == frame.len(), "{program}: {} bytes of {}", after.len(), frame.len());
    }
    Ok(())
}

fn dropped() -> anyhow::Result<()> {
    let mut trial = Trial::load(object().context("no kernel programs")?, &Settings::new(key()), &[BENCH_DROP])?;
    let (v4, v6) = (frames::question(&ask("192.0.2.1", &[])?), frames::question(&ask("2001:db8::1", &[])?));
    for (frame, wanted) in [(v4, XDP_DROP), (v6, XDP_PASS), (frames::tcp(443), XDP_PASS)] {
        let (verdict, _) = trial.transform(BENCH_DROP, &frame)?;
        ensure!(verdict == wanted, "the verdict is {verdict}, not {wanted}, over {frame:02x?}");
    }
    Ok(())
}
