//! A kernel that holds answers, without a network: test runs over questions, and what must come of them.
//!
//! Comes in: a question and the message that answers it. Goes out: the verdict and the packet. Never here: the code that
//! builds answers, checked by itself; packets are taken apart and added up anew.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use bytemuck::Zeroable as _;
use prewarm_ebpf::{
    abi::{EGRESS, INGRESS},
    answers::{self, AnswerCounter, AnswerRules, AnswerUse, BUCKET, INDEX_ENTRIES, ServerKey},
};
use prewarm_user::{
    kernel::{AnswerCounters, AnswerMaps, Heartbeat, Key, Settings, Trial, WantedRing, object},
    resolve::answers::{Answer, Question},
};

use crate::frames;

/// The interface that test runs come from: loopback.
pub const INTERFACE: u32 = 1;
/// Slots.
const ENTRIES: u32 = 64;

/// The programs with some answers.
pub struct Holder {
    /// The programs.
    pub trial: Trial,
    /// The maps of answers.
    pub maps: AnswerMaps,
    /// What is wanted.
    pub wanted: WantedRing,
    /// What is counted.
    pub counters: AnswerCounters,
    /// The beat.
    pub heart: Heartbeat,
    /// The key of names.
    pub key: Key,
    next: u32,
}

/// Nanoseconds on the monotonic clock.
#[must_use]
pub fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// An address as records have it.
#[must_use]
pub fn words(address: IpAddr) -> [u64; 2] {
    let v6 = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    bytemuck::cast(v6.octets())
}

/// The server that frames go to, of the family of a client.
#[must_use]
pub fn server(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => IpAddr::from([192, 0, 2, 53]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53]),
    }
}

/// Rules that leave everything to the other conditions.
#[must_use]
pub fn lenient() -> AnswerRules {
    AnswerRules {
        own_port: 9_u16.to_be(),
        longest: 1232,
        ratio: 100,
        audit: u64::MAX,
        client: u64::MAX,
        network4: words(IpAddr::from([255, 255, 255, 0])),
        network6: [u64::MAX, 0],
        ..AnswerRules::zeroed()
    }
}

impl Holder {
    /// Loads the programs for packets at the loopback interface, where both servers of [`server`] are switched on, known
    /// to the clients of `frames`, and the daemon beats.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn new(programs: &[&'static str]) -> anyhow::Result<Self> {
        let key = Key::from_secret(&[5; 32]);
        let settings =
            Settings { answers: ENTRIES, window: std::time::Duration::from_secs(3600), ..Settings::new(key.clone()) };
        let all: Vec<_> = [INGRESS, EGRESS].into_iter().chain(programs.iter().copied()).collect();
        let mut trial = Trial::load(object().context("built without the kernel programs")?, &settings, &all)?;
        let (parts, heart) = (trial.answers()?, trial.heartbeat()?);
        let mut holder =
            Self { trial, maps: parts.maps, wanted: parts.wanted, counters: parts.counters, heart, key, next: 0 };
        holder.maps.rule(&lenient())?;
        for client in [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])] {
            holder.maps.serve(ServerKey { address: words(server(client)), interface: INTERFACE, reserved: 0 })?;
            holder.vouch(client)?;
        }
        holder.heart.beat()?;
        Ok(holder)
    }

    /// Lets the server answer a client, as the egress program sees it.
    ///
    /// # Errors
    /// When the program can't be run.
    pub fn vouch(&mut self, client: IpAddr) -> anyhow::Result<()> {
        let question = frames::Question { client, ..frames::Question::new("vouch.example".parse()?) };
        self.trial.transform(EGRESS, &frames::answer(&question))?;
        self.trial.discard();
        Ok(())
    }

    /// Lays an answer ready that came `age` nanoseconds ago; gives its slot.
    ///
    /// # Errors
    /// When it can't be given again, or the maps are full.
    pub fn lay(&mut self, question: &Question, message: &[u8], server: IpAddr, age: u64) -> anyhow::Result<u32> {
        let id = u16::from_be_bytes([message[0], message[1]]);
        let answer = Answer::read(question, id, message)?;
        let resource = self.key.resource_id(&question.name);
        let mut slot = answer.slot(question, resource);
        slot.server = words(server);
        slot.interface = INTERFACE;
        slot.base = now() - age;
        slot.expires = slot.base + u64::from(answer.ttl) * 1_000_000_000;
        let number = self.next;
        ensure!(number < ENTRIES, "no room for more answers");
        self.next += 1;
        self.maps.write(number, &slot)?;
        self.maps.set_use(number, AnswerUse::default())?;
        let place = answers::place(resource.0, slot.server, INTERFACE, question.qtype, question.kind);
        let mut bucket = [0; BUCKET];
        bucket[0] = answers::entry(place, number);
        self.maps.name(place as u32 & (INDEX_ENTRIES - 1), bucket)?;
        Ok(number)
    }

    /// What a packet comes to.
    ///
    /// # Errors
    /// When the program can't be run.
    pub fn run(&mut self, frame: &[u8]) -> anyhow::Result<(u32, Vec<u8>)> {
        // A test may take longer than the daemon may be silent.
        self.heart.beat()?;
        Ok(self.trial.transform(INGRESS, frame)?)
    }

    /// What was counted.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn count(&self, counter: AnswerCounter) -> anyhow::Result<u64> {
        Ok(self.counters.read()?.get(counter))
    }
}

/// Sets the check sums of a frame without options or extension headers.
pub fn seal(frame: &mut [u8]) {
    let ip = network(frame);
    let (udp, v6) = if frame[ip] >> 4 == 6 { (ip + 40, true) } else { (ip + 20, false) };
    if !v6 {
        frame[ip + 10..ip + 12].fill(0);
        let check = !sum(&frame[ip..ip + 20]);
        frame[ip + 10..ip + 12].copy_from_slice(&check.to_be_bytes());
    }
    frame[udp + 6..udp + 8].fill(0);
    let check = !sum(&covered(frame, ip, udp));
    frame[udp + 6..udp + 8].copy_from_slice(&if check == 0 { 0xffff } else { check }.to_be_bytes());
}

/// Whether the check sums of a frame are right.
#[must_use]
pub fn is_sealed(frame: &[u8]) -> bool {
    let ip = network(frame);
    let udp = if frame[ip] >> 4 == 6 { ip + 40 } else { ip + 20 };
    let header = frame[ip] >> 4 == 6 || sum(&frame[ip..ip + 20]) == 0xffff;
    header && sum(&covered(frame, ip, udp)) == 0xffff
}

/// Where the IP header begins.
#[must_use]
pub fn network(frame: &[u8]) -> usize {
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    at + 2
}

/// Where the DNS message begins.
#[must_use]
pub fn message(frame: &[u8]) -> usize {
    let ip = network(frame);
    ip + if frame[ip] >> 4 == 6 { 48 } else { 28 }
}

/// What the check sum of UDP covers: a pseudo header, the datagram.
fn covered(frame: &[u8], ip: usize, udp: usize) -> Vec<u8> {
    let length = u16::from_be_bytes([frame[udp + 4], frame[udp + 5]]);
    let addresses = if udp - ip == 40 { &frame[ip + 8..ip + 40] } else { &frame[ip + 12..ip + 20] };
    let mut bytes = addresses.to_vec();
    bytes.extend([0, 17]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(&frame[udp..udp + usize::from(length)]);
    bytes
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}
