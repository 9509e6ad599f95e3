//! The task that keeps answers laid ready.
//!
//! Comes in: what is wanted, expected and seen, datagrams, and what a person asks. Goes out: questions to the servers on
//! this host, and what the store makes of their answers. Never here: a question to anybody else, and more of them than the
//! settings allow.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use nix::{
    sys::socket::{setsockopt, sockopt},
    time::{ClockId, clock_gettime},
};
use prewarm_ebpf::answers::WantedRecord;
use socket2::{Domain, Socket, Type};
use tokio::{net::UdpSocket, sync::mpsc, time::MissedTickBehavior};

use super::{
    Answer, Asked, Asking, Command, Flush, Fresh, Lead, Pending, Question, Refused, Server, Store, Table, Told, Unfit,
    Why,
    numbers::{AnswerView, Numbers},
    stale::Stale,
};
use crate::{
    kernel::{KernelError, WantedRing},
    model::{Name, Observation, ResourceId, Seen, Timestamp},
    telemetry::Clock,
};

/// How often the ring of what is wanted is looked at.
const TICK: Duration = Duration::from_millis(20);
/// How often the rest is looked after.
const SECOND: Duration = Duration::from_secs(1);
/// Wanted questions taken at once: no more answers than the socket has room for.
const BATCH: usize = 64;
/// For how long a question whose answer can't be given again is not asked again.
const LEFT_ALONE: Duration = Duration::from_secs(60);
/// Questions left alone at most, and names that servers answer by client.
const MOST_LEFT_ALONE: usize = 8192;
/// For how long a kind of question is expected after somebody asked such a one.
const IN_USE: Duration = Duration::from_secs(600);
/// For how long an expected name is expected.
const EXPECTED: Duration = Duration::from_secs(60);
/// How much later than an answer was laid ready another must be told for both to be compared.
const SETTLED: Duration = Duration::from_secs(1);
/// Names that a server answers by client before nothing of it is given any more.
const BY_CLIENT: usize = 8;
/// How often a server is asked to see whether it lets records take turns.
const ORDERS: u8 = 4;
/// Records with this address are the daemon's own look-ups.
const HERE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Says of which names leases wait, and to which addresses.
pub type Ready = Arc<dyn Fn() -> BTreeSet<(Name, IpAddr)> + Send + Sync>;

/// What the task is made of.
pub struct Parts<T> {
    /// The answers.
    pub store: Store<T>,
    /// What is wanted.
    pub wanted: WantedRing,
    /// The socket that servers are asked by.
    pub socket: UdpSocket,
    /// The servers, with their interfaces' names.
    pub servers: Vec<(Server, String)>,
    /// Zones that are left alone.
    pub exclude: Vec<Name>,
    /// Questions a second at most.
    pub per_second: u32,
    /// For how long after its TTL an answer is given while the server fails; zero: never.
    pub stale: Duration,
    /// Gives the ID of a name.
    pub resource: Box<dyn Fn(&Name) -> ResourceId + Send>,
    /// Where leases wait, if that matters.
    pub ready: Option<Ready>,
    /// Where what servers say is told.
    pub observations: mpsc::Sender<Observation>,
    /// The clock.
    pub clock: Clock,
    /// Where numbers are kept.
    pub numbers: Arc<Mutex<Numbers>>,
}

/// A socket for questions to servers on this host, of both families, and its port. Packets carry the mark, so that the
/// kernel side leaves them out.
///
/// # Errors
/// When there is none to be had.
pub fn socket(mark: u32) -> io::Result<(UdpSocket, u16)> {
    let (socket, any): (Socket, SocketAddr) = match Socket::new(Domain::IPV6, Type::DGRAM, None) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            (socket, (Ipv6Addr::UNSPECIFIED, 0).into())
        }
        Err(_) => (Socket::new(Domain::IPV4, Type::DGRAM, None)?, ([0, 0, 0, 0], 0).into()),
    };
    if let Err(error) = setsockopt(&socket, sockopt::Mark, &mark) {
        tracing::debug!(%error, "answers: questions go out unmarked");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&any.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// The task.
pub struct Service<T> {
    parts: Parts<T>,
    asking: Asking,
    stale: Stale,
    /// Kinds of questions that clients ask, with when they last did.
    kinds: HashMap<(Server, u16, u8), Timestamp>,
    /// Questions whose answers can't be given again, until when.
    left_alone: HashMap<Asked, Timestamp>,
    /// Questions that were answered with the last of a TTL, and when they are asked again.
    again: Vec<(Timestamp, Asked, ResourceId)>,
    /// Names that a server answers by client.
    by_client: HashSet<(Server, Name)>,
    /// Servers of which nothing is given any more.
    off: HashSet<Server>,
    /// Whether servers let records take turns, and how often they were asked.
    orders: HashMap<IpAddr, (bool, u8)>,
    sent: u32,
    asleep: Duration,
}

impl<T: Table> Service<T> {
    /// The task with its parts.
    #[must_use]
    pub fn new(parts: Parts<T>) -> Self {
        Self {
            stale: Stale::new(parts.stale, parts.store.room()),
            parts,
            asking: Asking::default(),
            kinds: HashMap::new(),
            left_alone: HashMap::new(),
            again: Vec::new(),
            by_client: HashSet::new(),
            off: HashSet::new(),
            orders: HashMap::new(),
            sent: 0,
            asleep: asleep(),
        }
    }

    /// Runs until nobody asks anything of it any more.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut often = tokio::time::interval(TICK);
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seldom = tokio::time::interval(SECOND);
        seldom.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut datagram = vec![0; 4096];
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                received = self.parts.socket.recv_from(&mut datagram) => {
                    if let Ok((length, from)) = received
                        && let Some((pending, answer)) = self.asking.take(from, &datagram[..length])
                    {
                        self.answered(pending, answer);
                    }
                }
                _ = often.tick() => self.look(),
                _ = seldom.tick() => self.look_after(),
            }
        }
    }

    /// Takes in what is wanted, and asks anew what gets old.
    fn look(&mut self) {
        let mut wanted = Vec::new();
        self.parts.wanted.drain(BATCH.min(self.asking.room()), |record| wanted.extend(read(record)));
        let now = self.parts.clock.now();
        for (asked, resource) in wanted {
            self.kinds.insert((asked.server, asked.question.qtype, asked.question.kind), now);
            self.parts.store.wanted(&asked, resource);
            if self.parts.store.get(&asked).is_none() {
                self.ask(&asked, resource, Why::Wanted);
            }
        }
        match self.parts.store.tick(now) {
            Ok(again) => {
                for asked in again {
                    let resource = (self.parts.resource)(&asked.question.name);
                    self.ask(&asked, resource, Why::Refresh);
                }
            }
            Err(error) => tracing::warn!(%error, "answers: what is too old"),
        }
        self.lead();
    }

    /// Lets the address that a lease waits for come first.
    fn lead(&mut self) {
        let ready = self.parts.ready.as_ref().map(|ready| ready()).unwrap_or_default();
        let turning = self.orders.iter().filter(|(_, order)| order.0).map(|(server, _)| *server).collect();
        if let Err(error) = self.parts.store.lead(Lead { ready, turning }) {
            tracing::debug!(%error, "answers: which address comes first");
        }
    }

    fn look_after(&mut self) {
        let now = self.parts.clock.now();
        self.sent = 0;
        for asked in self.asking.tick(now) {
            self.failed(now, &asked);
        }
        self.stale.tick(now);
        for (_, asked, resource) in self.again.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            self.ask(&asked, resource, Why::Wanted);
        }
        self.kinds.retain(|_, used| now.since(*used) < IN_USE);
        self.left_alone.retain(|_, until| *until > now);
        // While this host slept, TTLs ran out and no clock of the kernel's ran.
        let asleep = asleep();
        if asleep > self.asleep + Duration::from_millis(100) {
            tracing::info!("answers: this host slept; all of them are asked anew");
            self.flush(&Flush::All);
        }
        self.asleep = asleep;
        let (held, lost, strays) = (self.parts.store.len() as u64, self.asking.lost, self.asking.strays);
        let excluded: Vec<String> = self.by_client.iter().take(64).map(|(_, name)| name.to_string()).collect();
        self.count(|numbers| {
            (numbers.held, numbers.lost, numbers.strays) = (held, lost, strays);
            numbers.by_client = excluded;
        });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Expect(name) => self.expect(&name),
            Command::Told(told) => self.compare(&told),
            Command::List(limit, to) => drop(to.send(self.list(limit))),
            Command::Flush(what, to) => drop(to.send(self.flush(&what))),
        }
    }

    /// Asks ahead what clients ask of a name, in each kind that they do.
    fn expect(&mut self, name: &Name) {
        let now = self.parts.clock.now();
        let resource = (self.parts.resource)(name);
        let kinds: Vec<(Server, u16, u8)> = self.kinds.keys().copied().collect();
        for (server, qtype, kind) in kinds {
            let asked = Asked { server, question: Question { name: name.clone(), qtype, kind } };
            if self.parts.store.get(&asked).is_some() {
                self.parts.store.expect(&asked, now + EXPECTED);
            } else {
                self.ask(&asked, resource, Why::Expected);
            }
        }
    }

    /// Compares what a server told a client with what is held, and asks it where they differ.
    fn compare(&mut self, told: &Told) {
        let mut doubted = Vec::new();
        for (asked, held) in self.parts.store.of(told.resource) {
            let same_type = asked.question.qtype == told.qtype;
            if same_type && held.since + SETTLED < told.at && told.at < held.expires && differs(&held.answer, told) {
                doubted.push((asked.clone(), held.resource));
            }
        }
        for (asked, resource) in doubted {
            tracing::debug!(client = %told.client, name = %asked.question.name, "answers: told something else");
            self.count(|numbers| numbers.doubted += 1);
            self.ask(&asked, resource, Why::Doubt);
        }
    }

    fn ask(&mut self, asked: &Asked, resource: ResourceId, why: Why) {
        let name = &asked.question.name;
        let is_left_alone = self.off.contains(&asked.server)
            || self.left_alone.contains_key(asked)
            || self.by_client.contains(&(asked.server, name.clone()))
            || self.parts.exclude.iter().any(|zone| name.is_within(zone));
        if is_left_alone {
            return;
        }
        if self.sent >= self.parts.per_second {
            return self.count(|numbers| numbers.postponed += 1);
        }
        let now = self.parts.clock.now();
        let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
        let second = Duration::from_nanos(second.into());
        let Some((to, message)) = self.asking.begin(now, second, asked, (resource, why), random()) else { return };
        self.sent += 1;
        let to = match (to.ip(), self.parts.socket.local_addr()) {
            (IpAddr::V4(address), Ok(SocketAddr::V6(_))) => SocketAddr::new(address.to_ipv6_mapped().into(), to.port()),
            _ => to,
        };
        if let Err(error) = self.parts.socket.try_send_to(&message, to) {
            tracing::debug!(%error, %to, "answers: a question");
        }
        self.count(|numbers| numbers.asked += 1);
    }

    fn answered(&mut self, pending: Pending, answer: Result<Answer, Unfit>) {
        let now = self.parts.clock.now();
        let asked = pending.asked.clone();
        let answer = match answer {
            Ok(answer) => answer,
            // The server's own cache, in its last second.
            Err(Unfit::Ttl) if pending.why == Why::Refresh => {
                self.let_go(now, &asked);
                return self.again.push((now + SECOND, asked, pending.resource));
            }
            Err(unfit) => return self.refused(now, asked, unfit),
        };
        if let Why::Order(before) = &pending.why {
            return self.ordered(&asked, before, &answer, pending.resource);
        }
        if let Some(held) = self.parts.store.get(&asked) {
            let expires = pending.base + Duration::from_secs(answer.ttl.into());
            let agrees = held.answer.agrees(&answer);
            if pending.why == Why::Doubt && agrees {
                return self.by_client(now, &asked);
            }
            // The server's own cache: what it says is what is held, and no younger.
            if agrees && expires <= held.expires + SECOND {
                return;
            }
        } else if pending.why == Why::Doubt {
            return;
        }
        self.tell(now, &asked, pending.resource, &answer);
        let turns = answer.turns.is_some();
        let first = answer.addresses.clone();
        let expected = if pending.why == Why::Expected { now + EXPECTED } else { now };
        let rotates = self.rotates(asked.server);
        let expires = pending.base + Duration::from_secs(answer.ttl.into());
        self.stale.keep(&asked, pending.resource, &answer, expires);
        let fresh = Fresh { resource: pending.resource, answer, base: pending.base, expected, rotates };
        match self.parts.store.put(now, &asked, fresh) {
            Ok(()) if pending.why == Why::Refresh => self.count(|numbers| numbers.refreshed += 1),
            Ok(()) if pending.why == Why::Expected => self.count(|numbers| numbers.expected += 1),
            Ok(()) => self.count(|numbers| numbers.filled += 1),
            Err(Refused::Full) => self.count(|numbers| numbers.full += 1),
            Err(Refused::Old) => {}
            Err(Refused::Kernel(error)) => tracing::warn!(%error, "answers: the kernel's maps"),
        }
        let order = self.orders.get(&asked.server.address).copied().unwrap_or_default();
        if turns && !order.0 && order.1 < ORDERS {
            self.orders.insert(asked.server.address, (false, order.1 + 1));
            self.ask(&asked, pending.resource, Why::Order(first));
        }
    }

    fn rotates(&self, server: Server) -> bool {
        self.orders.get(&server.address).is_some_and(|order| order.0)
    }

    /// Learns whether a server lets records take turns: it gave the same ones in another order.
    fn ordered(&mut self, asked: &Asked, before: &[IpAddr], answer: &Answer, resource: ResourceId) {
        let (rotates, times) = self.orders.get(&asked.server.address).copied().unwrap_or_default();
        let turned = rotates || before != answer.addresses;
        self.orders.insert(asked.server.address, (turned, times));
        if !turned && times < ORDERS {
            self.orders.insert(asked.server.address, (false, times + 1));
            self.ask(asked, resource, Why::Order(before.to_vec()));
        }
    }

    fn refused(&mut self, now: Timestamp, asked: Asked, unfit: Unfit) {
        self.count(|numbers| *numbers.unfit.entry(unfit.name().to_owned()).or_default() += 1);
        if unfit == Unfit::Failed && self.failed(now, &asked) {
            return;
        }
        self.let_go(now, &asked);
        if self.left_alone.len() < MOST_LEFT_ALONE {
            // A TTL of zero may be the last second of the server's own cache.
            let rest = if unfit == Unfit::Ttl { SECOND } else { LEFT_ALONE };
            self.left_alone.insert(asked, now + rest);
        }
    }

    /// The server failed; gives whether there is an answer in its place (RFC 8767).
    fn failed(&mut self, now: Timestamp, asked: &Asked) -> bool {
        let Some((resource, answer)) = self.stale.instead(asked, now) else { return false };
        if self.parts.store.get(asked).is_some_and(|held| held.expires > now) {
            return true;
        }
        let rotates = self.rotates(asked.server);
        let put = self.parts.store.put(now, asked, Fresh { resource, answer, base: now, expected: now, rotates });
        if put.is_ok() {
            self.count(|numbers| numbers.stale += 1);
        }
        put.is_ok()
    }

    /// The server says one thing to a client and another to us, at the same time.
    fn by_client(&mut self, now: Timestamp, asked: &Asked) {
        let Asked { server, question } = asked;
        tracing::warn!(
            "answers: {} answers {} by client; the kernel leaves it alone from now on",
            server.address,
            question.name
        );
        let is_it = |other: &Asked| other.server == *server && other.question.name == question.name;
        self.stale.forget(is_it);
        let all = self.parts.store.flush(now, is_it);
        if let Err(error) = all {
            tracing::warn!(%error, "answers: the kernel's maps");
        }
        if self.by_client.len() < MOST_LEFT_ALONE {
            self.by_client.insert((*server, question.name.clone()));
        }
        if self.by_client.iter().filter(|(other, _)| other == server).count() >= BY_CLIENT && self.off.insert(*server) {
            tracing::warn!("answers: {} answers many names by client; nothing of it is given any more", server.address);
            self.stale.forget(|other| other.server == *server);
            drop(self.parts.store.flush(now, |other| other.server == *server));
        }
    }

    fn let_go(&mut self, now: Timestamp, asked: &Asked) {
        if let Err(error) = self.parts.store.remove(now, asked) {
            tracing::warn!(%error, "answers: the kernel's maps");
        }
    }

    fn flush(&mut self, what: &Flush) -> usize {
        let now = self.parts.clock.now();
        let is_it = |asked: &Asked| match what {
            Flush::Name(name) => asked.question.name == *name,
            Flush::Zone(zone) => asked.question.name.is_within(zone),
            Flush::All => true,
        };
        self.left_alone.retain(|asked, _| !is_it(asked));
        self.stale.forget(is_it);
        // What is on its way was said before.
        self.asking.forget();
        self.again.retain(|(_, asked, _)| !is_it(asked));
        self.parts.store.flush(now, is_it).unwrap_or_else(|error: KernelError| {
            tracing::warn!(%error, "answers: the kernel's maps");
            0
        })
    }

    /// Tells the history what a server says, since no client's answer shows it any more.
    fn tell(&self, now: Timestamp, asked: &Asked, resource: ResourceId, answer: &Answer) {
        if answer.addresses.is_empty() {
            return;
        }
        let seen = Seen::Answer {
            resource,
            name: Some(asked.question.name.clone()),
            qtype: asked.question.qtype,
            rcode: 0,
            ttl: Duration::from_secs(answer.ttl.into()),
            addresses: answer.addresses.clone(),
            service_binding: false,
        };
        drop(self.parts.observations.try_send(Observation { at: now, client: HERE, seen }));
    }

    fn list(&self, limit: usize) -> Vec<AnswerView> {
        let now = self.parts.clock.now();
        let interface = |server: &Server| {
            let found = self.parts.servers.iter().find(|(other, _)| other == server);
            found.map_or_else(String::new, |(_, name)| name.clone())
        };
        let store = &self.parts.store;
        let view = |(asked, held): (&Asked, &super::Held)| {
            AnswerView::new(asked, held, store.hits(held), interface(&asked.server), now)
        };
        let mut all: Vec<AnswerView> = store.iter().map(view).collect();
        all.sort_by(|one, other| other.hits.cmp(&one.hits).then_with(|| one.name.cmp(&other.name)));
        all.truncate(limit);
        all
    }

    fn count(&self, change: impl FnOnce(&mut Numbers)) {
        change(&mut self.parts.numbers.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Whether what a client was told is something else than what is held: an address that is not, or that there is no such
/// name. Nothing at all may be an answer that was cut or refused by its EDNS version, and fewer addresses one that was
/// cut; of more addresses than a record has room for, nobody knows all.
fn differs(held: &Answer, told: &Told) -> bool {
    const NXDOMAIN: u8 = 3;
    if held.addresses.len() > prewarm_ebpf::abi::ADDRESSES {
        return false;
    }
    let is_gone = held.flags & 0xf == u16::from(NXDOMAIN);
    told.addresses.iter().any(|address| !held.addresses.contains(address)) || (told.rcode == NXDOMAIN && !is_gone)
}

/// What a record wants, if it is a name at all.
fn read(record: &WantedRecord) -> Option<(Asked, ResourceId)> {
    let name = bytemuck::bytes_of(&record.name).get(..usize::from(record.name_length))?;
    let name = Name::from_wire(name).ok()?;
    let address: [u8; 16] = bytemuck::cast(record.server);
    let server = Server { address: Ipv6Addr::from(address).to_canonical(), interface: record.interface };
    let question = Question { name, qtype: record.qtype, kind: record.kind };
    Some((Asked { server, question }, ResourceId(record.resource)))
}

/// How long this host has slept since it started.
fn asleep() -> Duration {
    let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    let monotonic = read(ClockId::CLOCK_MONOTONIC);
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(monotonic)
}

/// A number that nobody can guess; where the kernel has none to give, the clock's.
fn random() -> u16 {
    let mut bytes = [0; 2];
    if getrandom::fill(&mut bytes).is_err() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        return (now.subsec_nanos() >> 4) as u16;
    }
    u16::from_ne_bytes(bytes)
}
