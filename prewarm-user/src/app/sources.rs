//! The sources beside the ring: what DNS servers and C libraries tell, as batches for the deciding task.
//!
//! Each writer of dnstap has a task, and so have the libraries. None of them waits for the deciding task: a batch that
//! it has no room for is dropped and counted.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use nix::unistd::Group;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::core::HERE;
use crate::{
    config::SourcesSettings,
    control::{self, SourceCounts},
    kernel::{Key, Lookup, LookupCounts, Lookups, Programs},
    model::{Direction, Name, Observation, ResourceId, Seen, Timestamp},
    observe::{
        Teller,
        dnstap::{Event, FrameError, Frames, Item, Skipped, Writer},
    },
    resolve::OwnPorts,
    telemetry::Clock,
};

/// Batches between the sources and the deciding task.
pub(super) const BATCHES: usize = 256;
/// What a batch has at most: the deciding task has others to listen to between two of them.
const BATCH: usize = 128;
/// Bytes read from a writer at once.
const PIECE: usize = 1 << 16;
/// What was written down longer ago than this is taken to happen now: somebody plays a file back, or a clock was set.
const OLDEST: Duration = Duration::from_secs(30);
/// How long a writer may take to read an answer to its handshake.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after a failed accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_secs(1);
/// What a library's answer is taken to be good for. It says nothing of that; a resolver that is asked again knows
/// better, and what connections go to is remembered for longer than this anyway (`history.address_memory_seconds`).
const LIBRARY_TTL: Duration = Duration::from_secs(5);

/// What a source tells at once.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) teller: Teller,
    pub(super) observations: Vec<Observation>,
    /// Questions of the daemon's own that a server tells of, and when they were asked: no accesses, but what the server
    /// asked because of them is none either.
    pub(super) own: Vec<(ResourceId, Timestamp)>,
}

/// The sources, running.
pub(super) struct Sources {
    tasks: JoinSet<()>,
    paths: Vec<PathBuf>,
    pub(super) counters: SourceCounters,
}

/// What the sources counted, for whoever shows it.
#[derive(Clone, Default)]
pub(super) struct SourceCounters {
    tallies: BTreeMap<String, Arc<Tally>>,
    /// Writers connected now that tell of the clients of a resolver, or have said nothing yet.
    pub(super) resolvers: Arc<AtomicU32>,
}

/// What one source counted; see [`SourceCounts`].
#[derive(Default)]
struct Tally {
    questions: AtomicU64,
    answers: AtomicU64,
    upstream: AtomicU64,
    own: AtomicU64,
    ignored: AtomicU64,
    unread: AtomicU64,
    dropped: AtomicU64,
    feeds: AtomicU64,
    connections: AtomicU64,
    broken: AtomicU64,
    refused: AtomicU64,
    /// The programs in the libraries count in the kernel.
    kernel: RwLock<LookupCounts>,
}

/// What every source needs.
#[derive(Clone)]
struct Desk {
    key: Key,
    clock: Clock,
    to: mpsc::Sender<Batch>,
    tally: Arc<Tally>,
    ports: OwnPorts,
    addresses: Arc<[IpAddr]>,
}

/// What the sources are to know of this daemon.
pub(super) struct Own {
    /// The key of resource IDs.
    pub(super) key: Key,
    /// The ports that it asks from.
    pub(super) ports: OwnPorts,
    /// The addresses of this host.
    pub(super) addresses: Arc<[IpAddr]>,
    /// Other network namespaces whose programs are learnt from, as [`CaptureSettings::namespaces`] names them.
    ///
    /// [`CaptureSettings::namespaces`]: crate::config::CaptureSettings::namespaces
    pub(super) namespaces: Vec<String>,
}

impl Sources {
    /// Starts those of the settings.
    ///
    /// # Errors
    /// When a socket or a library can't be had, naming it.
    pub(super) async fn start(
        settings: &SourcesSettings,
        programs: &mut Programs,
        own: Own,
        clock: Clock,
        to: mpsc::Sender<Batch>,
    ) -> anyhow::Result<Self> {
        let mut sources = Self { tasks: JoinSet::new(), paths: Vec::new(), counters: SourceCounters::default() };
        let desk = |counters: &mut SourceCounters, name: String| {
            let tally = Arc::clone(counters.tallies.entry(name).or_default());
            let Own { key, ports, addresses, .. } = &own;
            let (key, ports, addresses) = (key.clone(), ports.clone(), Arc::clone(addresses));
            Desk { key, clock, to: to.clone(), tally, ports, addresses }
        };
        for path in settings.sockets() {
            let listener = control::bind(path, &settings.group).await?;
            sources.paths.push(path.clone());
            if !matches!(Group::from_name(&settings.group), Ok(Some(_))) {
                tracing::warn!(
                    "{}: only root can write there, since there is no group {:?} (sources.group)",
                    path.display(),
                    settings.group
                );
            }
            tracing::info!("listening for dnstap on {}", path.display());
            let desk = desk(&mut sources.counters, format!("dnstap:{}", path.display()));
            let resolvers = Arc::clone(&sources.counters.resolvers);
            sources.tasks.spawn(listen(listener, settings.writers as usize, desk, resolvers));
        }
        if let Some(libraries) = settings.libraries() {
            let lookups = programs.watch_lookups(&libraries).map_err(super::explain::explain)?;
            let names: Vec<String> = lookups.libraries().iter().map(|path| path.display().to_string()).collect();
            tracing::info!("watching getaddrinfo in {}", names.join(", "));
            let desk = desk(&mut sources.counters, "getaddrinfo".to_owned());
            desk.tally.feeds.store(names.len() as u64, Relaxed);
            sources.tasks.spawn(watch(lookups, own.namespaces, desk));
        }
        Ok(sources)
    }

    /// Ends them; nothing is listened for any more.
    pub(super) fn stop(&mut self) {
        self.tasks.abort_all();
        for path in self.paths.drain(..) {
            drop(std::fs::remove_file(path));
        }
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.stop();
    }
}

impl SourceCounters {
    /// Whether a server that asks others for its clients tells of these.
    pub(super) fn is_resolver_here(&self) -> bool {
        self.resolvers.load(Relaxed) > 0
    }

    /// The numbers, by source.
    pub(super) fn read(&self) -> BTreeMap<String, SourceCounts> {
        self.tallies.iter().map(|(name, tally)| (name.clone(), tally.read())).collect()
    }
}

impl Tally {
    fn read(&self) -> SourceCounts {
        let LookupCounts { lost, unreadable, own, .. } =
            *self.kernel.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        SourceCounts {
            questions: self.questions.load(Relaxed),
            answers: self.answers.load(Relaxed),
            upstream: self.upstream.load(Relaxed),
            own: self.own.load(Relaxed) + own,
            ignored: self.ignored.load(Relaxed),
            unread: self.unread.load(Relaxed) + unreadable,
            dropped: self.dropped.load(Relaxed) + lost,
            feeds: self.feeds.load(Relaxed),
            connections: self.connections.load(Relaxed),
            broken: self.broken.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }
}

impl Desk {
    /// Whether the daemon itself asked.
    fn is_own(&self, client: IpAddr, port: Option<u16>) -> bool {
        let here = client.is_loopback() || self.addresses.contains(&client);
        here && port.is_some_and(|port| self.ports.is_ours(port))
    }

    /// Hands observations on, if there is room.
    fn hand_on(&self, teller: Teller, mut observations: Vec<Observation>, own: Vec<(ResourceId, Timestamp)>) {
        while observations.len() > BATCH {
            let rest = observations.split_off(BATCH);
            self.hand_on(teller, std::mem::replace(&mut observations, rest), Vec::new());
        }
        if observations.is_empty() && own.is_empty() {
            return;
        }
        let questions = observations.iter().filter(|one| matches!(one.seen, Seen::Question { .. })).count() as u64;
        self.tally.questions.fetch_add(questions, Relaxed);
        self.tally.answers.fetch_add(observations.len() as u64 - questions, Relaxed);
        if let Err(refused) = self.to.try_send(Batch { teller, observations, own }) {
            self.tally.dropped.fetch_add(refused.into_inner().observations.len() as u64, Relaxed);
        }
    }
}

/// Takes writers in.
async fn listen(listener: UnixListener, writers: usize, desk: Desk, resolvers: Arc<AtomicU32>) {
    let places = Arc::new(Semaphore::new(writers));
    let mut tasks = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "dnstap: a writer could not be taken in");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            Some(_ended) = tasks.join_next() => continue,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if desk.tally.refused.fetch_add(1, Relaxed) == 0 {
                tracing::warn!("dnstap: more than {writers} writers (sources.writers)");
            }
            continue;
        };
        one(&desk.tally.connections);
        let feed = Feed::new(desk.clone(), Arc::clone(&resolvers));
        tasks.spawn(async move {
            let _place = place;
            let who = stream.peer_cred().ok().and_then(|credentials| credentials.pid()).unwrap_or(0);
            let mut feed = feed;
            match feed.read(stream).await {
                Ok(()) => tracing::debug!("dnstap: the writer (process {who}) has ended"),
                // Killed, or gone before it read our last word.
                Err(FeedError::Socket(error))
                    if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) =>
                {
                    tracing::debug!("dnstap: the writer (process {who}) is gone");
                }
                Err(error) => {
                    one(&feed.desk.tally.broken);
                    tracing::warn!("dnstap: what process {who} writes: {error}");
                }
            }
        });
    }
}

/// One writer.
struct Feed {
    desk: Desk,
    /// Questions come as such; else they are read out of the answers.
    questions: bool,
    /// It may be a resolver.
    resolver: bool,
    /// It is.
    sure: bool,
    resolvers: Arc<AtomicU32>,
}

fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Why a writer is not listened to any more.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Frames(#[from] FrameError),
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error("it does not read the answer to its handshake")]
    Deaf,
}

impl Feed {
    fn new(desk: Desk, resolvers: Arc<AtomicU32>) -> Self {
        desk.tally.feeds.fetch_add(1, Relaxed);
        // Until it says something it may be one.
        resolvers.fetch_add(1, Relaxed);
        Self { desk, questions: false, resolver: true, sure: false, resolvers }
    }

    /// Notes whether this is a resolver, which asks others for its clients.
    fn set_resolver(&mut self, resolver: bool) {
        match (self.resolver, resolver) {
            (true, false) if !self.sure => self.resolvers.fetch_sub(1, Relaxed),
            (false, true) => self.resolvers.fetch_add(1, Relaxed),
            _ => return self.sure |= resolver,
        };
        self.resolver = resolver;
        self.sure |= resolver;
    }

    /// Reads until the writer ends.
    async fn read(&mut self, mut stream: UnixStream) -> Result<(), FeedError> {
        let mut frames = Frames::new();
        let mut buffer = vec![0; PIECE];
        loop {
            let got = stream.read(&mut buffer).await?;
            if got == 0 {
                return Ok(());
            }
            frames.feed(buffer.get(..got).unwrap_or_default());
            let (mut observations, mut own) = (Vec::new(), Vec::new());
            let moment = Moment::of(self.desk.clock);
            let outcome = loop {
                match frames.next() {
                    Ok(None) => break Ok(()),
                    Ok(Some(Item::Payload(payload))) => self.payload(payload, &moment, &mut observations, &mut own),
                    Ok(Some(Item::Reply(reply))) => {
                        let said = tokio::time::timeout(PATIENCE, stream.write_all(reply)).await;
                        match said {
                            Ok(said) => said?,
                            Err(_elapsed) => return Err(FeedError::Deaf),
                        }
                    }
                    Ok(Some(Item::End)) => {}
                    Err(error) => break Err(error),
                }
            };
            // What came before a break is good.
            self.desk.hand_on(Teller::Server, observations, own);
            outcome?;
        }
    }

    fn payload(
        &mut self,
        payload: &[u8],
        moment: &Moment,
        observations: &mut Vec<Observation>,
        own: &mut Vec<(ResourceId, Timestamp)>,
    ) {
        let tally = Arc::clone(&self.desk.tally);
        let event = match Event::read(payload) {
            Ok(event) => event,
            Err(Skipped::Upstream) => return one(&tally.upstream),
            Err(Skipped::Other) => return one(&tally.ignored),
            Err(Skipped::Garbled | Skipped::Message(_)) => return one(&tally.unread),
        };
        let Some(client) = event.client.or_else(|| (event.writer == Writer::Stub).then_some(HERE)) else {
            // Somebody who is not named can't be told from another.
            return one(&tally.ignored);
        };
        self.set_resolver(event.writer == Writer::Resolver);
        let resource = self.desk.key.resource_id(&event.message.name);
        let is_answer = event.message.answer.is_some();
        self.questions |= !is_answer;
        if !is_answer || !self.questions {
            let at = moment.at(event.asked.or(event.answered));
            if self.desk.is_own(client, event.port) {
                one(&tally.own);
                own.push((resource, at));
            } else {
                observations.push(event.question(at, client, |_| resource));
            }
        }
        observations.extend(event.answer(moment.at(event.time()), client, |_| resource));
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.desk.tally.feeds.fetch_sub(1, Relaxed);
        if self.resolver {
            self.resolvers.fetch_sub(1, Relaxed);
        }
    }
}

/// The same moment on both clocks.
struct Moment {
    now: Timestamp,
    wall: Duration,
}

impl Moment {
    fn of(clock: Clock) -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { now: clock.now(), wall }
    }

    /// When something that is said to have happened at `time` did.
    fn at(&self, time: Option<Duration>) -> Timestamp {
        let ago = time.and_then(|time| self.wall.checked_sub(time)).filter(|&ago| ago < OLDEST);
        self.now - ago.unwrap_or_default()
    }
}

/// Takes in what programs look up.
async fn watch(mut lookups: Lookups, namespaces: Vec<String>, desk: Desk) {
    let path = |name: &String| if name.contains('/') { name.into() } else { Path::new("/run/netns").join(name) };
    let others = namespaces.iter().filter_map(|name| network(&path(name)));
    let here: Vec<_> = network(Path::new("/proc/self/ns/net")).into_iter().chain(others).collect();
    let is_elsewhere = AtomicBool::new(false);
    let mut batch = Vec::new();
    loop {
        if let Err(error) = lookups.fill(&mut batch).await {
            tracing::error!(%error, "getaddrinfo is not watched any more");
            desk.tally.feeds.store(0, Relaxed);
            return;
        }
        let mut observations = Vec::with_capacity(2 * batch.len());
        for lookup in batch.drain(..) {
            let place = lookup.process.and_then(|process| network(Path::new(&format!("/proc/{process}/ns/net"))));
            // A process that has ended already can't be asked where it was; most are where the daemon is.
            if place.is_some_and(|place| !here.contains(&place)) {
                if !is_elsewhere.swap(true, Relaxed) {
                    tracing::info!("look-ups in other network namespaces are not learnt from");
                }
                one(&desk.tally.ignored);
                continue;
            }
            match hostname(&lookup.name) {
                Some(name) => told(&lookup, name, &desk.key, &mut observations),
                None => one(&desk.tally.ignored),
            }
        }
        desk.hand_on(Teller::Library, observations, Vec::new());
        if let Ok(counts) = lookups.counts() {
            *desk.tally.kernel.write().unwrap_or_else(std::sync::PoisonError::into_inner) = counts;
        }
    }
}

/// The network namespace that a file of /proc stands for.
fn network(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// A look-up as question and answer.
fn told(lookup: &Lookup, name: Name, key: &Key, observations: &mut Vec<Observation>) {
    const A: u16 = 1;
    let resource = key.resource_id(&name);
    let seen =
        Seen::Question { resource, name: Some(name.clone()), qtype: A, direction: Direction::Egress, interface: 0 };
    observations.push(Observation { at: lookup.asked, client: HERE, seen });
    if lookup.code != 0 {
        // No such name, none of the family that was asked for, no server: which of them, the numbers don't say.
        return;
    }
    let seen = Seen::Answer {
        resource,
        name: Some(name),
        qtype: A,
        rcode: 0,
        ttl: LIBRARY_TTL,
        addresses: lookup.addresses.clone(),
        service_binding: false,
    };
    observations.push(Observation { at: lookup.answered, client: HERE, seen });
}

/// What a program looked up, if it is the name of a host: ASCII letters, digits, hyphens and underscores in labels, and
/// no address in any of its spellings (the last label of which is a number).
fn hostname(text: &[u8]) -> Option<Name> {
    let text = std::str::from_utf8(text).ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !text.bytes().all(plain) || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    let last = text.strip_suffix('.').unwrap_or(text).rsplit('.').next()?;
    let number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    if number { None } else { text.parse().ok().filter(|name: &Name| !name.is_root()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_hosts_are_names() {
        for text in ["example.org", "WWW.Example.org.", "a", "_srv.b-c.example", "3com.example", "1.2.3.four"] {
            assert!(hostname(text.as_bytes()).is_some(), "{text}");
        }
        for text in
            ["", ".", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "127.1", "0x7f000001", "a..b", "a b", "a\\.b", "ä.de"]
        {
            assert_eq!(hostname(text.as_bytes()), None, "{text}");
        }
        assert_eq!(hostname(&[b'a', 0xff]), None);
    }

    #[test]
    fn what_is_too_old_or_in_the_future_happens_now() {
        let moment = Moment { now: Timestamp::from_origin(Duration::from_secs(100)), wall: Duration::from_secs(5000) };
        assert_eq!(moment.at(Some(Duration::from_secs(4999))), Timestamp::from_origin(Duration::from_secs(99)));
        for time in [None, Some(Duration::from_secs(4000)), Some(Duration::from_secs(5001))] {
            assert_eq!(moment.at(time), moment.now);
        }
    }

    #[test]
    fn failed_lookups_are_questions_all_the_same() {
        let lookup = |code| Lookup {
            asked: Timestamp::ZERO,
            answered: Timestamp::ZERO,
            process: None,
            code,
            name: Vec::new(),
            addresses: Vec::new(),
        };
        let key = Key::from_secret(&[1; 32]);
        let seen = |code| {
            let mut observations = Vec::new();
            told(&lookup(code), "a.example".parse().unwrap(), &key, &mut observations);
            observations
        };
        assert_eq!(seen(0).len(), 2);
        assert_eq!(seen(-2).len(), 1);
    }
}
