//! The connect redirect from user space: its programs on cgroups, and its maps.
//!
//! Comes in: leases by token and destination, rules, listeners. Goes out: who has claimed what. Never here: where
//! leases come from, or what is done with a redirected connection.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
    programs::{Program, ProgramError},
};
use prewarm_ebpf::redirect::{
    CONNECT4, CONNECT6, Cgroup as RuledCgroup, DESTINATIONS, Destination, EXCLUDED_CGROUPS, HEARTBEAT, LISTENERS,
    Listener, OFFERS, OfferKey, PEERNAME4, PEERNAME6, REDIRECT_COUNTERS, REDIRECT_COUNTERS_LENGTH, REDIRECT_PROGRAMS,
    REDIRECTED, REDIRECTED_ENTRIES, RULES, RedirectCounter, Redirected, Rules, SLOT_USED, SLOTS, SOCKNAME4, SOCKNAME6,
    Slots, USER_ENTRIES, USER_EXCLUDED, USER_INCLUDED, USERS,
};

use super::{Cgroup, Heartbeat, KernelError, Key, Programs, Settings, programs};

/// How a map's record lies in memory, which aya knows only for arrays.
type OfferWords = [u32; size_of::<OfferKey>() / 4];
type DestinationWords = [u32; size_of::<Destination>() / 4];
type RedirectedWords = [u32; size_of::<Redirected>() / 4];
type ListenerWords = [u32; size_of::<Listener>() / 4];
type RulesWords = [u64; size_of::<Rules>() / 8];

/// The kernel memory of the largest map, in bytes: records, with what the kernel keeps beside each.
pub(super) const BYTES: u64 = REDIRECTED_ENTRIES as u64 * (size_of::<Redirected>() + 8 + 64) as u64;

/// Who is left alone by the redirect.
#[derive(Clone, Debug, Default)]
pub struct RedirectRules {
    /// The only users who take part; empty for all.
    pub uids: Vec<u32>,
    /// Users who don't.
    pub exclude_uids: Vec<u32>,
    /// Cgroups whose programs, and those below, don't; by number and level below the root of all. [`ONLY_THIS`] stands
    /// for a level that is not known: then those below do.
    pub excluded_cgroups: Vec<(u64, u32)>,
    /// The process whose connections are never redirected, as the first PID namespace numbers it: the daemon.
    pub own_process: Option<u32>,
}

pub use prewarm_ebpf::redirect::ONLY_THIS;

/// The parts of the redirect, each with the maps it needs.
pub struct Redirect {
    /// Puts the programs on cgroups.
    pub hooks: RedirectHooks,
    /// Offers leases.
    pub offers: RedirectOffers,
    /// Knows who claimed.
    pub claims: RedirectClaims,
    /// Says where redirected connections go.
    pub listeners: RedirectListeners,
    /// Counts.
    pub counters: RedirectCounters,
}

impl Programs {
    /// Loads the programs of the redirect with their rules, once. Nothing is attached, offered or listened at yet.
    ///
    /// # Errors
    /// When the kernel refuses a program, there are too many rules, or this was called before.
    pub fn redirect(&mut self, rules: &RedirectRules) -> Result<Redirect, KernelError> {
        let bpf = self.bpf();
        let hooks = load(bpf)?;
        set_rules(bpf, rules)?;
        Ok(Redirect {
            hooks,
            offers: offers(bpf, OFFERS, DESTINATIONS)?,
            claims: RedirectClaims(hash(bpf, REDIRECTED)?),
            listeners: RedirectListeners(hash(bpf, LISTENERS)?),
            counters: RedirectCounters(programs::take_map(bpf, REDIRECT_COUNTERS, PerCpuArray::try_from)?),
        })
    }

    /// The writer of the beat that programs which change anything wait for, once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn heartbeat(&mut self) -> Result<Heartbeat, KernelError> {
        programs::take_map(self.bpf(), HEARTBEAT, Array::try_from).map(Heartbeat::new)
    }
}

impl Redirect {
    /// Tries whether the kernel takes the programs, and lets them be attached to a cgroup; they go again at once.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn probe(object: &[u8], cgroup: Cgroup) -> Result<(), KernelError> {
        let mut bpf = programs::open(object, &Settings::new(Key::from_secret(&[0; 32])))?;
        load(&mut bpf)?.attach(cgroup).map(drop)
    }
}

/// Loads the programs.
fn load(bpf: &mut Ebpf) -> Result<RedirectHooks, KernelError> {
    let mut hooks = Vec::new();
    for name in REDIRECT_PROGRAMS {
        programs::verify(bpf, name)?;
        hooks.push(Hook::new(bpf, name)?);
    }
    Ok(RedirectHooks(hooks))
}

/// The writer of leases that can be claimed, over maps of these names.
pub(super) fn offers(
    bpf: &mut Ebpf,
    offers: &'static str,
    destinations: &'static str,
) -> Result<RedirectOffers, KernelError> {
    Ok(RedirectOffers { offers: hash(bpf, offers)?, destinations: hash(bpf, destinations)? })
}

pub(super) fn hash<K: aya::Pod, V: aya::Pod>(
    bpf: &mut Ebpf,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, KernelError> {
    programs::take_map(bpf, name, HashMap::try_from)
}

fn set_rules(bpf: &mut Ebpf, rules: &RedirectRules) -> Result<(), KernelError> {
    let too_many = |context| KernelError::System { context, source: io::ErrorKind::InvalidInput.into() };
    let mut users: HashMap<MapData, u32, u32> = hash(bpf, USERS)?;
    if rules.uids.len() + rules.exclude_uids.len() > USER_ENTRIES as usize {
        return Err(too_many("handover.uids and exclude_uids: at most 1024 users"));
    }
    let included = rules.uids.iter().map(|uid| (uid, USER_INCLUDED));
    // Behind the others: exclusion wins.
    for (uid, rule) in included.chain(rules.exclude_uids.iter().map(|uid| (uid, USER_EXCLUDED))) {
        users.insert(uid, rule, 0).map_err(|source| KernelError::Map { map: USERS, source })?;
    }
    if rules.excluded_cgroups.len() > EXCLUDED_CGROUPS {
        return Err(too_many("handover.redirect.exclude_cgroups: at most 16 cgroups"));
    }
    let mut record = Rules {
        own_process: rules.own_process.unwrap_or(0),
        named_users_only: u32::from(!rules.uids.is_empty()),
        excluded_count: rules.excluded_cgroups.len() as u32,
        ..Rules::default()
    };
    for (place, &(id, level)) in record.excluded.iter_mut().zip(&rules.excluded_cgroups) {
        *place = RuledCgroup { id, level, reserved: 0 };
    }
    let mut map: Array<MapData, RulesWords> = programs::take_map(bpf, RULES, Array::try_from)?;
    map.set(0, bytemuck::cast::<_, RulesWords>(record), 0).map_err(|source| KernelError::Map { map: RULES, source })
}

/// One loaded program.
#[derive(Debug)]
struct Hook {
    name: &'static str,
    /// `enum bpf_attach_type`.
    kind: u32,
    program: OwnedFd,
    id: u32,
}

impl Hook {
    fn new(bpf: &Ebpf, name: &'static str) -> Result<Self, KernelError> {
        let refused = |source| KernelError::Refused { program: name, source: Box::new(source) };
        let Some(Program::CgroupSockAddr(program)) = bpf.program(name) else {
            return Err(refused(ProgramError::UnexpectedProgramType));
        };
        let id = program.info().map_err(refused)?.id();
        let program = program.fd().map_err(refused)?.as_fd().try_clone_to_owned();
        let program = program.map_err(KernelError::system("the descriptor of a program"))?;
        Ok(Self { name, kind: kind(name), program, id })
    }
}

/// The numbers are those of linux/bpf.h.
fn kind(program: &str) -> u32 {
    match program {
        CONNECT4 => 10,
        CONNECT6 => 11,
        PEERNAME4 => 29,
        PEERNAME6 => 30,
        SOCKNAME4 => 31,
        SOCKNAME6 => 32,
        _ => u32::MAX,
    }
}

/// The programs, ready to be put on cgroups.
#[derive(Debug)]
pub struct RedirectHooks(Vec<Hook>);

/// The programs on one cgroup, for as long as this lives. Nothing is pinned: when the daemon dies, they are gone.
#[derive(Debug)]
pub struct RedirectAttachment {
    cgroup: Cgroup,
    connects: Vec<OwnedFd>,
    _names: Vec<OwnedFd>,
}

impl RedirectAttachment {
    /// Takes off what redirects; sockets that were redirected are still shown the addresses they expect.
    pub fn stop_redirecting(&mut self) {
        self.connects.clear();
    }
}

impl RedirectHooks {
    /// Puts the programs on a cgroup, and sees that they run there.
    ///
    /// # Errors
    /// When the kernel refuses, or another program keeps ours from running.
    pub fn attach(&self, cgroup: Cgroup) -> Result<RedirectAttachment, KernelError> {
        let failed = |program, source| KernelError::AttachCgroup { program, path: cgroup.path().to_owned(), source };
        let (mut connects, mut names) = (Vec::new(), Vec::new());
        // Backwards: the names are true before the first connection is redirected.
        for hook in self.0.iter().rev() {
            let link = cgroup.attach(hook.program.as_fd(), hook.kind).map_err(|source| failed(hook.name, source))?;
            let links = if [CONNECT4, CONNECT6].contains(&hook.name) { &mut connects } else { &mut names };
            links.push(link);
        }
        match self.missing(&cgroup)? {
            None => Ok(RedirectAttachment { cgroup, connects, _names: names }),
            Some(name) => Err(failed(name, io::Error::other("it is attached and does not run there"))),
        }
    }

    /// Whether the programs run for whoever is at the cgroup's path now: a cgroup that was removed took its programs
    /// along, and one that was made again in its place has none.
    #[must_use]
    pub fn runs(&self, attachment: &RedirectAttachment) -> bool {
        attachment.cgroup.is_current() && matches!(self.missing(&attachment.cgroup), Ok(None))
    }

    fn missing(&self, cgroup: &Cgroup) -> Result<Option<&'static str>, KernelError> {
        for hook in &self.0 {
            let running = cgroup.effective(hook.kind).map_err(KernelError::system("what runs at a cgroup"))?;
            if !running.contains(&hook.id) {
                return Ok(Some(hook.name));
            }
        }
        Ok(None)
    }
}

/// The leases that can be claimed.
#[derive(Debug)]
pub struct RedirectOffers {
    offers: HashMap<MapData, OfferWords, u32>,
    destinations: HashMap<MapData, DestinationWords, [u32; SLOTS]>,
}

impl RedirectOffers {
    /// Leases to one destination at most.
    pub const PER_DESTINATION: usize = SLOTS;

    /// Makes a lease claimable; it is found once its destination lists it.
    ///
    /// # Errors
    /// When there are too many.
    pub fn insert(&mut self, token: u32, destination: SocketAddr) -> Result<(), KernelError> {
        self.offers
            .insert(offer_key(token, destination), 0, 0)
            .map_err(|source| KernelError::Map { map: OFFERS, source })
    }

    /// Takes a lease back, and says whether it was still there: if not, somebody has claimed it.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn remove(&mut self, token: u32, destination: SocketAddr) -> Result<bool, KernelError> {
        match self.offers.remove(&offer_key(token, destination)) {
            Ok(()) => Ok(true),
            Err(source) if is_absent(&source) => Ok(false),
            Err(source) => Err(KernelError::Map { map: OFFERS, source }),
        }
    }

    /// Lists the tokens that lead to a destination; those beyond [`Self::PER_DESTINATION`] are not found.
    ///
    /// # Errors
    /// When there are too many destinations.
    pub fn list(&mut self, destination: SocketAddr, tokens: &[u32]) -> Result<(), KernelError> {
        let key = bytemuck::cast::<_, DestinationWords>(record(destination));
        let done = if tokens.is_empty() {
            self.destinations.remove(&key).or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
        } else {
            let mut slots = Slots { tokens: [0; SLOTS] };
            for (slot, token) in slots.tokens.iter_mut().zip(tokens) {
                *slot = token | SLOT_USED;
            }
            self.destinations.insert(key, slots.tokens, 0)
        };
        done.map_err(|source| KernelError::Map { map: DESTINATIONS, source })
    }
}

/// A redirected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The token it claimed.
    pub token: u32,
    /// Where its program believes to be connected to.
    pub destination: SocketAddr,
}

/// The sockets that were redirected.
#[derive(Debug)]
pub struct RedirectClaims(HashMap<MapData, u64, RedirectedWords>);

impl RedirectClaims {
    /// What the socket with this cookie claimed, once; nothing when it claimed another token than this.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn spend(&mut self, cookie: u64, token: Option<u32>) -> Result<Option<Claim>, KernelError> {
        let Some(entry) = self.get(cookie)? else { return Ok(None) };
        if entry.spent != 0 || token.is_some_and(|token| token != entry.token) {
            return Ok(None);
        }
        self.put(cookie, Redirected { spent: 1, ..entry })?;
        Ok(Some(Claim { token: entry.token, destination: address(&entry.peer) }))
    }

    /// Shows the socket with this cookie the address that its lease has.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn set_local(&mut self, cookie: u64, local: SocketAddr) -> Result<(), KernelError> {
        let Some(entry) = self.get(cookie)? else { return Ok(()) };
        self.put(cookie, Redirected { local: record(local), ..entry })
    }

    fn put(&mut self, cookie: u64, entry: Redirected) -> Result<(), KernelError> {
        let written = self.0.insert(cookie, bytemuck::cast::<_, RedirectedWords>(entry), 0);
        written.map_err(|source| KernelError::Map { map: REDIRECTED, source })
    }

    fn get(&self, cookie: u64) -> Result<Option<Redirected>, KernelError> {
        match self.0.get(&cookie, 0) {
            Ok(words) => Ok(Some(bytemuck::cast(words))),
            Err(source) if is_absent(&source) => Ok(None),
            Err(source) => Err(KernelError::Map { map: REDIRECTED, source }),
        }
    }
}

/// Where redirected connections go, by network namespace.
#[derive(Debug)]
pub struct RedirectListeners(HashMap<MapData, u64, ListenerWords>);

impl RedirectListeners {
    /// From now on connections of a namespace (by its cookie) may be redirected to these ports of its loopback.
    ///
    /// # Errors
    /// When there are too many namespaces.
    pub fn admit(&mut self, namespace: u64, port4: Option<u16>, port6: Option<u16>) -> Result<(), KernelError> {
        let port = |port: Option<u16>| u32::from(port.unwrap_or(0).to_be());
        let record = Listener { port4: port(port4), port6: port(port6) };
        self.0
            .insert(namespace, bytemuck::cast::<_, ListenerWords>(record), 0)
            .map_err(|source| KernelError::Map { map: LISTENERS, source })
    }

    /// From now on they may not.
    ///
    /// # Errors
    /// When the map can't be used.
    pub fn dismiss(&mut self, namespace: u64) -> Result<(), KernelError> {
        match self.0.remove(&namespace) {
            Err(source) if !is_absent(&source) => Err(KernelError::Map { map: LISTENERS, source }),
            _ => Ok(()),
        }
    }
}

/// The reader of what the redirect counts in the kernel.
pub struct RedirectCounters(PerCpuArray<MapData, [u64; REDIRECT_COUNTERS_LENGTH]>);

impl RedirectCounters {
    /// Each counter with its sum over all processors.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn read(&self) -> Result<Vec<(RedirectCounter, u64)>, KernelError> {
        let values = self.0.get(&0, 0).map_err(|source| KernelError::Map { map: REDIRECT_COUNTERS, source })?;
        let sum = |&counter: &RedirectCounter| {
            (counter, values.iter().map(|processor| processor[counter as usize]).fold(0, u64::wrapping_add))
        };
        Ok(RedirectCounter::ALL.iter().map(sum).collect())
    }
}

pub(super) fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

fn offer_key(token: u32, destination: SocketAddr) -> OfferWords {
    bytemuck::cast(OfferKey { destination: record(destination), token })
}

/// An address as the programs see it.
pub(super) fn record(place: SocketAddr) -> Destination {
    let octets = match place.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    Destination { address: bytemuck::cast(octets), port: u32::from(place.port().to_be()) }
}

/// The address in a record; a mapped one as the IPv4 address that it is.
fn address(record: &Destination) -> SocketAddr {
    let ip = Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(record.address));
    SocketAddr::new(IpAddr::V6(ip).to_canonical(), u16::from_be(record.port as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_cross_as_they_are() {
        for place in ["192.0.2.1:443", "[2001:db8::1]:80", "127.0.0.1:1"] {
            let place: SocketAddr = place.parse().unwrap();
            assert_eq!(address(&record(place)), place);
        }
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:443".parse().unwrap();
        assert_eq!(record(mapped), record("192.0.2.1:443".parse().unwrap()));
    }

    #[test]
    fn every_program_has_a_place() {
        for name in REDIRECT_PROGRAMS {
            assert_ne!(kind(name), u32::MAX, "{name}");
        }
    }
}
